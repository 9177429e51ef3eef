"""``run``'s methods, and who drafted what in colours."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from gguf_models import write_tiny_model
from own_exits import own_exits

from edge_conflayers import methods
from edge_conflayers.drafters.draft_model import DraftModelDrafter
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput
from edge_conflayers.learned import Learned
from edge_conflayers.method_names import METHOD_NAMES

# The module: as an attribute of the package the name may also be the command.
command = importlib.import_module("edge_conflayers.cli.run")

COLOUR = re.compile(r"\x1b\[([\d;]*)m")
YELLOW = "33"
# Methods that drop no layers: some draft with the whole model, some over exits or bridges.
WHOLE_MODEL = ("plain", "lookup", "recycling", "draft-model", "layerskip", "dssd", "bridged")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(
        tmp_path_factory.mktemp("models") / "tiny.gguf", "llama", n_layer=4, seed=1
    )


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def run(model: Path, *arguments: object) -> Result:
    given = (model, "-p", "the the the the", "-t", 1, "-c", 256, "-n", 60, *arguments)
    return CliRunner().invoke(command.run, [str(argument) for argument in given])


def test_every_method_writes_the_same_text(tiny: Path) -> None:
    with Model(tiny) as model:
        Learned(model, 1).save_exits(own_exits(model))
    plain = run(tiny)
    assert plain.exit_code == 0 and plain.stdout.strip()
    for method in methods.METHODS:
        draft_model = ("--draft-model", tiny) if method in methods.DRAFT_MODEL_METHODS else ()
        for _ in range(2):  # what the first run learned is there in the second
            done = run(tiny, "--method", method, *draft_model, "--temp", 0)
            assert done.exit_code == 0, done.output
            assert done.stdout == plain.stdout
            assert done.stderr.startswith(f"{method}: ")
            drops = method not in WHOLE_MODEL
            assert drops or "layers dropped" not in done.stderr


def test_colours_say_who_drafted(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A random model is never sure.
    monkeypatch.setitem(DraftModelDrafter.__init__.__kwdefaults__, "stop_probability", 0.0)
    arguments = ("--method", "draft-model", "--draft-model", tiny, "--show-draft")
    arguments += ("--stats-json", tmp_path / "stats.json")
    without = run(tiny, *arguments)
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = run(tiny, *arguments)
    stats = json.loads((tmp_path / "stats.json").read_text())
    drafted = stats["sources"].count("draft-model")
    assert drafted == stats["accepted"] > 10
    assert COLOUR.sub("", done.stdout) == without.stdout == run(tiny).stdout
    assert not COLOUR.search(without.stdout)
    assert set(COLOUR.findall(done.stdout)) == {YELLOW, "0"}
    assert 0 < done.stdout.count(f"\x1b[{YELLOW}m") <= drafted
    legend = f"draft-model {drafted}, full model {stats['tokens'] - drafted}"
    if drafted < stats["tokens"] - drafted:
        legend = ", ".join(reversed(legend.split(", ")))
    assert f"drafted by: {legend}\n" in COLOUR.sub("", done.stderr)
    assert f"drafted by: {legend}\n" in without.stderr


def test_nothing_is_marked_where_colours_are_not_wanted(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not COLOUR.search(run(tiny, "--method", "lookup").stdout)
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
        assert not COLOUR.search(run(tiny, "--method", "lookup", "--show-draft").stdout)
        monkeypatch.delenv(name)


def test_sources_without_a_colour_of_their_own_get_different_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edge_conflayers.cli.sources import SourceColours

    monkeypatch.setenv("FORCE_COLOR", "1")
    colours = SourceColours()
    names = ["layers", "lookup", "recycling", "draft-model", "one", "two", "three"]
    marked = [colours.mark([("x", name)]) for name in names]
    assert len({COLOUR.findall(text)[0] for text in marked}) == len(names)
    assert colours.mark([("x", "one")]) == marked[names.index("one")]
    assert colours.mark([("x", "full")]) == "x"


def test_where_drafts_cannot_be_verified_it_says_so_and_decodes_plainly(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(tiny)
    monkeypatch.setattr(Session, "exact_batch", 1)
    for method in ("auto", "lookup", "plain"):
        done = run(tiny, "--method", method)
        assert (done.exit_code, done.stdout) == (0, plain.stdout)
        assert done.stderr.startswith("plain: " if method == "plain" else "note: these CPU kernels")
        assert "plain: 60 tokens" in done.stderr


def test_an_unknown_method_is_refused_with_the_known_ones(tiny: Path) -> None:
    done = run(tiny, "--method", "nonsense")
    assert done.exit_code == 2
    for name in methods.METHODS:
        assert name in done.stderr


def test_help_names_the_methods() -> None:
    asked = CliRunner().invoke(command.run, ["--help"])
    assert "|".join(methods.METHODS) in asked.stdout
    assert list(METHOD_NAMES) == list(methods.METHODS)


def test_a_method_that_a_program_has_added(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods.METHODS, "mine", methods.METHODS["lookup"])
    assert run(tiny, "--method", "mine").stdout == run(tiny).stdout


def test_draft_models_are_checked(tiny: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other.gguf", "llama", n_vocab=700)
    for arguments, what in (
        (("--method", "draft-model"), "needs a second model"),
        (("--draft-model", tiny), "of use to the methods draft-model and auto-draft-model only"),
        (("--method", "draft-model", "--draft-model", other), "other.gguf cannot draft for tiny"),
        (("--method", "draft-model", "--draft-model", tmp_path / "no.gguf"), "neither a file"),
    ):
        done = run(tiny, *arguments)
        assert isinstance(done.exception, BadInput), done.output
        assert what in str(done.exception)


def test_a_head_learns_after_the_text(tiny: Path, tmp_path: Path) -> None:
    plain = run(tiny)
    done = run(tiny, "--learn", 3)
    assert done.exit_code == 0, done.output
    assert done.stdout == plain.stdout
    assert re.search(r"foresees \d+% in one guess", done.stderr)
    assert list((tmp_path / "data" / "profiles").glob("*.next-state"))
    contrary = run(tiny, "--learn", 3, "--fresh")
    assert isinstance(contrary.exception, BadInput) and "choose one" in str(contrary.exception)
