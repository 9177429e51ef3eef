"""Standard input, output and error in every state and locale: whole processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from gguf_models import write_tiny_model
from installed import PACKAGE

from edge_conflayers.cli.streams import MOST_BYTES, decode, read_text
from edge_conflayers.errors import BadInput

FULL = Path("/dev/full")
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
ECHO = "{{ messages[0].content }}"

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_tiny_model(folder / "tiny.gguf", "llama", n_layer=2, seed=1)


def shell(
    line: str, tmp_path: Path, tiny: Path, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs a line in which ``ecl`` is the command, ``run`` its ``run`` of few tokens."""
    command = f"{sys.executable} -m edge_conflayers"
    run = f"{command} run {tiny} -n 12 -t 1 -c 256 --method plain"
    line = line.replace("ecl", command).replace("run ", f"{run} ", 1)
    environment: Mapping[str, str] = {
        **os.environ,
        "PYTHONPATH": str(PACKAGE),
        "EDGE_CONFLAYERS_DATA": str(tmp_path / "data"),
        **variables,
    }
    done = subprocess.run(
        ["bash", "-c", line], env=environment, cwd=tmp_path, capture_output=True, timeout=300
    )
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr, done.stderr
    return done


def message(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line of what went wrong."""
    line, end = done.stderr[:-1], done.stderr[-1:]
    assert end == b"\n" and b"\n" not in line, done.stderr
    return line.decode()


@posix
def test_text_is_utf_8_in_every_locale(tmp_path: Path, tiny: Path) -> None:
    plain = shell("run -p hi", tmp_path, tiny)
    assert plain.returncode == 0
    assert plain.stdout.decode("utf-8").strip() and not plain.stdout.isascii()
    for variables in ({"PYTHONIOENCODING": "latin-1"}, ASCII):
        done = shell("run -p hi", tmp_path, tiny, **variables)
        assert (done.returncode, done.stdout) == (0, plain.stdout)


@posix
def test_the_same_bytes_are_the_same_prompt(tmp_path: Path, tiny: Path) -> None:
    text = b"\xef\xbb\xbfone\r\n" + "Gr\u00fc\u00dfe, \u4f60\u597d".encode()
    (tmp_path / "prompt").write_bytes(text)
    ways = ("run -f prompt", "run < prompt", "cat prompt | run ", 'run -p "$(cat prompt)"')
    texts = {shell(way, tmp_path, tiny, **ASCII).stdout for way in ways}
    assert len(texts) == 1
    (tmp_path / "prompt").write_bytes(text.replace(b"\r", b""))
    assert shell("run -f prompt", tmp_path, tiny).stdout not in texts


@posix
def test_closed_and_full_streams(tmp_path: Path, tiny: Path) -> None:
    text = shell("run -p hi", tmp_path, tiny).stdout
    for line in ("run -p hi 2>&-", "run -p hi <&-", "run -p hi 2>/dev/full"):
        if "full" in line and not FULL.exists():
            continue
        done = shell(line, tmp_path, tiny)
        assert (done.returncode, done.stdout) == (0, text)
    for line in ("run <&-", "run </dev/null"):
        done = shell(line, tmp_path, tiny)
        assert done.returncode == 2 and "there is no prompt" in message(done)
    for line in ("run -p hi >&-", "ecl --help >&-"):
        done = shell(line, tmp_path, tiny)
        assert done.returncode == 1 and "it is closed" in message(done)
    assert shell("run -p hi >&- 2>&- <&-", tmp_path, tiny).returncode == 1
    if FULL.exists():
        for line in ("run -p hi >/dev/full", "ecl --help >/dev/full"):
            done = shell(line, tmp_path, tiny)
            assert done.returncode == 1 and "No space left on device" in message(done)


@posix
def test_a_reader_that_has_enough(tmp_path: Path, tiny: Path) -> None:
    done = shell("run -p hi -c 4096 -n 2000 | head -c 10; exit ${PIPESTATUS[0]}", tmp_path, tiny)
    assert (done.returncode, len(done.stdout), done.stderr) == (141, 10, b"")


@posix
def test_names_that_are_not_utf_8(tmp_path: Path, tiny: Path) -> None:
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.gguf")
    try:
        os.link(tiny, bad)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for name in (r"$'\xff.gguf'", r"$'\xff.gguf' --stats-json $'\xff.json'"):
        done = shell(f"ecl run {name} -p hi -n 2 -t 1".replace("run ", "run\t"), tmp_path, tiny)
        assert done.returncode == 0, done.stderr
    assert os.path.exists(os.fsencode(tmp_path) + b"/\xff.json")
    for line in (r"run -f $'\xfe'", r"ecl bench x --prompts $'\xfe'", r"ecl cost $'\xfe'"):
        done = shell(line, tmp_path, tiny)
        assert done.returncode == 2 and "\\udcfe" in message(done)


@posix
def test_ctrl_c_ends_a_text_where_it_is(tmp_path: Path, tiny: Path) -> None:
    command = [sys.executable, "-m", "edge_conflayers", "run", str(tiny), "-p", "hi", "-t", "1"]
    command += ["-c", "200000", "-n", "-1", "--temp", "5", "--method", "plain"]
    process = subprocess.Popen(
        command,
        cwd=PACKAGE,
        env={**os.environ, "EDGE_CONFLAYERS_DATA": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    first = process.stdout.read(1)  # it writes
    process.send_signal(signal.SIGINT)
    text, errors = process.communicate(timeout=300)
    assert (process.returncode, (first + text)[-1:]) == (130, b"\n"), errors
    assert b"Traceback" not in errors and b"interrupted" in errors


def test_ctrl_c_while_modules_are_imported() -> None:
    code = (
        "import builtins, edge_conflayers.__main__ as command\n"
        "imported = builtins.__import__\n"
        "def interrupted(name, *rest):\n"
        "    if name == 'click':\n"
        "        raise KeyboardInterrupt\n"
        "    return imported(name, *rest)\n"
        "builtins.__import__ = interrupted\n"
        "command.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_bytes_that_are_no_text() -> None:
    assert decode(b"\xef\xbb\xbfa\r\n\xe2\x82\xac", "it") == "a\r\n\u20ac"
    for data, why in (
        (b"a\n\xff", r"it is not UTF-8 text \(line 2\)"),
        ("a".encode("utf-16"), "it is UTF-16 text"),
        ("\ufeffa".encode("utf-16-be"), "it is UTF-16 text"),
        ("a".encode("utf-32"), "it is UTF-32 text"),
        (b"a\0b", "it holds NUL bytes"),
        (b"\xed\xa0\x80", "it is not UTF-8 text"),
        (b"a" * (MOST_BYTES + 1), "it holds more than 16 MiB"),
    ):
        with pytest.raises(BadInput, match=why):
            decode(data, "it")


@posix
def test_files_that_are_no_files(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
        (Path("a\0b"), "null byte"),
        (Path("/dev/zero"), "more than 16 MiB"),
    ):
        with pytest.raises(BadInput, match=why):
            read_text(path, "prompt file")


@posix
@pytest.mark.parametrize("name", ["/dev/stdout", "out"])
def test_statistics_do_not_replace_the_text(tmp_path: Path, tiny: Path, name: str) -> None:
    assert shell("run -p hi >text", tmp_path, tiny).returncode == 0
    assert shell(f"run -p hi --stats-json {name} >out", tmp_path, tiny).returncode == 0
    text = (tmp_path / "text").read_bytes()
    written = (tmp_path / "out").read_bytes()
    assert len(text) > 1 and written.startswith(text)
    assert json.loads(written[len(text) :])["tokens"] == 12


@posix
@pytest.mark.parametrize("command", ["bench {} --prompts p", "cost {}", "tune {}", "models list"])
def test_a_closed_output_is_found_before_any_work(tmp_path: Path, tiny: Path, command: str) -> None:
    (tmp_path / "p").write_text("a prompt\n")
    done = shell(f"ecl {command.format(tiny)} >&-", tmp_path, tiny)
    assert done.returncode == 1
    assert message(done).endswith("standard output cannot be written: it is closed")


@posix
def test_streams_that_do_not_block(tmp_path: Path, tiny: Path) -> None:
    prompt = b"word " * 400
    (tmp_path / "p").write_bytes(prompt)
    command = [sys.executable, "-m", "edge_conflayers", "run", str(tiny), "--method", "plain"]
    command += ["-t", "1", "-n", "2", "--raw", "--stats-json", "/dev/stdout"]
    (from_us, to_it), (from_it, to_us) = os.pipe(), os.pipe()
    os.set_blocking(from_us, False)
    os.set_blocking(to_us, False)
    os.write(to_us, b"x" * 65536)  # a pipe holds no more
    process = subprocess.Popen(
        command, stdin=from_us, stdout=to_us, stderr=subprocess.PIPE, cwd=PACKAGE
    )
    os.close(from_us)
    os.close(to_us)
    os.write(to_it, prompt[:1000])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)
    os.write(to_it, prompt[1000:])
    os.close(to_it)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    with open(from_it, "rb") as file:
        written = file.read()[65536:]
    assert process.wait(60) == 0
    assert process.stderr is not None and process.stderr.read().count(b"\n") == 1
    expected = shell("run -f p --raw -c 0 -n 2 --stats-json s", tmp_path, tiny)
    assert expected.returncode == 0 and written.startswith(expected.stdout)
    statistics = json.loads(written[len(expected.stdout) :])
    same = json.loads((tmp_path / "s").read_bytes())
    assert statistics["prompt_tokens"] == same["prompt_tokens"] > 400
