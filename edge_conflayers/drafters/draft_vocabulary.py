"""Which tokens drafts choose among: a shortlist makes a draft step cheaper (FR-Spec, arXiv
2502.14856), a token outside it cannot be drafted."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from heapq import nlargest
from typing import Any

from edge_conflayers.costs.model import StepCosts
from edge_conflayers.costs.timer import median_seconds
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.objective import expected_speed

SIZES = (2048, 4096, 8192, 16384, 32768)
"""Sizes worth measuring."""

_REBUILD_AFTER = 32  # tokens of the text that are missing
_MOST_COUNTED = 100_000
_PRIOR_TOKENS = 500
_ASCII = [*map(chr, range(32, 127)), "\t", "\n"]


class DraftVocabulary:
    """Keeps a session's draft vocabulary up to date and remembers what the model writes.

    In it are always the tokens of the prompt and of the text so far, those that end a text, and
    single ASCII characters; then those written most often so far, then the tokenizer's first ones:
    in most tokenizers the order is that of merges, and so roughly of frequency. SentencePiece
    keeps characters at its end, hence the ASCII characters.

    A vocabulary is set anew, which copies its rows, only for a new prompt and when 32 tokens of the
    text are missing.

    Args:
        model: whose tokens.
        size: about how many tokens; a text of more different ones exceeds it. 0 for all.
    """

    def __init__(self, model: Model, *, size: int = 8192) -> None:
        self.size = size
        self.model = model
        self._always = model.end_tokens.union(
            # After a line break, since some tokenizers put a space in front of a text.
            *(model.tokenize("\n" + character, add_special=False) for character in _ASCII)
        )
        self._written: Counter[int] = Counter()
        self._total = 0  # of its counts
        self._new: set[int] = set()  # written tokens that nothing before announced
        self._text: set[int] = set()
        self._current: frozenset[int] = frozenset()  # the session's draft vocabulary
        self._missing: set[int] = set()  # of the text, from that
        self._order: list[int] = []  # the tokenizer's first tokens, as far as they were needed
        self._looked_at = 0

    def expect(self, written: Mapping[int, int]) -> None:
        """Hears how often the model has written tokens elsewhere; of no use once it is known from
        texts of one's own."""
        if self._total == 0:
            self._written = Counter(written)
            self._total = self._written.total()

    def begin(self, session: Session, prompt: Iterable[int]) -> None:
        """Sets the session's draft vocabulary for a text that follows this prompt.

        Raises:
            BadInput: the model's LM head cannot be served by one.
        """
        self._text = set(prompt)
        self._apply(session)

    def observe(self, session: Session, tokens: Iterable[int]) -> None:
        """Hears which tokens the full model has written next; sets the vocabulary anew if too many
        of the text's are missing."""
        for token in tokens:
            if token not in self._text and token not in self._written:
                self._new.add(token)
            self._written[token] += 1
            self._text.add(token)
            self._total += 1
            if token not in self._current:
                self._missing.add(token)
        if self._total > _MOST_COUNTED:
            self._halve()
        if session.draft_vocabulary and len(self._missing) >= _REBUILD_AFTER:
            self._apply(session)

    def tokens(self, size: int) -> list[int]:
        """The best vocabulary of this size now, ascending."""
        chosen = {*self._always, *self._text}
        for source in (self._by_count(size), self._in_order()):
            for token in source:
                if len(chosen) >= size:
                    break
                chosen.add(token)
        return sorted(chosen)

    def coverage(self, size: int) -> float:
        """The chance that a vocabulary of this size holds the token that the model writes next.

        A written token counts as covered if the vocabulary held it before it was written: as one
        of the text, of those written before, or of the tokenizer's first. Few tokens say little,
        so the count begins with 500 imagined ones under Zipf's law, by which the ``s`` most
        frequent of ``n`` tokens are log(s) / log(n) of a text.
        """
        if not 0 < size < self.model.n_vocab:
            return 1.0
        prior = math.log(size) / math.log(self.model.n_vocab)
        in_order = size - len(self._written)
        missed = sum(token >= in_order for token in self._new - self._always)
        known = sum(nlargest(size, self._written.values()))
        return (prior * _PRIOR_TOKENS + max(0, known - missed)) / (_PRIOR_TOKENS + self._total)

    def state(self) -> dict[str, Any]:
        """What was learned, JSON-able; not the text."""
        return {
            "size": self.size,
            "written": {str(token): n for token, n in self._written.items()},
            "new": sorted(self._new),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` gave.

        Raises:
            BadInput: not such a state, or of another vocabulary.
        """
        try:
            size = int(state["size"])
            written = Counter({int(token): int(n) for token, n in state["written"].items()})
            new = {int(token) for token in state["new"]}
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadInput(f"this draft vocabulary cannot be used ({error}); learn anew") from error
        n_vocab = self.model.n_vocab
        if (
            size < 0
            or not all(0 <= token < n_vocab and n > 0 for token, n in written.items())
            or not new.issubset(written)
        ):
            raise BadInput("this draft vocabulary is of another model; learn anew")
        self.size, self._written, self._new = size, written, new
        self._total = written.total()

    def _apply(self, session: Session) -> None:
        tokens = self.tokens(self.size) if 0 < self.size < self.model.n_vocab else []
        self._current, self._missing = frozenset(tokens), set()
        session.set_draft_vocabulary(tokens)

    def _by_count(self, n: int) -> Iterator[int]:
        return (token for token, _ in self._written.most_common(n))

    def _in_order(self) -> Iterator[int]:
        yield from self._order
        while self._looked_at < self.model.n_vocab:
            token = self._looked_at
            self._looked_at += 1
            if self.model.is_text(token):
                self._order.append(token)
                yield token

    def _halve(self) -> None:
        self._written = Counter({token: n // 2 for token, n in self._written.items() if n > 1})
        self._new &= self._written.keys()
        self._total = self._written.total()


def measure_savings(
    session: Session,
    vocabulary: DraftVocabulary,
    sizes: Collection[int] = SIZES,
    *,
    repeat: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, float]:
    """By how many seconds each size makes a draft step shorter; of the session only the draft
    vocabulary changes, to none.

    What is saved is the LM head's and does not depend on the layers, so all but the first and last
    are dropped. Steps with each size alternate with steps over all tokens, so that a slow minute
    hits both, and the result is the difference of the medians.

    Args:
        sizes: those that the model has no more tokens than are left out.
        clock: seconds.

    Returns:
        Empty if the model cannot be served by a draft vocabulary or by a layer mask.
    """
    mask = LayerMask.layers(range(1, session.model.n_layer - 1))
    pending = vocabulary.tokens(1)[:1]

    def seconds(full: bool) -> float:
        started = clock()
        session.draft(mask, pending, limit=1, stop_probability=0.0, full_vocabulary=full)
        return clock() - started

    saved = {}
    try:
        for size in sorted(sizes):
            if size >= session.model.n_vocab:
                continue
            session.set_draft_vocabulary(vocabulary.tokens(size))
            times = median_seconds(
                {"full": lambda: seconds(True), "short": lambda: seconds(False)}, repeats=repeat
            )
            saved[size] = times["full"] - times["short"]
        session.set_draft_vocabulary(())
    except BadInput:
        session.set_draft_vocabulary(())
        return {}
    return saved


def typical_size(
    saved: Mapping[int, float], vocabulary: DraftVocabulary, costs: StepCosts, context: int
) -> int:
    """``best_size`` for drafts with about a third of the layers dropped."""
    inner = range(1, 1 + vocabulary.model.n_layer // 3)
    t1 = costs.t1(context)
    return best_size(
        saved,
        vocabulary.coverage,
        draft_seconds=costs.c(LayerMask.layers(inner), context) * t1,
        t1_seconds=t1,
        v=lambda n: costs.v(n, context),
    )


def best_size(
    saved: Mapping[int, float],
    coverage: Callable[[int], float],
    *,
    draft_seconds: float,
    t1_seconds: float,
    v: Callable[[int], float],
    acceptance: float = 0.8,
    longest: int = 8,
) -> int:
    """The size with the most expected tokens per second of a round, at its best draft length.

    Args:
        saved: ``measure_savings``'s.
        coverage: ``DraftVocabulary.coverage``.
        draft_seconds: a draft step over all tokens, under the mask that is to be used.
        t1_seconds: a one-token step of the full model.
        v: V(n).
        acceptance: the chance of acceptance of a drafted token if nothing is left out.
        longest: most drafted tokens of a round.

    Returns:
        0 where all tokens are best.
    """

    def value(size: int) -> float:
        alpha = acceptance * coverage(size)
        c = max(draft_seconds - saved.get(size, 0.0), 0.0) / t1_seconds
        return max(expected_speed(alpha, n, c, v) for n in range(1, longest + 1))

    return max((0, *saved), key=value)
