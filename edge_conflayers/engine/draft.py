"""What is proposed to the full model to verify."""

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
    """A tree of tokens proposed to follow the text; mostly a chain.

    Attributes:
        tokens: parents before their children. Only the first chain stays in the KV cache after
            verification, so the likeliest branch should come first.
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
    def chain_length(self) -> int:
        """Length of the first chain: tokens from the first on that follow the one before them."""
        n = 0
        while n < len(self.tokens) and self.parent(n) == n - 1:
            n += 1
        return n

    @property
    def depth(self) -> int:
        """Tokens of the longest branch."""
        if not self.parents:
            return len(self.tokens)
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent == ROOT else depths[parent] + 1)
        return max(depths, default=0)

    def child(self, parent: int, token: int) -> int | None:
        """The index of the child of ``parent`` that is this token; None if there is none."""
        for index in range(parent + 1, len(self.tokens)):
            if self.tokens[index] == token and self.parent(index) == parent:
                return index
        return None


NO_DRAFT = Draft()
"""Nothing to verify: a round of plain decoding."""
