"""``run``'s options, through the command line as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from gguf_models import write_tiny_model

from edge_conflayers.cli import main

COMMON = ("-t", 1, "-c", 512, "-n", 24, "--method", "plain")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_tiny_model(folder / "tiny.gguf", "llama", n_layer=2, seed=1)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))


def command(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], input=stdin)


def run(model: Path, *arguments: object, stdin: bytes | None = None) -> Result:
    done = command("run", model, *COMMON, *arguments, stdin=stdin)
    assert done.exit_code == 0, done.output
    return done


def refused(done: Result, *what: str) -> None:
    """Exit code 2, no text, and a line that says why."""
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert all(each in done.stderr for each in what), done.stderr
    assert "Traceback" not in done.stderr


def prompt_size(done: Result) -> int:
    return int(done.stderr.split("prompt ")[1].split()[0])


def test_the_prompt_comes_by_argument_file_or_input(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    expected = run(tiny, "-p", "one\r\ntwo").stdout
    assert expected != run(tiny, "-p", "one\ntwo").stdout
    assert run(tiny, "-f", file).stdout == expected
    assert run(tiny, stdin=file.read_bytes()).stdout == expected
    refused(command("run", tiny, "-p", "a", "-f", file), "both -p and -f are given")
    refused(command("run", tiny, stdin=b""), "there is no prompt")
    refused(command("run", tiny, stdin=b"\xff"), "standard input is not UTF-8 text")
    refused(command("run", tiny, "-f", tmp_path), "cannot be read: Is a directory")
    refused(command("run", tiny, "-p", "\udcff"), "not UTF-8 text")


def test_a_system_message_is_in_the_prompt_or_refused(tiny: Path) -> None:
    plain, system = run(tiny, "-p", "a"), run(tiny, "-p", "a", "--system", "Be brief.")
    # The template writes "[system] Be brief.\n" before.
    assert prompt_size(system) > prompt_size(plain) + 10
    assert system.stdout != plain.stdout
    refused(command("run", tiny, "-p", "a", "--system", "s", "--raw"), "put it into the prompt")


def test_raw_prompts_and_their_special_tokens(tiny: Path) -> None:
    assert prompt_size(run(tiny, "-p", "ab", "--raw")) < prompt_size(run(tiny, "-p", "ab"))
    named, text = (run(tiny, "-p", "a</s>b", "--raw", *more) for more in (["--special"], []))
    assert prompt_size(named) < prompt_size(text)
    refused(command("run", tiny, "-p", "a", "--special"), "add --raw")


def test_sampling(tiny: Path) -> None:
    def text(*options: object) -> str:
        return run(tiny, "-p", "a", *options).stdout

    greedy = text()
    sampled = text("--temp", 2, "--seed", 1, "--top-p", 1, "--min-p", 0, "--top-k", 0)
    assert sampled == text("--temp", 2, "--seed", 1, "--top-p", 1, "--min-p", 0, "--top-k", 0)
    assert greedy != sampled != text("--temp", 2, "--seed", 2, "--top-p", 1, "--min-p", 0)
    for only_the_likeliest in (("--top-k", 1), ("--top-p", 0), ("--min-p", 1)):
        assert text("--temp", 2, "--seed", 1, *only_the_likeliest) == greedy
    assert text("--repeat-penalty", 5) != greedy


def test_grammars_and_schemas(tiny: Path, tmp_path: Path) -> None:
    grammar = tmp_path / "g.gbnf"
    grammar.write_bytes(b'root ::= "yes" | "no"\r\n')
    assert run(tiny, "-p", "a", "--grammar-file", grammar).stdout.strip() in ("yes", "no")
    schema = {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}
    schema["additionalProperties"] = False
    found = run(tiny, "-p", "a", "--json-schema", json.dumps(schema), "-n", 60)
    assert isinstance(json.loads(found.stdout)["b"], bool)
    both = ("--grammar-file", grammar, "--json-schema", "{}")
    refused(command("run", tiny, "-p", "a", *both), "choose one")
    refused(command("run", tiny, "-p", "a", "--grammar-file", tmp_path / "no"), "cannot be read")
    refused(command("run", tiny, "-p", "a", "--json-schema", "{"), "JSON")
    cut_off = "cut off after 1 tokens, so that it may not be all that the JSON schema asks for"
    assert cut_off in run(tiny, "-p", "a", "--json-schema", '{"type": "object"}', "-n", 1).stderr
    assert "cut off" not in found.stderr


def test_fresh_writes_the_same_text(tiny: Path) -> None:
    texts = {
        run(tiny, "-p", "the the the", "--method", "auto", *fresh).stdout
        for fresh in ((), (), ("--fresh",))
    }
    assert len(texts) == 1


def test_what_n_asks_for(tiny: Path) -> None:
    none = run(tiny, "-p", "a", "-n", 0)
    assert none.stdout == "\n" and "plain: 0 tokens" in none.stderr
    for wanted in (-1, 10_000):
        full = run(tiny, "-p", "a", "-n", wanted, "-c", 64, "--temp", 3, "--seed", 4)
        room = 64 - prompt_size(full) + 1
        assert f"plain: {room} tokens" in full.stderr
        assert "stopped: the context is full (-c)" in full.stderr
        assert (f"has room for {room} tokens" in full.stderr) == (wanted > 0)
    refused(command("run", tiny, "-p", "a" * 99, "-c", 64, "-t", 1), "tokens, but the context")


def test_as_many_as_fit_is_more_than_a_long_prompt(tiny: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "long.gguf", "llama", n_layer=2, context_length=6000)
    prompt = ("-p", "a " * 2240, "--raw", "--temp", 3, "-t", 1, "--method", "plain")
    done = command("run", model, *prompt, "-n", -1)
    assert done.exit_code == 0, done.output
    assert int(done.stderr.split("plain: ")[1].split()[0]) > 10
    assert "the context is full" not in done.stderr


def test_statistics_are_refused_before_any_text(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "stats.json"
    text = run(tiny, "-p", "a", "--stats-json", file).stdout
    assert json.loads(file.read_text())["tokens"] == 24
    assert text.strip()
    for name in (tmp_path, tmp_path / "no" / "stats.json"):
        refused(command("run", tiny, "-p", "a", "--stats-json", name), "cannot be written")
    refused(command("cost", tiny, "--json", tmp_path), "cannot be written")


def test_failures_are_one_line_and_a_traceback_only_with_debug(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("surprise\nin two lines")

    refused(command("run", "nothing", "-p", "a"), "neither a file nor a known model")
    shown = command("--debug", "run", "nothing", "-p", "a")
    assert shown.exit_code == 2 and "Traceback" in shown.stderr
    monkeypatch.setattr("edge_conflayers.chat.prompt_tokens", broken)
    done = command("run", tiny, "-p", "a")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and "--debug" in done.stderr
    assert "ZeroDivisionError: surprise in two lines" in done.stderr
    shown = command("--debug", "run", tiny, "-p", "a")
    assert shown.exit_code == 1 and "Traceback" in shown.stderr


def test_an_interrupt_is_130(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edge_conflayers.chat.prompt_tokens", interrupted)
    done = command("run", tiny, "-p", "a")
    assert done.exit_code == 130 and "interrupted" in done.stderr


@pytest.mark.model
def test_a_real_model_answers_in_its_template(tmp_path: Path) -> None:
    file = tmp_path / "question.txt"
    file.write_text("What is the capital of France? Answer in one word.\n")
    done = command("run", "smollm2-135m", "-f", file, "--system", "Answer briefly.", "-n", 24)
    assert done.exit_code == 0 and "Paris" in done.stdout
