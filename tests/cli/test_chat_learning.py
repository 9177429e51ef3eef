"""``chat --learn``: what was said is learned from while the user is asked for more."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gguf_models import write_tiny_model
from waiting import wait_for

from edge_conflayers.cli import main
from edge_conflayers.tune.idle import teacher as idle
from edge_conflayers.tune.idle.messages import Sizes

reading = importlib.import_module("edge_conflayers.cli.chat.reading")

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}answer:{% endif %}"
)
SMALL = Sizes(parallel=4, new=1200, held_out=64)
TURNS = ("alabaster", "/stats", "bergamot", "/stats")

pytestmark = pytest.mark.usefixtures("own_surroundings")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_tiny_model(folder / "tiny.gguf", "llama", n_layer=4, layer_gain=0.1, seed=1)


def chat(model: Path, *options: object, turns: tuple[str, ...] = TURNS) -> Result:
    given = ("chat", model, "-t", 1, "-c", 512, "-n", 12, "--chat-template", TEMPLATE, *options)
    text = "".join(line + "\n" for line in turns)
    return CliRunner().invoke(main, [str(each) for each in given], input=text)


@pytest.fixture
def teachers(monkeypatch: pytest.MonkeyPatch) -> list[idle.IdleTeacher]:
    """Those that are made. The user takes the time to think until they have found a head."""
    monkeypatch.setattr("edge_conflayers.drafters.next_state.PAYS_FROM", 0.0)
    made: list[idle.IdleTeacher] = []
    kind, read = idle.IdleTeacher, reading.Lines.read

    def make(*given: Any) -> idle.IdleTeacher:
        made.append(kind(*given, sizes=SMALL, priority=0))
        return made[-1]

    def thoughtful(self: Any) -> str | None:
        line: str | None = read(self)
        if line is not None and "bergamot" in line:
            wait_for(lambda: made[0].head is not None)
        return line

    monkeypatch.setattr(idle, "IdleTeacher", make)
    monkeypatch.setattr(reading.Lines, "read", thoughtful)
    return made


def test_it_learns_and_answers_alike(
    tiny: Path, tmp_path: Path, teachers: list[idle.IdleTeacher]
) -> None:
    done = chat(tiny, "--learn", "--no-transcript")
    assert done.exit_code == 0, done.output
    before, after = done.stderr.split("note: a better next-state head was learned in idle time")
    assert "learned in idle time: nothing yet" in before
    assert "1 better heads in 1 rounds" in after or "better heads in" in after
    (teacher,) = teachers
    assert teacher._process is None, "it has ended"
    assert list((tmp_path / "data" / "profiles").glob("*.next-state"))
    for file in (tmp_path / "data").rglob("*"):
        if file.is_file():
            assert b"alabaster" not in file.read_bytes(), "texts are not kept"
    plain = chat(tiny, "--method", "plain", turns=TURNS[::2])
    assert plain.stdout == done.stdout


def test_without_it_nothing_is_learned(
    tiny: Path, tmp_path: Path, teachers: list[idle.IdleTeacher]
) -> None:
    done = chat(tiny, turns=("alabaster", "/stats"))
    assert done.exit_code == 0 and "idle time" not in done.stderr and not teachers
    assert not list((tmp_path / "data" / "profiles").glob("*.next-state"))


def test_where_no_head_pays_it_says_so(tiny: Path) -> None:
    done = chat(tiny, "--learn")
    assert done.exit_code == 0
    assert done.stderr.count("nothing more is learned in idle time: a token takes less") == 1
    assert "note" not in chat(tiny, "--learn", "--quiet").stderr


@pytest.mark.parametrize("command", ["chat", "serve"])
@pytest.mark.parametrize("options", [("--fresh",), ("--method", "plain")])
def test_what_would_not_be_kept_or_used_is_refused(
    tiny: Path, command: str, options: tuple[str, ...]
) -> None:
    done = CliRunner().invoke(main, [command, str(tiny), "--learn", *options])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert "choose" in done.stderr
