"""Several texts over one model, each with a cache of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from edge_conflayers.engine.closing import Closing
from edge_conflayers.errors import BadInput
from edge_conflayers.text_generator import TextGenerator


class Slots(Closing):
    """Text generators over one model, for callers from several threads.

    A slot keeps its last text in its cache. A text goes to the free slot that holds most of its
    prompt's beginning, and else to the one that was idle longest, so that conversations that take
    turns each find theirs.

    Args:
        first: the generator whose model all use; closed with the slots.
        count: how many texts can be written at a time.

    Raises:
        BadInput: fewer than one.
    """

    def __init__(self, first: TextGenerator, count: int = 1) -> None:
        if count < 1:
            raise BadInput(f"there cannot be {count} slots; give at least one")
        self.model = first.model
        with contextlib.ExitStack() as stack:
            stack.enter_context(first)
            others = [stack.enter_context(first.another()) for _ in range(count - 1)]
            self._open = stack.pop_all()
        self._free = [first, *others]  # the one that was idle longest first
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(
        self, prompt: Sequence[int], timeout: float | None = None
    ) -> Iterator[TextGenerator | None]:
        """A generator that is nobody else's meanwhile.

        Args:
            prompt: of the text that it is to write.
            timeout: seconds to wait for a free one; None for as long as it takes.

        Yields:
            None if none became free in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._free), timeout):
                taken = None
            else:
                taken = max(self._free, key=lambda each: each.held(prompt))
                self._free.remove(taken)
        try:
            yield taken
        finally:
            if taken is not None:
                with self._changed:
                    self._free.append(taken)
                    self._changed.notify()

    @property
    def free(self) -> int:
        """Slots that write nothing now."""
        with self._changed:
            return len(self._free)

    def close(self) -> None:
        """Keeps what was learned, and frees the model; no text may be in the writing."""
        self._open.close()
