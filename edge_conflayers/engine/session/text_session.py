"""What every engine's session offers to the loop and to drafters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session.kept_text import KeepsText
from edge_conflayers.engine.session.mask import LayerMask
from edge_conflayers.engine.session.results import Confidences, GraphStats, Outputs, Stretch

_Self = TypeVar("_Self", bound="TextSession")


class TextSession(KeepsText, Protocol):
    """A text that is written by drafting and verification, in a KV cache of its own.

    Attributes:
        tokens: the text in the cache, in order.
        draft_vocabulary: the tokens that drafts choose among, ascending; empty for all tokens.
    """

    tokens: list[int]
    draft_vocabulary: tuple[int, ...]

    @property
    def model(self) -> LanguageModel:
        """Whose steps it takes; stays open as long as the session."""
        ...

    @property
    def n_ctx(self) -> int:
        """Tokens that fit."""
        ...

    @property
    def threads(self) -> int:
        """CPU threads of a step."""
        ...

    @property
    def max_outputs(self) -> int:
        """Most tokens of one step whose logits are kept."""
        ...

    def __len__(self) -> int:
        """Tokens in the cache."""
        ...

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        ...

    @property
    def mask(self) -> LayerMask:
        """The sub-layers that steps leave out."""
        ...

    def set_mask(self, mask: LayerMask) -> None:
        """Sets the sub-layers that the next steps leave out.

        Raises:
            BadInput: the model cannot be served by a mask.
        """
        ...

    # Steps

    def step(self, tokens: Sequence[int], *, outputs: Outputs = "last") -> None:
        """Runs the model over the next tokens and keeps them in the cache.

        Args:
            tokens: at most as many as there is room for.
            outputs: the tokens whose logits are kept.

        Raises:
            ContextFull: no room; the text is unchanged.
            BadInput: the model cannot be served by the mask.
            EdgeConflayersError: the step failed, or would keep more logits than ``max_outputs``.
        """
        ...

    def read(
        self, tokens: Sequence[int], *, before_batch: Callable[[], None] = lambda: None
    ) -> None:
        """Runs the model over a prompt, batch by batch, and keeps the logits of its last token.
        What ``before_batch`` raises, before a batch, ends it.

        Raises:
            ContextFull: the prompt does not fit; nothing was read.
        """
        ...

    def verify(self, pending: Sequence[int], draft: Draft) -> None:
        """Runs the full model over pending and drafted tokens in one step, and keeps each token's
        logits, as if its branch had been decoded alone.

        Args:
            pending: the end of the text, which is not in the cache yet.
            draft: the tokens drafted to follow it; of a tree, the first chain stays in the cache.
        """
        ...

    def write(
        self,
        pending: Sequence[int],
        samplers: binding.Samplers,
        *,
        most: int,
        seconds: float,
        watch: Sequence[Any] = (),
        wake_at: float = 1.0,
    ) -> Stretch:
        """Decodes plainly: a step over ``pending``, then one over each token drawn but the last.
        An end-of-text token ends it.

        Args:
            pending: the end of the text, which is not in the cache yet.
            samplers: draw the tokens.
            most: most tokens to draw, at least one; never more than ``MOST_WRITTEN``.
            seconds: time after which no further step begins.
            watch: handles of lookups, which take in each token.
            wake_at: a lookup that has a next token of at least this probability ends it.

        Raises:
            as ``step`` and ``draw`` do, for the first step and draw; the text is then unchanged.
        """
        ...

    def rollback(self, length: int) -> None:
        """Removes everything from position ``length`` on.

        Raises:
            EdgeConflayersError: the model's memory cannot be rolled back so far.
        """
        ...

    def rewind(self, length: int) -> None:
        """Forgets everything from position ``length`` on, whatever that takes."""
        ...

    def clear(self) -> None:
        """Removes the whole text."""
        ...

    # Logits of the last step

    def logits(self, index: int = -1) -> npt.NDArray[np.float32]:
        """The logits of one kept output of the last step.

        Args:
            index: of the output; negative from the end.

        Returns:
            float32 [n_vocab], not copied, valid until the next step.
        """
        ...

    def logits_address(self, index: int) -> int | None:
        """Where those logits are in memory; None if none were kept."""
        ...

    def argmax(self, index: int) -> int:
        """The most likely token of one kept output of the last step; of equals, the lowest."""
        ...

    def best(self, index: int = -1) -> tuple[int, float]:
        """The most likely token of one kept output of the last step, and its probability."""
        ...

    def draw(self, index: int, samplers: binding.Samplers) -> int:
        """Draws the next token of the text by one kept output of the last step.

        Raises:
            BadInput: a grammar allows no token.
        """
        ...

    # What may be verified

    @property
    def most_verified(self) -> int:
        """Most tokens that ``verify`` may take here so that the text stays that of plain
        decoding."""
        ...

    @property
    def verifies_drafts(self) -> bool:
        """Whether ``verify`` may take a draft at all without changing the text."""
        ...

    @property
    def why_plain(self) -> str:
        """Where it may not: why, and what to do about it, in one line."""
        ...

    @property
    def verifies_trees(self) -> bool:
        """Whether ``verify`` takes drafts that are not chains."""
        ...

    # Drafts by the model itself

    def set_draft_vocabulary(self, tokens: Iterable[int]) -> None:
        """Sets the tokens that drafts choose among; none for all tokens of the model.

        Raises:
            BadInput: the model's LM head cannot be cut down.
        """
        ...

    def draft(
        self,
        mask: LayerMask,
        pending: Sequence[int],
        *,
        limit: int,
        stop_probability: float,
        stop_path: float = 0.0,
        least_path: float = 0.0,
        acceptance: Sequence[float] | None = None,
        full_vocabulary: bool = False,
        runners_up: int = 0,
        keep: bool = False,
    ) -> Draft:
        """Drafts greedily under a mask. The cache, unless ``keep``, and the session's mask stay as
        they are.

        Args:
            mask: the sub-layers that the draft steps leave out.
            pending: the end of the text, which is not in the cache yet.
            limit: most tokens to draft.
            stop_probability: a token less likely than this is the last of the draft.
            stop_path: drafting ends when the product of the tokens' chances of acceptance falls
                under this.
            least_path: a token that makes that product fall under this ends the draft and is left
                out, unless it is the first.
            acceptance: chances of acceptance by the drafter's probability p, in equal bins: that of
                bin floor(p * len(acceptance)); None takes p itself.
            full_vocabulary: choose among all tokens although a draft vocabulary is set. Within one,
                a probability is that of a softmax over its tokens, and so a little higher.
            runners_up: how many of the next likeliest tokens to add as leaves beside each drafted
                token: after the chain, token by token, likeliest first.
            keep: append ``pending``, and those drafted tokens that were read to draft the next, to
                the text. Only without a mask: dropped layers have no keys and values of them.

        Raises:
            BadInput: the model cannot be served by the mask, or its LM head by the draft
                vocabulary.
        """
        ...

    def draft_exit(
        self, exit_layer: int, pending: Sequence[int], *, limit: int, stop_probability: float
    ) -> Draft:
        """Drafts greedily by an early exit: the first ``exit_layer`` layers, then the model's own
        norm and head.

        Args:
            exit_layer: layers that run.
            pending, limit, stop_probability: as for ``draft``.

        Raises:
            BadInput: there is no such exit, or the model cannot be served by early exits.
        """
        ...

    # Along the text that is there

    def replay(
        self,
        mask: LayerMask,
        begin: int,
        end: int | None = None,
        *,
        stretch: int | None = None,
    ) -> list[tuple[int, float]] | None:
        """Predicts each position of the text under a mask, given the text before it (teacher
        forcing).

        The masked model runs in parallel over the positions, on top of the full model's keys and
        values of everything before ``begin``. The session's text, cache and mask stay as they are;
        the logits of its last step do not.

        Args:
            mask: the sub-layers to leave out.
            begin: first position to predict, at least 1.
            end: position after the last one; None for the end of the text in the cache.
            stretch: positions after which the masked model goes on from the full model's keys and
                values, as drafting does after each verification; None for never. At most 32.

        Returns:
            The most likely token at each position and its probability; None if the cache has no
            room for the positions once more, or no longer has the window before them.

        Raises:
            BadInput: the model cannot be served by the mask.
            ValueError: positions that are not in the text.
        """
        ...

    def probe(self, window: Sequence[int]) -> Confidences | None:
        """Confidences of every sub-layer's output over a window of tokens (ConfLayers, arXiv
        2604.14612), which is read as a text of its own; the session's text stays as it is.

        Returns:
            One array for attention and one for MLPs, float32 [n_layer], NaN where a layer has none;
            None if the cache has no room for the window.
        """
        ...

    def probe_stream(self, layer: int, where: int, n_tokens: int) -> npt.NDArray[np.float32]:
        """The residual stream around a layer in the last probe.

        Args:
            where: BEFORE_ATTENTION, AFTER_ATTENTION or AFTER_FFN of ``binding``.
            n_tokens: of the probe's window.

        Returns:
            float32 [tokens, n_embd]; after the last layer's attention only the last token is left.

        Raises:
            EdgeConflayersError: the model does not show it.
        """
        ...

    def graph_stats(self) -> GraphStats:
        """Counts of compute graphs so far."""
        ...

    def close(self) -> None:
        """Frees the cache."""
        ...

    def __enter__(self: _Self) -> _Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
