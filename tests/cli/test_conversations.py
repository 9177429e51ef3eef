"""``run`` with several turns, chat templates and their variables, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from gguf_models import write_tiny_model

from edge_conflayers.cli import main

JINJA = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if thinking is not defined or thinking %}think:{% endif %}answer:"
)
TURNS = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_tiny_model(folder / "tiny.gguf", "llama", n_layer=2, seed=1)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))


def command(model: Path, *arguments: object, stdin: str | None = None) -> Result:
    given = ("run", model, "-t", 1, "-c", 512, "-n", 8, "--method", "plain", *arguments)
    return CliRunner().invoke(main, [str(each) for each in given], input=stdin)


def text(model: Path, *arguments: object, stdin: str | None = None) -> tuple[str, int]:
    """The text, and how many tokens its prompt has."""
    done = command(model, *arguments, stdin=stdin)
    assert done.exit_code == 0, done.output
    return done.stdout, int(done.stderr.split("prompt ")[1].split()[0])


def refused(done: Result, *what: str) -> None:
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert all(each in done.stderr for each in what), done.stderr
    assert done.stderr.count("\n") == 1


def raw(model: Path, prompt: str) -> tuple[str, int]:
    return text(model, "--raw", "-p", prompt)


def test_several_turns_come_as_json_or_json_lines(tiny: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(JINJA)
    expected = raw(tiny, "<user>one\n<assistant>two\n<user>three\nthink:answer:")
    file = tmp_path / "turns"
    options = ("--chat-template", template, "--messages")
    for written in (
        json.dumps(TURNS),
        json.dumps({"model": "any", "messages": TURNS}),
        "\n".join(map(json.dumps, TURNS)) + "\n\n",
    ):
        file.write_text(written)
        assert text(tiny, *options, file) == expected
        assert text(tiny, *options, "-", stdin=written) == expected
    file.write_text(json.dumps(TURNS[:2]))
    assert text(tiny, *options, file, "-p", "three") == expected
    assert text(tiny, *options, file, "-f", "-", stdin="three") == expected
    file.write_text(json.dumps(TURNS[0]))
    system = raw(tiny, "<system>Be brief.\n<user>one\nthink:answer:")
    assert text(tiny, *options, file, "--system", "Be brief.") == system
    file.write_text(json.dumps([*TURNS[:1], {"role": "assistant", "content": "two and"}]))
    assert text(tiny, *options, file) == raw(tiny, "<user>one\n<assistant>two and")


def test_a_template_is_a_file_a_name_or_itself(tiny: Path, tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.write_text(JINJA)
    expected = raw(tiny, "<user>one\nthink:answer:")
    assert text(tiny, "-p", "one", "--chat-template", template) == expected
    assert text(tiny, "-p", "one", "--chat-template", JINJA) == expected
    chatml = raw(tiny, "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n")
    assert text(tiny, "-p", "one", "--chat-template", "chatml") == chatml
    for name in ("chatlm", tmp_path / "none", "none.jinja"):
        refused(command(tiny, "-p", "one", "--chat-template", name), "chat template")
    refused(command(tiny, "-p", "one", "--chat-template", "{% if %}"), "--chat-template fails")
    refused(command(tiny, "-p", "one", "--chat-template", "llama3", "--raw"), "leave one out")


def test_variables_reach_the_template(tiny: Path) -> None:
    options = ("-p", "one", "--chat-template", JINJA, "--template-kwargs")
    for value, prompt in (("false", "<user>one\nanswer:"), ("true", "<user>one\nthink:answer:")):
        assert text(tiny, *options, f'{{"thinking": {value}}}') == raw(tiny, prompt)
    refused(command(tiny, *options, "{thinking}"), "template-kwargs is not JSON")
    refused(command(tiny, *options, "[1]"), "template-kwargs is no JSON object")
    refused(command(tiny, *options, '{"messages": []}'), "cannot be set by template-kwargs")
    named = ("-p", "one", "--chat-template", "chatml", "--template-kwargs", '{"a": 1}')
    refused(command(tiny, *named), "takes no template-kwargs")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "standard input"),
        ("[]", "holds no message"),
        ("7", "holds no messages"),
        ('{"prompt": "a"}', "holds no messages"),
        ('{"role": "user", "content": "a"}\n{"role": "user"', "line 2"),
        ('[{"content": "a"}]', "message 1 of standard input has no role"),
        ('[{"role": "user"}]', "message 1 of standard input has no text"),
        ('[{"role": "user", "content": [{"type": "image_url"}]}]', "not text (image_url)"),
        ('[{"role": "king", "content": "a"}]', "there is no role 'king'"),
    ],
)
def test_messages_that_cannot_be_used(tiny: Path, given: str, why: str) -> None:
    refused(command(tiny, "--messages", "-", stdin=given), why if given else "there is no prompt")


def test_what_does_not_go_together(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "turns"
    file.write_text(json.dumps([{"role": "system", "content": "a"}, *TURNS]))
    refused(command(tiny, "--messages", file, "--raw"), "leave one out")
    refused(command(tiny, "--messages", file, "--system", "b"), "leave out --system")
    refused(command(tiny, "--messages", file, "--special"), "add --raw")
    refused(command(tiny, "--messages", "-", "-f", "-", stdin="a"), "both -f and --messages")
    refused(command(tiny, "--messages", tmp_path / "none"), "cannot be read")
    refused(command(tiny, "--messages", file, "--stats-json", file), "it is what is read from")
