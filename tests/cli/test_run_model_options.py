"""``run``'s options of the model, the text's end and the output, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from gguf_models import write_tiny_model
from lora import write_lora

from edge_conflayers.cli import main

PROMPT = ("-p", "the the the", "--raw")
BASE = (*PROMPT, "-l", "2-inf")  # the text does not end by itself


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_tiny_model(folder / "tiny.gguf", "llama", n_layer=2, n_embd=128, seed=1)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))


def command(model: Path, *arguments: object) -> Result:
    given = ("run", model, "-t", 1, "-c", 512, "-n", 24, *arguments)
    return CliRunner().invoke(main, [str(each) for each in given])


def text(model: Path, *arguments: object) -> str:
    """The text, which is the same with drafts and without."""
    plain, auto = (command(model, *BASE, *arguments, "--method", m) for m in ("plain", "auto"))
    assert plain.exit_code == auto.exit_code == 0, plain.output + auto.output
    assert plain.stdout == auto.stdout
    return plain.stdout


def refused(done: Result, *what: str) -> None:
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert all(each in done.stderr for each in what), done.stderr
    assert done.stderr.count("\n") == 1 or "Usage:" in done.stderr


def test_options_of_the_model_change_the_text(tiny: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.gguf", tmp_path / "other.gguf"
    write_lora(one, tiny)
    write_lora(other, tiny, seed=1)
    texts = {
        given: text(tiny, *given)
        for given in (
            (),
            ("--lora", one),
            ("--lora", one, "--lora", other),
            ("--lora-scaled", one, "-0.5"),
            ("--rope-scale", "8"),
            ("--rope-freq-base", "50"),
            ("--rope-scaling", "yarn", "--rope-scale", "16", "--yarn-orig-ctx", "64"),
        )
    }
    assert len(set(texts.values())) == len(texts)
    assert text(tiny, "--rope-freq-scale", "0.125") == texts["--rope-scale", "8"]
    assert text(tiny, "--lora-scaled", one, 1) == texts["--lora", one]
    assert text(tiny, "-ctk", "q8_0", "-ctv", "f32")
    assert text(tiny, "--cache-type-k", "iq4_nl", "--cache-type-v", "q5_1")


def test_a_kind_of_cache_that_does_not_go(tiny: Path, tmp_path: Path) -> None:
    refused(command(tiny, *BASE, "-ctk", "q3_k"), "cache-type-k is 'q3_k'; choose from f32,")
    refused(command(tiny, *BASE, "--rope-scaling", "ntk"), "choose from none, linear, yarn")
    both = ("--rope-scale", 2, "--rope-freq-scale", 0.5)
    refused(command(tiny, *BASE, *both), "choose one")
    refused(command(tiny, *BASE, "--rope-scale", 0), "rope-scale is 0.0; it must be from")
    refused(command(tiny, *BASE, "--yarn-beta-fast", "nan"), "yarn-beta-fast is nan")
    refused(command(tiny, *BASE, "--lora", tiny), "no LoRA adapter")
    refused(command(tiny, *BASE, "--lora", tmp_path / "none"), "does not exist")
    narrow = write_tiny_model(tmp_path / "narrow.gguf", "llama", n_layer=2)
    refused(command(narrow, *BASE, "-ctk", "q8_0"), "does not divide n_embd_head_k=16")


def test_a_text_ends_before_its_stop_string(tiny: Path, tmp_path: Path) -> None:
    whole = text(tiny).removesuffix("\n")
    stats = tmp_path / "stats.json"
    for begin, length in ((3, 1), (5, 6), (len(whole) // 2, 9), (len(whole) - 2, 2)):
        stop = whole[begin : begin + length]
        expected = whole[: whole.index(stop)] + "\n"
        assert text(tiny, "--stop", "never there", "--stop", stop) == expected
        assert command(tiny, *BASE, "--stop", stop, "--stats-json", stats).stdout == expected
        assert json.loads(stats.read_text())["finish_reason"] == "stop"
        shown = command(tiny, *BASE, "--stop", stop, "--show-draft")
        assert shown.stdout == expected
    assert text(tiny, "--stop", "never there") == whole + "\n"
    refused(command(tiny, *BASE, "--stop", ""), "a stop string is empty")


def test_stop_strings_have_escapes(tiny: Path, tmp_path: Path) -> None:
    grammar = tmp_path / "g.gbnf"
    grammar.write_text(r'root ::= "one\n\ttwo\\n" [a-z]{3}')
    for stop, expected in ((r"\n\t", "one\n"), ("\n", "one\n"), (r"\\n", "one\n\ttwo\n")):
        assert text(tiny, "--grammar-file", grammar, "--stop", stop) == expected


def test_quiet_says_nothing_but_errors(tiny: Path) -> None:
    for more in ((), ("--show-draft",), ("-n", 10_000), ("--json-schema", "{}", "-n", 1)):
        done = command(tiny, *BASE, *more, "-q")
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == command(tiny, *BASE, *more).stdout
    refused(command(tiny, *BASE, "--quiet", "-c", -1), "ctx-size")


def test_a_schema_is_a_file_or_itself(tiny: Path, tmp_path: Path) -> None:
    schema = {"type": "integer", "minimum": 3, "maximum": 7}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema, indent=2))
    found = command(tiny, *PROMPT, "--json-schema", file).stdout
    assert json.loads(found) in range(3, 8)
    itself = command(tiny, *PROMPT, "--json-schema", f"  {json.dumps(schema)}")
    assert itself.stdout == found
    refused(command(tiny, *BASE, "--json-schema", tmp_path / "none"), "cannot be read")
    file.write_text("{")
    refused(command(tiny, *BASE, "--json-schema", file), "JSON")


def test_biases_as_in_llama_cpp_or_as_json(tiny: Path) -> None:
    forced = text(tiny, "-l", "270+1000", "-n", 4)
    assert forced == text(tiny, "--logit-bias", '{"270": 1000}', "-n", 4) != text(tiny, "-n", 4)
    banned = ("-l", "270+1000", "-l", "270-inf")  # of a token, the last one counts
    assert text(tiny, *banned, "-n", 4) == text(tiny, "-l", "270-inf", "-n", 4)
    for wrong in ("270", "a+1", "270+x", "[1]", '{"a": 1}'):
        refused(command(tiny, *BASE, "-l", wrong), "is no bias")
    refused(command(tiny, *BASE, "-l", "99999+1"), "there is no token 99999")


def test_penalties_and_further_samplers(tiny: Path) -> None:
    few = ("-l", '{"270": 100, "271": 100, "272": 100}')  # so that the text repeats itself
    greedy = text(tiny, *few)
    for given in (
        ("--presence-penalty", 2, "--repeat-last-n", -1),
        ("--frequency-penalty", 2),
        ("--dry-multiplier", 4, "--dry-allowed-length", 1, "--dry-sequence-breaker", "none"),
        ("--xtc-probability", 1, "--xtc-threshold", 0.01),
        ("--temp", 2, "--typical", 0.9, "-s", 3),
    ):
        assert text(tiny, *few, *given) != greedy, given
    assert text(tiny, *few, "--presence-penalty", 2, "--repeat-last-n", 0) == greedy
    assert text(tiny, *few, "--temp", 1, "--top-n-sigma", 0.001) == greedy
