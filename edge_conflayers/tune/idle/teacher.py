"""Has a process teach while nobody waits for an answer, and keeps what it finds."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe
from typing import Any

from edge_conflayers import machine
from edge_conflayers.drafters.next_state import PAYS_FROM
from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session.read_batches import shared_tokens
from edge_conflayers.errors import BadInput
from edge_conflayers.learned import Learned
from edge_conflayers.next_state.head import NextStateHead
from edge_conflayers.text_generator import TextGenerator
from edge_conflayers.tune.idle.messages import Better, Ended, FromProcess, Progress, Setup, Sizes
from edge_conflayers.tune.lessons import Said

_MOST_WAITING = 64  # texts that the process has not taken yet; what more is said is not learned
_COMPARED = 16  # texts that a new one may go on from; not tuned
# Bytes that training takes for each square of the states' width: weights, moments and sums.
_PER_SQUARE = 350
_LOWEST = 19  # priority, as nice has it
_PROCESS = "edge_conflayers.tune.idle.process"
_SIZES = Sizes()


@dataclass(frozen=True)
class IdleProgress:
    """What a process has learned so far.

    Attributes:
        texts: that were said and are learned from.
        tokens: read and written to learn from.
        steps: of training.
        rounds: of writing, learning and testing.
        better: heads that were taken in the place of the one before.
        now: share of the tokens of held-out texts that are among the first four guesses of the
            last of these; None if there is none.
        before: of the same tokens, among those of the head before it; None if there was none.
    """

    texts: int = 0
    tokens: int = 0
    steps: int = 0
    rounds: int = 0
    better: int = 0
    now: float | None = None
    before: float | None = None

    def __str__(self) -> str:
        if not self.tokens:
            return "nothing yet"
        parts = [f"{self.tokens} tokens of {self.texts} texts and of tasks", f"{self.steps} steps"]
        parts.append(f"{self.better} better heads in {self.rounds} rounds")
        if self.now is not None:
            before = "" if self.before is None else f" ({self.before:.0%} before)"
            parts.append(f"foresees {self.now:.0%} in four guesses{before}")
        return ", ".join(parts)


class IdleTeacher(Closing):
    """Teaches a model's next-state head in a process of its own, which begins with the first text
    and runs only between ``go`` and ``stop``.

    Args:
        model: whose head; stays open as long as this.
        learned: where heads are kept.
        threads: CPU threads of the process.
        tell: is told in one line of each better head, and why nothing is learned any longer, by a
            thread of this object; None to keep these lines for ``news``.
        sizes: of a round.
        priority: of the process, as nice has it; by default all others go first.

    Attributes:
        head: the best one that was found; None before the first.
        progress: what was learned so far.

    Raises:
        BadInput: the model or the system does not allow it.
    """

    def __init__(
        self,
        model: LanguageModel,
        learned: Learned,
        threads: int,
        tell: Callable[[str], None] | None = None,
        *,
        sizes: Sizes = _SIZES,
        priority: int = _LOWEST,
    ) -> None:
        if not isinstance(model, Model):
            raise BadInput("an exported folder shows no states to learn from; give the .gguf file")
        if not hasattr(signal, "SIGSTOP"):
            raise BadInput("this system cannot stop a process and continue it; leave out --learn")
        self.head: NextStateHead | None = None
        self.progress = IdleProgress()
        self._learned = learned
        self._news: deque[str] = deque()
        self._tell = tell or self._news.append
        root = learned.store.root
        self._setup = Setup(
            model.path.absolute(),
            model.kernels,
            replace(
                model.options,
                lora=tuple(replace(each, path=each.path.absolute()) for each in model.options.lora),
            ),
            threads,
            None if root is None else root.absolute(),
            sizes,
            priority,
        )
        self._memory = model.n_embd**2 * _PER_SQUARE + 2 * sizes.most_bytes
        with contextlib.suppress(OSError):  # the file may be gone
            self._memory += model.path.stat().st_size
        self._sizes = (model.n_embd, model.n_vocab)
        self._said: queue.Queue[Said | None] = queue.Queue(_MOST_WAITING)
        self._recent: deque[Sequence[int]] = deque(maxlen=_COMPARED)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # of the process, and of the two that follow
        self._is_going = self._has_ended = False
        self._thread = threading.Thread(target=self._deliver, daemon=True)
        self._thread.start()

    def hear(self, writer: TextGenerator, prompt: int) -> None:
        """Takes in the text that a generator has just written.

        Args:
            prompt: tokens of its prompt.
        """
        if self._has_ended or writer.head_pays is None:
            return
        if not writer.head_pays:
            self._end(
                f"a token takes less than {1000 * PAYS_FROM:.0f} ms here, so that asking a head"
                " costs what it gains"
            )
            return
        with contextlib.suppress(queue.Full):
            self._said.put_nowait(Said(tuple(writer.session().tokens), prompt))

    def news(self) -> list[str]:
        """What there is to tell since it was asked last."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def go(self) -> None:
        """Lets the process go on: nobody waits for an answer."""
        self._signal(True)

    def stop(self) -> None:
        """Stops the process, whatever it is doing: it takes no more CPU time until ``go``."""
        self._signal(False)

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """Lets the process go on as long as this is entered."""
        self.go()
        try:
            yield
        finally:
            self.stop()

    def _signal(self, is_going: bool) -> None:
        with self._lock:
            self._is_going = is_going
            if self._process is not None:
                self._process.send_signal(signal.SIGCONT if is_going else signal.SIGSTOP)

    def _deliver(self) -> None:
        """Hands texts on, in a thread: a process that is stopped takes none."""
        connection: Connection[Any, Any] | None = None
        for said in iter(self._said.get, None):
            known = self._count_known(said.tokens)
            if len(said.tokens) - known < 2:
                continue
            if connection is None and (connection := self._begin()) is None:
                return
            try:
                connection.send(replace(said, known=known))
            except OSError:
                return  # it has ended, which ``_listen`` tells

    def _count_known(self, tokens: Sequence[int]) -> int:
        """Tokens that a text has in common with the beginning of an earlier one."""
        known = max((shared_tokens(each, tokens) for each in self._recent), default=0)
        self._recent.append(tokens)
        return known

    def _begin(self) -> Connection[Any, Any] | None:
        """Starts the process. Returns the pipe to it; None if there can be none."""
        needed, free = self._memory, machine.available_memory()
        if free is not None and free < needed:
            self._end(
                f"there are {free >> 20} MiB of free memory, and teaching takes about"
                f" {needed >> 20} MiB"
            )
            return None
        ours, theirs = Pipe()
        with theirs, self._lock:
            if self._has_ended:
                return None
            try:
                self._process = _start(theirs.fileno())
            except OSError as error:
                why = error.strerror
            else:
                if not self._is_going:
                    self._process.send_signal(signal.SIGSTOP)
                why = None
        if why is not None:
            self._end(f"no process can be started ({why})")
            return None
        threading.Thread(target=self._listen, args=(ours,), daemon=True).start()
        with contextlib.suppress(OSError):  # it has ended, which ``_listen`` tells
            ours.send(self._setup)
        return ours

    def _listen(self, connection: Connection[Any, Any]) -> None:
        """Takes what the process says, in a thread."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._take(connection.recv())
        self._end("the process that teaches has ended; what it had found before is kept")

    def _take(self, message: FromProcess) -> None:
        if isinstance(message, Ended):
            self._end(message.why)
        elif isinstance(message, Progress):
            self.progress = replace(self.progress, **vars(message))
        else:
            self._keep(message)

    def _keep(self, better: Better) -> None:
        """Keeps a head, on disk and for the next texts."""
        head = NextStateHead.from_bytes(better.head, *self._sizes)
        self._learned.save_head(head)
        self.head = head
        self.progress = replace(
            self.progress,
            better=self.progress.better + 1,
            now=better.foreseen,
            before=better.before,
        )
        before = "" if better.before is None else f", the one before {better.before:.0%}"
        self._tell(
            "a better next-state head was learned in idle time: of the tokens after the next one"
            f" it foresees {better.foreseen:.0%} in four guesses{before}"
        )

    def _end(self, why: str) -> None:
        """Learns nothing more; says so once."""
        with self._lock:
            had_ended, self._has_ended = self._has_ended, True
        if not had_ended:
            self._tell(f"nothing more is learned in idle time: {why}")

    def close(self) -> None:
        """Ends the process. The heads that it has found are on disk."""
        with self._lock:
            self._has_ended = True
            process, self._process = self._process, None
        with contextlib.suppress(queue.Full):
            self._said.put_nowait(None)
        if process is not None:
            process.kill()
            process.wait()


def _start(pipe: int) -> subprocess.Popen[bytes]:
    """Starts the process that teaches, with the end of a pipe.

    Raises:
        OSError: there can be none.
    """
    # Its own group from the start: Ctrl-C is not meant for it.
    group: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {}
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    return subprocess.Popen(
        [sys.executable, "-m", _PROCESS, str(pipe)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=os.sep,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(pipe,),
        **group,
    )
