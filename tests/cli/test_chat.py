"""``chat`` without a terminal: lines in, answers out."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from doc_pages import DOCS, blocks
from gguf_models import write_tiny_model

from edge_conflayers.cli import main
from edge_conflayers.cli.chat.commands import COMMANDS
from edge_conflayers.cli.chat.typed import is_open, unquoted
from edge_conflayers.conversation.transcript import read_transcript
from edge_conflayers.hub import models

loop = importlib.import_module("edge_conflayers.cli.chat.loop")

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}answer:{% endif %}"
)
GIVEN = ("--chat-template", TEMPLATE)
SAMPLED = ("--temp", 1.5, "-s", 7)

pytestmark = pytest.mark.usefixtures("own_surroundings")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_tiny_model(folder / "tiny.gguf", "llama", n_layer=4, seed=1)


def arguments(name: str, model: Any, *options: object) -> list[str]:
    given = (name, model, "-t", 1, "-c", 512, "-n", 12, *options)
    return [str(each) for each in given]


def chat(model: Any, *lines: str, options: tuple[object, ...] = GIVEN) -> Result:
    text = "".join(line + "\n" for line in lines)
    return CliRunner().invoke(main, arguments("chat", model, *options), input=text)


def said(result: Result) -> list[Any]:
    """The messages that a conversation saved as ``saved.json``."""
    assert Path("saved.json").exists(), result.output
    return list(json.loads(Path("saved.json").read_text())["messages"])


def transcripts(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "data" / "chats").rglob("*.jsonl"))


def run(model: Any, messages: list[Any], *options: object) -> str:
    """The text that ``run`` writes after messages."""
    Path("messages.json").write_text(json.dumps(messages))
    given = arguments("run", model, *options, "--messages", "messages.json")
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    return done.stdout.removesuffix("\n")


def test_turns_are_those_of_run(tiny: Path) -> None:
    turns = ("first message", '"""second', 'message"""', "third message", "/save saved.json")
    for method in ("plain", "auto"):
        Path("saved.json").unlink(missing_ok=True)
        options = (*GIVEN, *SAMPLED, "--method", method, "--system", "Be brief.")
        done = chat(tiny, *turns, options=(*options, "--exact-reuse"))
        assert done.exit_code == 0, done.output
        messages = said(done)
        roles = [each["role"] for each in messages]
        assert roles == ["system", *("user", "assistant") * 3]
        assert messages[3]["content"] == "second\nmessage"
        answers = [each["content"] for each in messages if each["role"] == "assistant"]
        assert len(set(answers)) == 3 and done.stdout == "".join(each + "\n" for each in answers)
        for at in (2, 4, 6):
            assert messages[at]["content"] == run(tiny, messages[:at], *options[:-2])


@pytest.mark.model
def test_turns_of_a_real_model_are_those_of_run(tmp_path: Path) -> None:
    model = models.resolve("smollm2-135m")
    options = ("-c", 2048, "--temp", 0.7, "-s", 3, "--stop", "\n")
    long = "Here are some words: " + "one two three four five six seven " * 80
    turns = (long, "Name a colour.", "And another one?", "/stats", "/save saved.json")
    done = chat(model, *turns, options=(*options, "--exact-reuse"))
    messages = said(done)
    for at in (1, 3, 5):
        assert messages[at]["content"] == run(model, messages[:at], *options)
    assert "512 cached" in done.stderr  # the whole batch that all turns share


def test_a_conversation_goes_on_from_all_that_was_said_whoever_drafts(tiny: Path) -> None:
    turns = ("one", "two", "three", "/save saved.json")
    texts = []
    for method in ("plain", "lookup"):
        Path("saved.json").unlink(missing_ok=True)
        done = chat(tiny, *turns, options=(*GIVEN, *SAMPLED, "--stats", "--method", method))
        texts.append(said(done))
        assert done.stderr.count(" cached)") == 2  # but for the first turn
    assert texts[0] == texts[1]


def test_taking_back_and_asking_again(tiny: Path) -> None:
    stop = (*GIVEN, "--stop", r"\n")  # an answer a line
    options = (*stop, *SAMPLED)
    turns = ("one", "two", "/retry", "/retry", "/undo", "three", "/save saved.json")
    done = chat(tiny, *turns, options=options)
    messages = said(done)
    assert [each["content"] for each in messages if each["role"] == "user"] == ["one", "three"]
    answers = done.stdout.split("\n")[:-1]
    assert len(answers) == 5 and len(set(answers[1:4])) == 3
    asked = [*messages[:2], {"role": "user", "content": "two"}]
    for answer, seed in zip(answers[1:4], (7, 8, 9), strict=True):
        assert answer == run(tiny, asked, *stop, "--temp", 1.5, "-s", seed)
    assert messages[-1]["content"] == run(tiny, messages[:-1], *options)


def test_a_greedy_answer_is_the_same_again(tiny: Path) -> None:
    done = chat(tiny, "one", "/retry")
    first, second = done.stdout.splitlines()
    assert first == second and "at temperature 0 the answer is the same" in done.stderr


def test_save_and_load(tiny: Path, tmp_path: Path) -> None:
    done = chat(tiny, "one", "/save saved.json", "two", "/save saved.json")
    assert done.exit_code == 0 and len(said(done)) == 4
    again = chat(tiny, "/load saved.json", "three", "/save again.json")
    assert json.loads(Path("again.json").read_text())["messages"][:4] == said(done)
    refused = chat(tiny, "one", "/save saved.json", "/load none", "/load", "/save")
    assert refused.exit_code == 2 and len(refused.stdout.splitlines()) == 1
    for what in ("is there already", "none cannot be read", "/load needs", "/save needs"):
        assert what in refused.stderr
    assert again.exit_code == 0 and len(said(done)) == 4
    assert len(transcripts(tmp_path)) == 3


def test_settings_change_answers(tiny: Path) -> None:
    turns = ("one", "/set temp 1.5", "/set seed 7", "/retry", "/set predict 3", "/retry")
    done = chat(tiny, *turns, "/set stop x", "/set", "/set temp default", "/set temp")
    assert done.exit_code == 0, done.output
    asked = [{"role": "user", "content": "one"}]
    sampled = run(tiny, asked, *GIVEN, "--temp", 1.5, "-s", 8)
    answers = done.stdout.splitlines()
    assert answers[0] == run(tiny, asked, *GIVEN) and answers[1] == sampled
    short = run(tiny, asked, *GIVEN, "--temp", 1.5, "-s", 9, "-n", 3)
    assert answers[2] == short
    for shown in ("\npredict 3\n", "\nstop 'x'\n", "\nseed 7\n", "\ntemp 1.5\n", "\ntemp 0.0\n"):
        assert shown in done.stderr
    assert "cut off at -n" in done.stderr


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/nope", "there is no command /nope"),
        ("/", "there is no command /;"),
        ("/undo", "there is no message to take back"),
        ("/undo twice", "/undo is given nothing"),
        ("/retry", "there is no message to answer again"),
        ("/stats", "there is no answer yet"),
        ("/stats maybe", "on, off or nothing"),
        ("/method nope", "there is no method 'nope'"),
        ("/method draft-model", "draft"),
        ("/set nope 1", "there is no setting 'nope'"),
        ("/set temp hot", "'hot' is not a valid float"),
        ("/set temp -1", "temperature"),
        ("/set predict -2", "-2"),
        ("/load .", "cannot be read"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tiny: Path, line: str, why: str) -> None:
    done = chat(tiny, line, "one")
    assert done.exit_code == 2 and len(done.stdout.splitlines()) == 1
    told = [each for each in done.stderr.splitlines() if not each.startswith("note:")]
    assert len(told) == 1 and why in told[0], done.stderr


def test_methods_give_the_same_answers(tiny: Path) -> None:
    turns = ("one", "/method", "/method plain", "two", "/method lookup", "three", "/stats")
    done = chat(tiny, *turns, "/save saved.json")
    assert done.exit_code == 0, done.output
    messages = said(done)
    for at in (1, 3, 5):
        assert messages[at]["content"] == run(tiny, messages[:at], *GIVEN)
    assert "auto\n" in done.stderr and "lookup: 12 tokens" in done.stderr


def test_system_and_clear(tiny: Path) -> None:
    turns = ("/system", '/system """Be', 'brief."""', "one", "/clear", "two", "/save saved.json")
    done = chat(tiny, *turns, "/system", "/system none", "/system")
    system, user, answer = said(done)
    assert system == {"role": "system", "content": "Be\nbrief."} and user["content"] == "two"
    assert answer["content"] == run(tiny, [system, user], *GIVEN)
    assert done.stderr.count("there is no system message\n") == 2
    assert done.stderr.count("Be\nbrief.\n") == 1


def test_a_full_context_is_told(tiny: Path) -> None:
    done = chat(tiny, "word " * 600, "one", "/save saved.json")
    assert "the context holds 512; /undo takes back turns" in done.stderr, done.stderr
    assert done.exit_code == 2 and len(done.stdout.splitlines()) == 1
    assert said(done)[0]["content"] == "one"
    done = chat(tiny, "one", "two", options=(*GIVEN, "-n", "-1", "-l", "2-inf"))
    assert "note: the context of 512 tokens is full; /undo takes back turns" in done.stderr
    assert "edge-conflayers: the conversation has" in done.stderr and done.exit_code == 2


def test_nothing_but_answers_and_nothing_but_errors(tiny: Path) -> None:
    done = chat(tiny, "", "one", "/stats on", "  ", "/exit", "two", options=(*GIVEN, "--quiet"))
    assert (done.exit_code, done.stderr) == (0, "") and len(done.stdout.splitlines()) == 1
    done = chat(tiny, "one", options=(*GIVEN, "--stats", "--no-transcript"))
    assert "auto: 12 tokens, " in done.stderr


def test_a_model_without_a_template_is_refused(tiny: Path, tmp_path: Path) -> None:
    without = tmp_path / "without.gguf"
    without.write_bytes(tiny.read_bytes().replace(b"chat_template", b"chat_tomplate"))
    done = chat(without, "one", options=())
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert "--chat-template chatml" in done.stderr
    assert chat(without, "one").exit_code == chat(tiny, "one", options=()).exit_code == 0


def test_nothing_is_kept_where_the_user_wants_it_so(tiny: Path, tmp_path: Path) -> None:
    assert chat(tiny, "one", options=(*GIVEN, "--no-transcript")).exit_code == 0
    assert chat(tiny, "/help", "/undo").exit_code == 2
    assert transcripts(tmp_path) == []
    done = chat(tiny, options=(*GIVEN, "--resume"))
    assert done.exit_code == 2 and "leave out --resume" in done.stderr


def test_a_stopped_answer_ends_a_pipe(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    def show(self: Any, text: str) -> None:
        shown.append(text)
        if len(shown) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop.Chat, "_show", show)
    assert chat(tiny, "one", "two").exit_code == 130
    (file,) = transcripts(tmp_path)
    messages = read_transcript(file)
    assert [each["role"] for each in messages] == ["user", "assistant"]
    assert messages[1]["content"] == "".join(shown[:-1]) and shown[-1] == "\n"


def process(model: Path, *options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edge_conflayers", *arguments("chat", model, *options)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_killed_process_leaves_its_transcript(tiny: Path, tmp_path: Path) -> None:
    talk = process(tiny, *GIVEN, "-n", 3)
    assert talk.stdin is not None and talk.stdout is not None
    talk.stdin.write(b"one\n/set predict -1\n/set logit-bias 2-inf\n")
    talk.stdin.flush()
    first = talk.stdout.readline()
    talk.stdin.write(b"two\n")
    talk.stdin.flush()
    assert talk.stdout.read(1)
    talk.kill()
    talk.wait()
    (file,) = transcripts(tmp_path)
    messages = read_transcript(file)
    assert [each["content"] for each in messages[:3]] == ["one", first.decode()[:-1], "two"]
    if len(messages) == 3:
        done = chat(tiny, "/retry", "/save saved.json", options=(*GIVEN, "--resume"))
        assert "no answer: /retry" in done.stderr
        found = said(done)
        assert found[:3] == messages and found[3]["content"] == run(tiny, messages, *GIVEN)
    assert len(transcripts(tmp_path)) == 2 and read_transcript(file) == messages


def test_answers_come_before_the_next_line(tiny: Path) -> None:
    talk = process(tiny, *GIVEN)
    assert talk.stdin is not None and talk.stdout is not None
    for _ in range(2):
        talk.stdin.write(b"one\n")
        talk.stdin.flush()
        assert talk.stdout.readline()
    talk.stdin.close()
    began = time.monotonic()
    assert talk.wait(60) == 0 and time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("text", "still_open", "inner"),
    [
        ("hello", False, "hello"),
        ('"""hello', True, "hello"),
        ('"""', True, ""),
        ('""""""', False, ""),
        ('"""\none\n\n two\n"""\n', False, "one\n\n two"),
        ('"""one"""', False, "one"),
        ('/set grammar """root', True, '/set grammar """root'),
        ('say """ twice', False, 'say """ twice'),
        ('/system """one', True, '/system """one'),
    ],
)
def test_blocks(text: str, still_open: bool, inner: str) -> None:
    assert is_open(text) == still_open
    assert unquoted(text) == inner


def test_the_example_of_the_docs(tiny: Path) -> None:
    settings, lines = [each.text for each in blocks(DOCS / "chat.md") if each.language == "text"]
    done = chat(tiny, *settings.splitlines())
    assert (done.exit_code, done.stderr.count("note: ")) == (0, 3), done.stderr
    done = chat(tiny, *lines.splitlines(), "/save saved.json")
    assert done.exit_code == 0, done.output
    messages = said(done)
    assert [each["role"] for each in messages] == ["system", "user", "assistant"]
    assert messages[1]["content"] == "My name is Ada." and "tokens/s" in done.stderr


def test_the_docs_name_all_commands() -> None:
    text = (DOCS / "chat.md").read_text()
    assert [name for name in COMMANDS if f"/{name}" not in text] == []


def test_a_line_that_is_not_text_is_left_out(tiny: Path) -> None:
    given = arguments("chat", tiny, *GIVEN)
    done = CliRunner().invoke(main, given, input=b"\xff\none\n")
    assert done.exit_code == 2 and len(done.stdout.splitlines()) == 1
    assert "a line of standard input is not UTF-8 text" in done.stderr


SCHEMA = '{"enum": ["red", "green"]}'


def colours(done: Result) -> list[bool]:
    return [line in ('"red"', '"green"') for line in done.stdout.splitlines()]


def test_answers_follow_a_schema_from_the_start_or_from_then_on(tiny: Path) -> None:
    from_start = chat(tiny, "one", "/set json-schema none", "two", options=(*GIVEN, "-j", SCHEMA))
    assert from_start.exit_code == 0 and colours(from_start)[0] and not all(colours(from_start))
    asked = run(tiny, [{"role": "user", "content": "one"}], *GIVEN, "-j", SCHEMA)
    assert from_start.stdout.splitlines()[0] == asked
    later = chat(tiny, "one", f"/set json-schema {SCHEMA}", "two", "/set json-schema")
    assert later.exit_code == 0 and colours(later)[-1] and not colours(later)[0]
    assert later.stderr.count(f"json-schema {SCHEMA}\n") == 2


def test_what_an_answer_follows_is_one_thing(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "g.gbnf").write_text('root ::= "yes"')
    turns = (
        *(f"/set json-schema {SCHEMA}", "one", "/set grammar-file g.gbnf", "two"),
        *('/set grammar """root ::= a', 'a ::= "no!"', '"""', "three", "/set json-schema"),
        "/set grammar",
        *("/set response-format json_object", "/set grammar", "/set response-format text"),
    )
    done = chat(tiny, *turns)
    assert done.exit_code == 0, done.stderr
    assert colours(done)[0] and done.stdout.splitlines()[1:3] == ["yes", "no!"]
    for line in ("json-schema none", 'grammar root ::= a a ::= "no!"', "grammar none"):
        assert f"\n{line}\n" in done.stderr


def test_a_grammar_file_is_read_when_it_is_set(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "g.gbnf").write_text('root ::= "yes"')
    talk = process(tiny, *GIVEN, "--grammar-file", tmp_path / "g.gbnf")
    assert talk.stdin is not None and talk.stdout is not None
    for _ in range(2):
        talk.stdin.write(b"one\n")
        talk.stdin.flush()
        assert talk.stdout.readline() == b"yes\n"
        (tmp_path / "g.gbnf").unlink(missing_ok=True)
    talk.stdin.close()
    assert talk.wait(60) == 0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/rety", "did you mean /retry?"),
        ("/set tmp 1", "did you mean temp?"),
        ("/set json-schema {", "JSON"),
        ("/set json-schema nowhere.json", "cannot be read"),
        ("/set grammar-file nowhere", "cannot be read"),
        ("/set response-format xml", "cannot be read"),
        ('/set response-format {"type": "xml"}', "choose from 'text'"),
        ('/set response-format {"type": "json_schema"}', "needs"),
    ],
)
def test_a_wrong_setting_leaves_all_as_it_was(tiny: Path, line: str, why: str) -> None:
    done = chat(tiny, f"/set json-schema {SCHEMA}", line, "one")
    assert done.exit_code == 2 and all(colours(done)) and done.stdout
    (told,) = [each for each in done.stderr.splitlines() if not each.startswith("note:")]
    assert why in told, told


def test_two_constraints_are_refused_at_the_start(tiny: Path) -> None:
    done = chat(tiny, "one", options=(*GIVEN, "-j", SCHEMA, "--grammar", 'root ::= "a"'))
    assert done.exit_code == 2 and "choose one" in done.stderr and done.stdout == ""
