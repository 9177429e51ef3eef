"""What is proposed to the full model, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

ROOT = -1
"""The parent of a drafted token that follows the text itself."""


@dataclass(frozen=True, eq=False)
class ExitStates:
    """Where an early exit left its tokens; verification goes on from there.

    Attributes:
        layer: layers that ran, 0 < layer < n_layer.
        states: the residual stream as it leaves them, float32 [pending + drafted, n_embd].
    """

    layer: int
    states: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Draft:
    """A tree of tokens proposed to follow the text; most are chains.

    Attributes:
        tokens: parents before their children. The first child of a token that comes right after
            it goes on in the same row of cache cells, so the likeliest branch should come first.
        probabilities: the drafter's own probability of each token given its ancestors, float in
            (0, 1].
        parents: index of each token's predecessor in ``tokens``, or ROOT; empty for a chain.
            Siblings are different tokens.
        sources: who proposed each token, such as "layers" or "lookup"; empty if one drafter did.
        exit: of a chain that an early exit drafted, the states of the pending and the drafted
            tokens.
    """

    tokens: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    parents: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()
    exit: ExitStates | None = field(default=None, compare=False)

    def parent(self, index: int) -> int:
        """The index of a token's predecessor, or ROOT."""
        return self.parents[index] if self.parents else index - 1

    def source(self, index: int) -> str:
        """Who proposed a token."""
        return self.sources[index] if self.sources else "draft"

    def first(self, n: int) -> Draft:
        """The draft's first ``n`` tokens."""
        if len(self.tokens) <= n:
            return self
        return Draft(
            self.tokens[:n], self.probabilities[:n], self.parents[:n], self.sources[:n], self.exit
        )

    @property
    def is_chain(self) -> bool:
        """Whether every token follows the one before it."""
        return not self.parents or self.parents == tuple(range(-1, len(self.tokens) - 1))

    @property
    def row(self) -> int:
        """How many tokens, from the first on, follow each the one before it."""
        n = 0
        while n < len(self.tokens) and self.parent(n) == n - 1:
            n += 1
        return n

    def child(self, parent: int, token: int) -> int | None:
        """The index of the child of ``parent`` that is this token; None if there is none."""
        for index in range(parent + 1, len(self.tokens)):
            if self.tokens[index] == token and self.parent(index) == parent:
                return index
        return None


@dataclass(frozen=True)
class Round:
    """One draft and its verification.

    While a drafter learns from a round, ``session.logits(i)`` and its relatives are those of
    ``[*pending, *draft.tokens][i]``.

    Attributes:
        pending: tokens of the text that were verified together with the draft, at least one: the
            last drawn, after those of a branch whose cells could not stay.
        draft: what was proposed to follow them.
        path: indices into ``draft.tokens`` of the accepted tokens, in the order of the text.
        token: what the full model drew after the accepted ones.
        generated: tokens of the text so far, ``token`` included.
        draft_seconds, verify_seconds: wall time.
    """

    pending: tuple[int, ...]
    draft: Draft
    path: tuple[int, ...]
    token: int
    generated: int
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0

    @property
    def drafted(self) -> int:
        return len(self.draft.tokens)

    @property
    def accepted(self) -> int:
        return len(self.path)

    @property
    def drawn(self) -> tuple[int, ...]:
        """What the round added to the text."""
        return (*(self.draft.tokens[i] for i in self.path), self.token)
