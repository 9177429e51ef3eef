"""The draft vocabulary: drafts choose among a shortlist of frequent tokens (FR-Spec, arXiv
2502.14856), which makes a draft step cheaper; a token outside it cannot be drafted."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from heapq import nlargest
from typing import Annotated, Any

import msgspec

from edge_conflayers.costs.model import StepCosts
from edge_conflayers.costs.timer import median_seconds
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session import LayerMask, TextSession
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.objective import expected_speed
from edge_conflayers.profiles.saved_state import Count, SavedState, check_below

SIZES = (2048, 4096, 8192, 16384, 32768)
"""Sizes to choose from; a grid, not tuned."""

_REBUILD_AFTER = 32  # tokens of the text that the vocabulary lacks; not tuned
_MOST_COUNTED = 100_000  # tokens, after which all counts are halved; not tuned
_PRIOR_TOKENS = 500  # weight of Zipf's law, in tokens; not tuned
_ASCII = [*map(chr, range(32, 127)), "\t", "\n"]


class _State(SavedState):
    size: Count
    written: dict[int, Annotated[int, msgspec.Meta(ge=1)]]  # how often, by token
    new: list[Count]  # of those, the ones that nothing before announced

    def __post_init__(self) -> None:
        if not set(self.new) <= self.written.keys():
            raise ValueError("tokens are new that were not written")


class DraftVocabulary:
    """Keeps a session's draft vocabulary up to date, by the frequency of what the model writes.

    It always holds the tokens of the prompt and of the text so far, those that end a text, and
    single ASCII characters; then the tokens written most often so far, then the tokenizer's first
    ones. Most tokenizers order tokens by their merges, and so roughly by frequency; SentencePiece
    has characters at its end, hence the ASCII characters.

    Setting a vocabulary copies rows of the LM head, so it is set anew only for a new prompt and
    when it lacks 32 tokens of the text.

    Args:
        model: gives tokens and their text.
        size: number of tokens, about: a text with more different tokens exceeds it. 0 for all.
    """

    def __init__(self, model: LanguageModel, *, size: int = 8192) -> None:
        self.size = size
        self.model = model
        self._always = model.end_tokens.union(
            # After a line break, since some tokenizers put a space in front of a text.
            *(model.tokenize("\n" + character, add_special=False) for character in _ASCII)
        )
        self._written: Counter[int] = Counter()
        self._total = 0  # sum of its counts
        self._new: set[int] = set()  # tokens that were in no text or count before they were written
        self._text: set[int] = set()
        self._current: frozenset[int] = frozenset()  # the session's draft vocabulary
        self._missing: set[int] = set()  # tokens of the text that it lacks
        self._order: list[int] = []  # the tokenizer's first text tokens, as far as needed
        self._looked_at = 0  # tokens of the tokenizer that were read for it

    def expect(self, written: Mapping[int, int]) -> None:
        """Takes over counts of what the model has written elsewhere, unless there are own ones."""
        if self._total == 0:
            self._written = Counter(written)
            self._total = self._written.total()

    def begin(self, session: TextSession, prompt: Iterable[int]) -> None:
        """Sets the session's draft vocabulary for a text after this prompt.

        Raises:
            BadInput: the model's LM head cannot be cut down to one.
        """
        self._text = set(prompt)
        self._apply(session)

    def observe(self, session: TextSession, tokens: Iterable[int]) -> None:
        """Counts the tokens that the full model has written next; sets the vocabulary anew if it
        lacks too many of the text's."""
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
        """The best vocabulary of this size by what is known now, ascending."""
        chosen = {*self._always, *self._text}
        for source in (self._by_count(size), self._in_order()):
            for token in source:
                if len(chosen) >= size:
                    break
                chosen.add(token)
        return sorted(chosen)

    def coverage(self, size: int) -> float:
        """The chance that a vocabulary of this size holds the token that the model writes next.

        A written token counts as covered if the vocabulary held it before it was written: as a
        token of the text, one written before, or one of the tokenizer's first. The prior counts as
        500 tokens and is Zipf's law, by which the ``s`` most frequent of ``n`` tokens make up
        log(s) / log(n) of a text.
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
        return _State(self.size, dict(self._written), sorted(self._new)).to_json()

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` returned.

        Raises:
            BadInput: not such a state, or one of another vocabulary.
        """
        saved = _State.from_json(state)
        check_below("token", saved.written, self.model.n_vocab)
        self.size, self._written, self._new = saved.size, Counter(saved.written), set(saved.new)
        self._total = self._written.total()

    def _apply(self, session: TextSession) -> None:
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
    session: TextSession,
    vocabulary: DraftVocabulary,
    sizes: Collection[int] = SIZES,
    *,
    repeat: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, float]:
    """Measures the seconds that a draft vocabulary of each size saves of a draft step.

    What is saved is saved in the LM head, whatever the layers, so all but the first and the last
    are dropped. Steps with and without the vocabulary alternate; the result is the difference of
    their medians.

    Args:
        session: keeps its text; has no draft vocabulary afterwards.
        vocabulary: gives the tokens.
        sizes: those not smaller than the model's vocabulary are left out.
        repeat: steps of each kind.
        clock: in seconds.

    Returns:
        Seconds by size; empty if the model cannot be served by a draft vocabulary or a layer mask.
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
    """``best_size`` for drafts with a third of the layers dropped, about what searches find."""
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
    """The size with the highest expected speed, at its best draft length.

    Args:
        saved: seconds saved by size, as ``measure_savings`` gives them.
        coverage: the chance that a vocabulary of a size holds the next token.
        draft_seconds: time of a draft step over all tokens, under the mask that is to be used.
        t1_seconds: T1.
        v: V(n).
        acceptance: acceptance rate of drafts over all tokens. Measured 2026-11-25: 0.79 (1.5B,
            ``measured``, 322 prompts).
        longest: longest draft. Not tuned.

    Returns:
        A size, or 0 if drafts over all tokens are faster.
    """

    def value(size: int) -> float:
        alpha = acceptance * coverage(size)
        c = max(draft_seconds - saved.get(size, 0.0), 0.0) / t1_seconds
        return max(expected_speed(alpha, n, c, v) for n in range(1, longest + 1))

    return max((0, *saved), key=value)
