"""Teaches a head in rounds of writing, learning and testing, as long as there is something new."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

from threadpoolctl import threadpool_limits

from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session.next_state_head import token_embedding
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.learned import Learned
from edge_conflayers.tune import teaching
from edge_conflayers.tune.idle.messages import Better, FromProcess, Progress, Sizes
from edge_conflayers.tune.lessons import Lessons, Said
from edge_conflayers.tune.parallel_texts import ParallelTexts
from edge_conflayers.tune.teaching import Teacher

_TELL_EVERY = 0.5  # seconds


class Heard(Iterator[Said]):
    """Texts that are still to be read, oldest first. One thread adds, another takes.

    Args:
        most: texts; of more, the oldest are forgotten.
    """

    def __init__(self, most: int = 64) -> None:
        self._said: deque[Said] = deque(maxlen=most)
        self._is_new = threading.Event()
        self.count = 0  # of all so far

    def add(self, said: Said) -> None:
        """Adds a text."""
        self._said.append(said)
        self.count += 1
        self._is_new.set()

    def wait(self) -> None:
        """Waits until there is a text."""
        self._is_new.wait()

    def __next__(self) -> Said:
        self._is_new.clear()
        try:
            return self._said.popleft()
        except IndexError:
            raise StopIteration from None
        finally:
            if self._said:
                self._is_new.set()


class Rounds(Closing):
    """Teaches a model's head by what was said, by other answers to its prompts and by everyday
    tasks. What is better than the head on disk is told, and saved by whoever hears that.

    Args:
        model: stays open as long as this.
        learned: has the head that is known, whoever taught it.
        heard: what is said meanwhile.
        tell: is told of progress and of better heads.
        threads: CPU threads.
        sizes: of a round.

    Raises:
        BadInput: the model cannot be served by a next-state head, or there is no memory.
    """

    def __init__(
        self,
        model: Model,
        learned: Learned,
        heard: Heard,
        tell: Callable[[FromProcess], None],
        *,
        threads: int,
        sizes: Sizes,
    ) -> None:
        self._learned = learned
        self._heard = heard
        self._tell = tell
        self._threads = threads
        self._sizes = sizes
        known = learned.load_head()
        seed = 0 if known is None else known.written.total()  # not the same texts again
        self._texts = ParallelTexts(model, n_parallel=sizes.parallel, threads=threads, seed=seed)
        token_embedding(self._texts.context, 0, model.n_embd)  # refused here if it cannot be read
        self._lessons = Lessons(self._texts, said=heard, seed=seed, most_bytes=sizes.most_bytes)
        self._teacher = Teacher(self._texts, self._lessons, None, known, self._progress)
        self._rounds = self._steps = 0
        self._told = -math.inf

    def run(self) -> None:
        """Teaches on and on.

        Raises:
            EdgeConflayersError: there is nothing to teach with, or a step failed.
        """
        fruitless = 0
        while True:
            if fruitless >= self._sizes.fruitless:
                self._heard.wait()
            before = self._heard.count
            is_better = self.round()
            is_new = self._heard.count > before
            fruitless = 0 if is_better or is_new else fruitless + 1

    def round(self) -> bool:
        """Writes, learns and tests once. Returns whether there is a better head.

        Raises:
            as ``run`` does.
        """
        lessons, teacher, sizes = self._lessons, self._teacher, self._sizes
        began = lessons.tokens
        new = max(sizes.new, int(sizes.new_share * len(lessons.learned)))
        teacher.write(
            lambda: lessons.tokens - began >= new and len(lessons.held_out) >= sizes.held_out
        )
        if lessons.tokens == began:
            raise EdgeConflayersError("there is nothing to write: everyday tasks do not fit")
        lessons.texts.clear()
        teacher.known = self._learned.load_head()
        with threadpool_limits(self._threads, user_api="blas"):
            teacher.learn(math.inf)
        self._rounds += 1
        results = teacher.tested()
        before = results[1].foreseen[-1] if len(results) > 1 else None
        is_better = bool(results) and (before is None or results[0].foreseen[-1] > before)
        if is_better:
            found = results[0]
            self._tell(Better(found.head.to_bytes(), found.foreseen[-1], before))
            lessons.learned.written = Counter()  # the new head counts them
        self._tell_progress()
        return is_better

    def _progress(self, progress: teaching.Progress) -> None:
        self._steps += progress.doing == "learning"
        if time.monotonic() - self._told >= _TELL_EVERY:
            self._tell_progress()

    def _tell_progress(self) -> None:
        self._told = time.monotonic()
        self._tell(Progress(self._heard.count, self._lessons.tokens, self._steps, self._rounds))

    def close(self) -> None:
        """Frees the cache."""
        self._texts.close()
