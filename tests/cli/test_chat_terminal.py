"""``chat`` at a terminal: keys in, by prompt_toolkit's pipe and by a real terminal."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gguf_models import write_tiny_model
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from edge_conflayers.cli import main

loop = importlib.import_module("edge_conflayers.cli.chat.loop")
reading = importlib.import_module("edge_conflayers.cli.chat.reading")

COLOUR = re.compile(rb"\x1b\[[\d;]*[34]8;")
ENTER, ALT_ENTER, CTRL_C, CTRL_D = "\r", "\x1b\r", "\x03", "\x04"

pytestmark = pytest.mark.usefixtures("own_surroundings")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_tiny_model(folder / "tiny.gguf", "llama", n_layer=2, seed=1)


def arguments(model: Path, *options: object) -> list[str]:
    given = ("chat", model, "-t", 1, "-c", 512, "-n", 8, *options)
    return [str(each) for each in given]


def typed(
    model: Path, monkeypatch: pytest.MonkeyPatch, keys: str, *options: object
) -> tuple[Result, list[Any]]:
    """What comes of keys, and the messages that a conversation saved as ``saved.json``."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(reading, "on_terminal", lambda stream: True)
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(keys)
        done = CliRunner().invoke(main, arguments(model, *options))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    saved = Path("saved.json")
    return done, json.loads(saved.read_text())["messages"] if saved.exists() else []


SAVE = "/save saved.json" + ENTER


def test_lines_and_blocks(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = f'one{ENTER}two{ALT_ENTER}more{ENTER}"""three{ENTER}more"""{ENTER}{SAVE}{CTRL_D}'
    done, messages = typed(tiny, monkeypatch, keys)
    assert done.exit_code == 0
    asked = [each["content"] for each in messages if each["role"] == "user"]
    assert asked == ["one", "two\nmore", "three\nmore"]
    answers = [each["content"] for each in messages if each["role"] == "assistant"]
    assert done.stdout == "".join(each + "\n" for each in answers)
    assert "tiny.gguf, 512 tokens of context; /help lists commands" in done.stderr


def test_arrow_keys_bring_earlier_messages_back() -> None:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(f"two{ENTER}")
        terminal = reading.Terminal(["one"])
        assert terminal.read() == "two"
        assert terminal._session.history.get_strings() == ["one", "two"]


def test_what_was_taken_back_is_at_hand(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, messages = typed(
        tiny, monkeypatch, f"one{ENTER}/undo{ENTER} more{ENTER}{SAVE}/exit{ENTER}"
    )
    assert done.exit_code == 0 and messages[0]["content"] == "one more" and len(messages) == 2


def test_ctrl_c_at_the_prompt(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It drops a line that is being typed; twice in a row at an empty one it ends.
    keys = f"dropped{CTRL_C}one{ENTER}{CTRL_C}two{ENTER}{SAVE}{CTRL_C}{CTRL_C}three{ENTER}"
    done, messages = typed(tiny, monkeypatch, keys)
    assert done.exit_code == 0
    assert [each["content"] for each in messages[::2]] == ["one", "two"]
    assert done.stderr.count("Ctrl-C again") == 2


def test_a_wrong_command_is_no_failure_at_a_terminal(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, _ = typed(tiny, monkeypatch, f"/nope{ENTER}/exit{ENTER}")
    assert done.exit_code == 0 and "there is no command /nope" in done.stderr


def test_ctrl_c_stops_the_answer(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    show = loop.Chat._show

    def interrupted(self: Any, text: str) -> None:
        shown.append(text)
        show(self, text)
        if len(shown) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop.Chat, "_show", interrupted)
    keys = f"one{ENTER}two{ENTER}/retry{ENTER}{SAVE}{CTRL_D}"
    done, messages = typed(tiny, monkeypatch, keys)
    assert done.exit_code == 0 and "the answer was stopped" in done.stderr
    assert messages[1]["content"] == "".join(shown[:3])
    monkeypatch.setattr(reading, "on_terminal", lambda stream: False)
    after = CliRunner().invoke(main, [*arguments(tiny), "-q"], input="/load saved.json\n/retry\n")
    assert after.stdout.strip("\n") == messages[3]["content"]  # the cache was left in order


def test_ctrl_c_before_the_answer_takes_the_message_back(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, tries = loop.answer, iter((True, False))

    def slow(*given: Any, **named: Any) -> Iterator[Any]:
        if next(tries):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
        yield from answer(*given, **named)

    monkeypatch.setattr(loop, "answer", slow)
    done, messages = typed(tiny, monkeypatch, f"one{ENTER} more{ENTER}{SAVE}{CTRL_D}")
    assert done.exit_code == 0 and done.stdout.strip()
    assert [each["role"] for each in messages] == ["user", "assistant"]
    assert messages[0]["content"] == "one more"


@pytest.mark.skipif(not hasattr(os, "forkpty"), reason="there are no terminals to open here")
@pytest.mark.parametrize("no_color", [False, True])
def test_a_real_terminal(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_color: bool
) -> None:
    import pty

    given = [
        *arguments(tiny, "-n", "-1", "--stats", "-c", 8192),
        "-l",
        "2-inf",
        "--method",
        "plain",
    ]
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-m", "edge_conflayers", *given])
    seen, found = b"", 0

    def more() -> bool:
        """Reads on. Returns whether there was something before the end."""
        nonlocal seen
        if not select.select([terminal], [], [], 60)[0]:
            return False
        try:
            part = os.read(terminal, 4096)
        except OSError:  # it has ended
            return False
        seen += part
        return bool(part)

    def until(text: bytes) -> None:
        """Reads on to a text that comes after those before."""
        nonlocal found
        while text not in seen[found:]:
            assert more(), (text, seen)
        found = seen.index(text, found) + len(text)

    until(b">>>")
    os.write(terminal, b"hello\r")
    until(b"hello")
    while len(seen) < found + 500:  # some of it is the answer
        assert more()
    os.write(terminal, b"\x03")
    until(b"the answer was stopped")
    until(b"interrupted")
    until(b">>>")
    os.write(terminal, b"/set predict 2\r")
    until(b"note: predict 2")
    os.write(terminal, b"again\r")
    until(b"plain: 2 tokens")
    until(b">>>")  # in which Ctrl-D is a key
    os.write(terminal, b"\x04")
    while more():
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (COLOUR.search(seen) is None) == no_color
    (file,) = (tmp_path / "data" / "chats").rglob("*.jsonl")
    roles = [json.loads(line)["role"] for line in file.read_text().splitlines()]
    assert roles == ["user", "assistant", "user", "assistant"]


def completed(text: str) -> list[str]:
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    from edge_conflayers.cli.chat.completing import CommandCompleter

    found = CommandCompleter().get_completions(Document(text), CompleteEvent())
    return [text[: len(text) + each.start_position] + each.text for each in found]


def test_commands_and_what_they_are_given_are_completed(tmp_path: Path) -> None:
    (tmp_path / "saved.json").touch()
    (tmp_path / "schema.json").touch()
    for text, expected in (
        ("/st", ["/stats"]),
        ("/s", ["/system", "/save", "/stats", "/set"]),
        ("/method look", ["/method lookup"]),
        ("/stats o", ["/stats on", "/stats off"]),
        ("/system n", ["/system none"]),
        ("/set top-", ["/set top-k", "/set top-p", "/set top-n-sigma"]),
        ("/set temp d", ["/set temp default"]),
        ("/set response-format j", ["/set response-format json_object"]),
        ("/load sav", ["/load saved.json"]),
        ("/set json-schema sch", ["/set json-schema schema.json"]),
        ("/set json-schema no", ["/set json-schema none"]),
        ("/nope x", []),
        ("/undo x", []),
        ("hello", []),
        ("/set temp\nmore", []),
    ):
        assert completed(text) == expected, text


def test_a_long_paste_is_one_message(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "\n".join(f"line {number} of what was pasted" for number in range(2000))
    pasted = f"\x1b[200~{lines}\x1b[201~"
    keys = f"{pasted}{ENTER}short{ENTER}{SAVE}{CTRL_D}"
    began = time.monotonic()
    done, messages = typed(tiny, monkeypatch, keys)
    assert done.exit_code == 0 and time.monotonic() - began < 60
    assert "the context holds 512" in done.stderr  # it was taken whole, and did not fit
    assert [each["content"] for each in messages if each["role"] == "user"] == ["short"]


@pytest.mark.skipif(not hasattr(os, "forkpty"), reason="there are no terminals to open here")
@pytest.mark.parametrize("columns", [80, 20])
def test_a_dumb_or_narrow_terminal(tiny: Path, columns: int) -> None:
    import fcntl
    import pty
    import struct
    import termios

    given = [*arguments(tiny, "-n", 4, "--stats", "--no-transcript"), "--method", "plain"]
    child, terminal = pty.fork()
    if child == 0:
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(0, termios.TIOCSWINSZ, size)
        os.environ["TERM"] = "dumb" if columns == 80 else "xterm"
        os.execv(sys.executable, [sys.executable, "-m", "edge_conflayers", *given])
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([terminal], [], [], 60)[0], seen
            seen += os.read(terminal, 4096)

    until(b">>>")
    os.write(terminal, b"hello\r")
    until(b"plain: 4 tokens")
    if columns == 20:
        os.write(terminal, b"/hel\t")
        time.sleep(1)  # in which it is completed
        os.write(terminal, b"\r")
        until(b"take back the last message")
    os.write(terminal, b"/exit\r")
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 4096):
            seen += part
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    if columns == 80:
        assert b"\x1b" not in seen
