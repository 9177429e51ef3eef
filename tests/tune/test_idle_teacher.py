"""A process that teaches in idle time: started, stopped, continued, ended; and what it finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed import PACKAGE
from served import environment
from steps import RealModel, TinyPath, random_tokens
from waiting import wait_for

from edge_conflayers.chat import chat_tokens
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.learned import Learned
from edge_conflayers.next_state.head import NextStateHead
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.text_generator import TextGenerator
from edge_conflayers.tune.idle import teacher as idle
from edge_conflayers.tune.idle.messages import Sizes
from edge_conflayers.tune.idle.teacher import IdleProgress, IdleTeacher

SMALL = Sizes(parallel=4, new=1200, held_out=64)
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="nothing can be stopped")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")


@pytest.fixture(autouse=True)
def steps_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for a next-state head, whatever they take."""
    monkeypatch.setattr("edge_conflayers.drafters.next_state.PAYS_FROM", 0.0)


@pytest.fixture(scope="module")
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", n_layer=4, layer_gain=0.1)


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(tmp_path / "profiles")


@pytest.fixture
def writer(path: Path, store: ProfileStore) -> Iterator[TextGenerator]:
    with TextGenerator(path, n_ctx=512, threads=1, profiles=store) as found:
        yield found


@pytest.fixture
def teacher(writer: TextGenerator) -> Iterator[IdleTeacher]:
    with taught_by(writer) as found:
        yield found


def taught_by(writer: TextGenerator, **more: Any) -> IdleTeacher:
    return IdleTeacher(writer.model, writer.learned, 1, sizes=SMALL, priority=0, **more)


def write(writer: TextGenerator, seed: int = 0, n: int = 40) -> tuple[list[int], Stats]:
    stats = Stats()
    prompt = random_tokens(writer.model, 12, seed)
    return list(writer.generate(prompt, max_tokens=n, stats=stats)), stats


def begun(teacher: IdleTeacher, writer: TextGenerator) -> int:
    """Has it hear a text and begin; returns the process."""
    _, stats = write(writer)
    teacher.hear(writer, stats.prompt_tokens)
    wait_for(lambda: teacher._process is not None)
    assert teacher._process is not None
    return teacher._process.pid


def stat(pid: int) -> tuple[str, int]:
    """A process's state, and the CPU time that it has taken, in ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[11]) + int(fields[12])


@needs_proc
def test_no_cpu_time_is_taken_and_nothing_is_taught_while_an_answer_is_written(
    writer: TextGenerator, teacher: IdleTeacher
) -> None:
    pid = begun(teacher, writer)
    wait_for(lambda: stat(pid)[0] == "T")  # it begins with go()
    for moment in (0, 500, 1500):  # while it loads, writes, learns or tests
        teacher.go()
        wait_for(lambda moment=moment: teacher.progress.tokens >= moment)
        teacher.stop()
        wait_for(lambda: stat(pid)[0] == "T")
        before = stat(pid)
        time.sleep(0.05)  # in which what it had said arrives
        progress = teacher.progress
        for seed in range(3):
            write(writer, seed)
        assert stat(pid) == before and teacher.progress == progress
    with teacher.going():
        wait_for(lambda: teacher.head is not None)
    wait_for(lambda: stat(pid)[0] == "T")


def test_a_better_head_is_kept_and_used_and_the_text_stays(
    path: Path, store: ProfileStore, writer: TextGenerator, teacher: IdleTeacher
) -> None:
    with TextGenerator(path, method="plain", n_ctx=512, threads=1, profiles=store) as plain:
        expected = [write(plain, seed)[0] for seed in range(6)]
    assert [write(writer, seed)[0] for seed in range(3)] == expected[:3]
    assert writer.head_pays
    begun(teacher, writer)
    with teacher.going():
        wait_for(lambda: teacher.head is not None)
    kept = writer.learned.load_head()
    assert kept is not None and (kept.weights == teacher.head.weights).all()
    unfinished = writer.generate(random_tokens(writer.model, 12, 5), max_tokens=40)
    text = [next(unfinished) for _ in range(5)]
    writer.use_head(teacher.head)  # from the next text on
    text += unfinished
    assert text == expected[5]
    assert [write(writer, seed)[0] for seed in range(3, 6)] == expected[3:]
    assert writer._method.drafter._next_state.head is teacher.head
    (line, *_) = teacher.news()
    assert "a better next-state head" in line and not teacher.news()
    progress = teacher.progress
    assert progress.better >= 1 and progress.texts == 1 and progress.now is not None
    assert "1 texts" in str(progress) and "foresees" in str(progress)
    with writer.another() as other:
        assert (other._options.next_state.weights == kept.weights).all()


def test_two_that_teach_the_same_model_leave_a_whole_head(
    writer: TextGenerator, path: Path, store: ProfileStore
) -> None:
    with (
        taught_by(writer) as one,
        TextGenerator(path, n_ctx=512, threads=1, profiles=store) as second,
        taught_by(second) as other,
    ):
        begun(one, writer)
        begun(other, second)
        with one.going(), other.going():
            # The second to end a round may find no better one than the first.
            wait_for(lambda: one.progress.rounds and other.progress.rounds)
    kept = writer.learned.load_head()
    assert kept is not None
    found = [each.head for each in (one, other) if each.head is not None]
    assert any((kept.weights == each.weights).all() for each in found)
    assert not list(store.root.glob("*.corrupt")) and not list(store.root.glob("*.tmp"))


def test_only_what_is_new_of_a_conversation_is_learned(
    writer: TextGenerator, teacher: IdleTeacher
) -> None:
    known = [teacher._count_known(each) for each in ([1, 2, 3], [1, 2, 3, 4], [1, 2, 9], [5, 6])]
    assert known == [0, 3, 2, 0]
    for i in range(100):
        teacher._count_known([1000 + i])
    assert teacher._count_known([1, 2, 3]) == 0  # forgotten


@needs_proc
def test_closing_ends_the_process(writer: TextGenerator) -> None:
    for goes_on in (False, True):
        with taught_by(writer) as teacher:
            pid = begun(teacher, writer)
            if goes_on:
                teacher.go()
        assert not Path(f"/proc/{pid}").exists()
        teacher.go()
        teacher.hear(writer, 1)
        teacher.close()
        assert not teacher.news()


ORPHANING = """
import os, signal, sys, time
from pathlib import Path
from edge_conflayers.drafters import next_state
from edge_conflayers.text_generator import TextGenerator
from edge_conflayers.tune.idle.teacher import IdleTeacher

next_state.PAYS_FROM = 0.0
with TextGenerator(sys.argv[1], n_ctx=512, threads=1) as writer:
    list(writer.generate(list(range(3, 12)), max_tokens=20))
    teacher = IdleTeacher(writer.model, writer.learned, 1, priority=0)
    if sys.argv[2] == "going":
        teacher.go()
    teacher.hear(writer, 9)
    while teacher._process is None or (sys.argv[2] == "going" and not teacher.progress.tokens):
        time.sleep(0.02)
    print(teacher._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@needs_proc
@pytest.mark.parametrize("state", ["stopped", "going"])
def test_it_ends_with_a_program_that_is_killed(path: Path, tmp_path: Path, state: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ORPHANING, str(path), state],
        env=environment(tmp_path),
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)

    def is_gone() -> bool:
        try:
            return stat(pid)[0] in "ZX"  # its new parent may not ask for it
        except FileNotFoundError:
            return True

    wait_for(is_gone, 20)


def test_what_keeps_it_from_learning_is_told_once(
    writer: TextGenerator, store: ProfileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(name: str, value: Any) -> list[str]:
        lines: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(name, value)
            with taught_by(writer, tell=lines.append) as teacher:
                for seed in range(3):
                    _, stats = write(writer, seed)
                    teacher.hear(writer, stats.prompt_tokens)
                teacher.go()
                wait_for(lambda: lines)
            assert teacher.head is None
        return lines

    (fast,) = told("edge_conflayers.drafters.next_state.PAYS_FROM", 10.0)
    assert "costs what it gains" in fast
    (small,) = told("edge_conflayers.machine.available_memory", lambda: 100 << 20)
    assert "100 MiB of free memory" in small
    (wrong,) = told("edge_conflayers.tune.idle.teacher._PROCESS", "no.such.module")
    assert "has ended" in wrong
    (broken,) = told("sys.executable", "/no/such/python")
    assert "no process can be started" in broken


def test_a_failure_in_the_process_is_told(
    writer: TextGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = taught_by(writer)
    monkeypatch.setattr(
        teacher, "_setup", idle.replace(teacher._setup, path=tmp_path / "gone.gguf")
    )
    with teacher:
        (tmp_path / "gone.gguf").write_bytes(b"no model")
        begun(teacher, writer)
        teacher.go()
        lines: list[str] = []
        wait_for(lambda: lines.extend(teacher.news()) or lines)
    assert len(lines) == 1 and "gone.gguf" in lines[0] and "\n" not in lines[0]


def test_a_method_that_asks_no_head_has_nothing_to_learn(path: Path, store: ProfileStore) -> None:
    with TextGenerator(path, method="lookup", n_ctx=512, threads=1, profiles=store) as writer:
        assert writer.head_pays is None
        width = writer.model.n_embd
        zeros = np.zeros((2 * width, 3 * width), dtype=np.float32)
        with taught_by(writer) as teacher:
            write(writer)
            teacher.hear(writer, 12)
            assert teacher._said.empty() and not teacher.news()
        writer.use_head(NextStateHead(zeros))  # which is for other methods
        assert write(writer)[0]


def test_what_cannot_be_taught_is_refused(
    writer: TextGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Any = object()
    with pytest.raises(BadInput, match="exported folder"):
        IdleTeacher(folder, writer.learned, 1)
    monkeypatch.delattr(signal, "SIGSTOP")
    with pytest.raises(BadInput, match="leave out --learn"):
        taught_by(writer)


def test_progress_is_told_in_a_line() -> None:
    assert str(IdleProgress()) == "nothing yet"
    first = IdleProgress(1, 900, 20, 1, 1, now=0.5)
    assert str(first).endswith("foresees 50% in four guesses")
    better = IdleProgress(2, 1800, 40, 2, 2, now=0.52, before=0.5)
    assert str(better).endswith(
        "2 better heads in 2 rounds, foresees 52% in four guesses (50% before)"
    )


@pytest.mark.model
def test_a_real_model_drafts_by_what_it_was_taught(
    real_model: RealModel, store: ProfileStore
) -> None:
    """Texts before and after heads are swapped are plain's, and drafts by the new one accepted."""
    model = real_model("smollm2-135m")
    # Others after the swap than before it, which lookups would know.
    subjects = ("sea", "sun", "wind", "moon", "rain", "fire", "snow", "salt")
    prompts = [
        chat_tokens(model, [{"role": "user", "content": f"Tell me about the {each}."}])
        for each in subjects
    ]

    def texts(writer: TextGenerator, which: slice) -> tuple[list[list[int]], list[str]]:
        found, sources = [], []
        for prompt in prompts[which]:
            stats = Stats()
            found.append(list(writer.generate(prompt, max_tokens=96, stats=stats)))
            sources += stats.sources
        return found, sources

    settings: Any = {"n_ctx": 1024, "threads": 2, "profiles": store}
    with TextGenerator(model, method="plain", **settings) as plain:
        expected, _ = texts(plain, slice(None))
    sizes = Sizes(new=2500, held_out=100)
    with (
        TextGenerator(model, **settings) as writer,
        IdleTeacher(model, Learned(model, 2, store), 2, sizes=sizes, priority=0) as teacher,
    ):
        found, sources = texts(writer, slice(2))
        assert found == expected[:2] and "next-state" not in sources
        teacher.hear(writer, len(prompts[1]))
        with teacher.going():
            wait_for(lambda: teacher.head is not None, 500)
        assert teacher.head is not None and teacher.progress.now is not None
        assert teacher.progress.now > 0.2
        writer.use_head(teacher.head)
        found, sources = texts(writer, slice(2, None))
    assert found == expected[2:] and "next-state" in sources


def test_it_is_the_model_with_its_options(path: Path, store: ProfileStore) -> None:
    """Paths hold in whatever folder the process is."""
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with (
            Model(path.name) as model,
            IdleTeacher(model, Learned(model, 1, ProfileStore(Path("here"))), 1) as teacher,
        ):
            assert teacher._setup.path == path.resolve() or teacher._setup.path == path
            assert teacher._setup.profiles == path.parent / "here"
    finally:
        os.chdir(before)
