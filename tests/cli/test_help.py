"""The help of every command, as a whole."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from edge_conflayers import __version__
from edge_conflayers.cli import main
from edge_conflayers.cli.help import Command


def commands(command: click.Command = main, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands that do something, by their whole names."""
    if isinstance(command, click.Group):
        for each, below in command.commands.items():
            yield from commands(below, f"{name} {each}".strip())
    else:
        yield name, command


ALL = dict(commands())


def options(name: str) -> list[click.Option]:
    return [each for each in ALL[name].params if isinstance(each, click.Option)]


def help_of(name: str) -> str:
    done = CliRunner().invoke(main, [*name.split(), "--help"], terminal_width=100)
    assert done.exit_code == 0
    return done.stdout


def titles(text: str) -> list[str]:
    return [line[:-1] for line in text.splitlines() if line[:1].isalpha() and line.endswith(":")]


def test_groups_stand_in_one_order() -> None:
    order = (
        *("Server", "Benchmark", "Measurement", "Learning", "Texts", "Training", "LayerSkip"),
        *("ONNX", "Prompt", "Conversation", "Text", "Sampling", "Decoding", "Model", "Machine"),
        *("Output", "Options", "Examples"),
    )
    for name in ALL:
        found = [title for title in titles(help_of(name)) if title != "Positional arguments"]
        assert found == [title for title in order if title in found], name
        assert len(found) == len(set(found))


@pytest.mark.parametrize("name", ["run", "chat", "serve", "bench", "cost", "tune", "train"])
def test_every_option_of_a_long_command_is_in_a_group(name: str) -> None:
    rest = help_of(name).split("\nOptions:\n")[1].split("\nExamples:\n")[0].strip()
    assert rest.splitlines() == ["-h, --help  Show this message and exit."]


@pytest.mark.parametrize("name", ALL)
def test_every_option_says_what_it_does_and_its_default(name: str) -> None:
    text = " ".join(help_of(name).split())
    assert (ALL[name].help or "").strip()
    for option in options(name):
        assert option.help, option.opts
        if not option.is_flag and isinstance(option.default, int | float | str):
            assert option.show_default, option.opts
    assert "None" not in text


def test_one_concept_has_one_name() -> None:
    """The same option takes the same, and has the same short name, wherever it is."""
    known: dict[str, tuple[str, click.Option]] = {}
    differing = {"--method", "--kernels", "--json", "--exits", "--learn"}
    for name in ALL:
        for option in options(name):
            long = max(option.opts, key=len)
            where, before = known.setdefault(long, (name, option))
            if long in differing:
                continue
            assert option.opts == before.opts, (long, name, where)
            assert type(option.type) is type(before.type), (long, name, where)
            assert option.metavar == before.metavar, (long, name, where)


@pytest.mark.parametrize(
    ("name", "example"),
    [(name, each) for name, command in ALL.items() for each in getattr(command, "examples", ())],
)
def test_examples_are_commands_of_this_name(name: str, example: str) -> None:
    words = shlex.split(example.split(" > ")[0].split(" >> ")[0].split(" < ")[0])
    assert words[0] == "edge-conflayers" and " ".join(words[1:]).startswith(name)
    ALL[name].make_context(name, words[1 + len(name.split()) :])
    assert f"  {example}\n" in help_of(name)  # in one line


def test_every_command_has_an_example_or_takes_little() -> None:
    without = [name for name, command in ALL.items() if not getattr(command, "examples", ())]
    assert without == ["models path", "models remove"]
    assert all(isinstance(command, Command) for command in ALL.values())


def test_commands_stand_in_the_order_of_their_use() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    places = [text.index(f"\n  {name} ") for name in main.commands]
    assert places == sorted(places) and list(main.commands)[:3] == ["run", "chat", "serve"]
    assert "edge-conflayers run smollm2-135m" in text


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("rnu model.gguf", "Did you mean 'run'?"),
        ("models lst", "Did you mean 'list'?"),
        ("run model.gguf --tmp 1", "--temp"),
        ("chat model.gguf --gramar x", "--grammar"),
    ],
)
def test_a_near_name_is_suggested(line: str, meant: str) -> None:
    done = CliRunner().invoke(main, line.split())
    assert done.exit_code == 2 and meant in done.stderr and done.stdout == ""


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version(option: str) -> None:
    done = CliRunner().invoke(main, [option])
    assert done.stdout == f"edge-conflayers, version {__version__}\n"
