"""A text that is written by drafts and their verification."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding
from edge_conflayers.engine.binding import llama
from edge_conflayers.engine.draft import Draft, ExitStates
from edge_conflayers.engine.session.arrays import floats, int32_array
from edge_conflayers.engine.session.cached_text import CachedText
from edge_conflayers.engine.session.context import NO_ROOM_DRAFTING
from edge_conflayers.engine.session.exact_batch import exact_batch, within_stride
from edge_conflayers.engine.session.mask import LayerMask
from edge_conflayers.errors import BadInput, EdgeConflayersError

MOST_WRITTEN = 16
"""Tokens of one call of ``write``."""

_UNKNOWN = -1  # no token


@dataclass(frozen=True)
class Stretch:
    """Tokens of plain decoding.

    Attributes:
        tokens: that were drawn, in order; at least one.
        seconds: of each one's step.
        called: whether a lookup has ended it.
    """

    tokens: list[int]
    seconds: list[float]
    called: bool


class Session(CachedText):
    """A text that is written by drafts and their verification. Arguments and errors are those of
    ``CachedText``.

    Attributes:
        draft_vocabulary: what drafts choose among, ascending; empty for all tokens.
        exits_reused: verifications that went on from an early exit's states.
    """

    draft_vocabulary: tuple[int, ...] = ()
    exits_reused = 0
    _exit: ExitStates | None = None  # of the last draft by an early exit

    def clear(self) -> None:
        super().clear()
        self._exit = None

    def verify(self, pending: Sequence[int], draft: Draft) -> None:
        """One step of the full model over the end of the text and what was drafted to follow it;
        the logits of ``[*pending, *draft.tokens]`` are kept, each as if its branch had been decoded
        alone. Of a tree, the cache then has the first row: the pending tokens, and the drafted ones
        as long as each follows the one before it.

        Raises:
            as ``step`` does.
            EdgeConflayersError: a tree where ``verifies_trees`` is false, or one of more than 32
                tokens with the pending ones.
        """
        if draft.exit is not None and draft.exit is self._exit:
            self._verify_exit([*pending, *draft.tokens], draft.exit)
            return
        tokens = [*pending, *draft.tokens]
        if draft.is_chain:
            self.step(tokens, outputs="all")
            return
        self.check_fits(len(tokens), "all")
        parents = [*range(-1, len(pending) - 1), *(len(pending) + p for p in draft.parents)]
        row = next(i for i, parent in enumerate(parents) if parent != i - 1)
        self.append(
            tokens[:row],
            lambda begin: binding.ecl_step_tree(
                self.handle,
                *(int32_array(tokens), int32_array(parents), len(tokens)),
                *(begin, 0, binding.OUTPUTS_ALL),
            ),
        )

    def write(
        self,
        pending: Sequence[int],
        samplers: binding.Samplers,
        *,
        most: int,
        seconds: float,
        following: Sequence[Any] = (),
        expected: float = 1.0,
    ) -> Stretch:
        """Decodes plainly: a step over ``pending``, the end of the text, which is not in the cache
        yet, then one over each token drawn, but for the last. An end-of-text token is the last.

        Args:
            most: tokens to draw, at least one; more than ``MOST_WRITTEN`` are not drawn in a call.
            seconds: no step begins after so long, but for the first.
            following: handles of lookups that take in each token.
            expected: a probability with which one of them expects the token to come, which ends it.

        Raises:
            as ``step`` and ``draw`` do in the first step and draw; the text is then as it was.
        """
        most = min(most, MOST_WRITTEN, self.room - len(pending) + 1)
        self.check_fits(len(pending), "all")
        tokens, times = (ctypes.c_int32 * most)(), (ctypes.c_double * most)()
        handles = (ctypes.c_void_p * len(following))(*following)
        stretch = binding.Stretch(
            n_max=most,
            max_seconds=seconds,
            following=handles,
            n_following=len(handles),
            expected=expected,
            tokens=tokens,
            seconds=times,
        )
        begin = len(self.tokens)
        # Before the steps, so that after an interrupt no text is taken for what was read.
        self.tokens.extend((*pending, *[_UNKNOWN] * (most - 1)))
        try:
            status = binding.ecl_write(
                self.handle,
                *(int32_array(pending), len(pending), begin, 0),
                *(ctypes.byref(samplers), ctypes.byref(stretch)),
            )
        finally:
            n = stretch.n_drawn
            self.tokens[begin:] = [*pending, *tokens[: n - 1]] if n > 0 else []
        if status != 0:
            samplers.check()
            self.context.fail(status)
        return Stretch(tokens[:n], times[:n], stretch.called)

    @functools.cached_property
    def exact_batch(self) -> int:
        """Most tokens of a step that gives each one the logits of a one-token step, to the bit.
        Asked for first, a GPU is tried: some twenty steps, after which the last one's logits are
        gone.

        Raises:
            as ``step`` and ``rollback`` do.
        """
        return exact_batch(self)

    @property
    def most_verified(self) -> int:
        """Tokens that ``verify`` may take here so that the text stays plain decoding's."""
        most = min(self.room, self.max_outputs, self.exact_batch)
        return min(most, within_stride(len(self))) if self.model.on_gpu else most

    @property
    def verifies_drafts(self) -> bool:
        """Whether ``verify`` may take any draft, for the same reason."""
        return self.exact_batch > 1

    @functools.cached_property
    def verifies_trees(self) -> bool:
        """Whether ``verify`` takes drafts that are not chains: where attention runs on our CPU
        kernels. Asked for once, as long as it takes to build a graph."""
        return bool(binding.ecl_tree_supported(self.handle))

    def set_draft_vocabulary(self, tokens: Iterable[int]) -> None:
        """Drafts choose among these tokens only from now on, which makes them cheaper (FR-Spec,
        arXiv 2502.14856); without any, among all. Steps of the full model are not touched.

        The tokens' rows of the LM head are copied: they take memory, and setting a vocabulary
        takes milliseconds to tenths of a second.

        Raises:
            BadInput: the model's LM head cannot be served by one. What only its graph can tell,
                the next draft raises.
        """
        array = sorted(set(tokens))
        self.draft_vocabulary = ()
        self.context.set_draft_vocabulary(array)
        self.draft_vocabulary = tuple(array)

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
        """Drafts greedily under a mask, to follow ``pending``, which is not in the cache yet; the
        cache, unless ``keep``, and the session's mask stay as they are.

        Args:
            limit: most tokens to draft.
            stop_probability: a token less likely than this is the last of the draft.
            stop_path: drafting goes on while the product of the tokens' chances of acceptance is
                at least this.
            least_path: a token that makes that product less than this ends the draft and is left
                out, unless it is the first.
            acceptance: the chance of acceptance of a token whose probability p falls in bin
                floor(p * len(acceptance)); None takes p itself.
            full_vocabulary: choose among all tokens although there is a draft vocabulary. Within
                one, a probability is that of a softmax over its tokens, and so a little higher.
            runners_up: of each drafted token, how many of the next likeliest to add as leaves:
                after the chain, token by token, likeliest first.
            keep: the text goes on with ``pending`` and those drafted tokens that were read to draft
                the next. Only without a mask: under one, dropped layers keep nothing of them.

        Raises:
            BadInput: the model's architecture cannot be served by the mask, or by the draft
                vocabulary.
        """
        limit = min(limit, self.room - len(pending) + 1)
        if limit <= 0:
            return Draft()
        options = binding.ecl_draft_default_options()
        options.n_max = limit
        options.stop_probability = stop_probability
        options.stop_path = stop_path
        options.least_path = least_path
        options.full_vocabulary = full_vocabulary
        options.n_runners_up = runners_up
        options.keep = keep
        if acceptance is not None:
            options.acceptance = (ctypes.c_float * len(acceptance))(*acceptance)
            options.n_acceptance = len(acceptance)
        width = 1 + runners_up
        tokens = (ctypes.c_int32 * (limit * width))()
        probabilities = (ctypes.c_float * (limit * width))()
        begin = len(self.tokens)
        if keep:  # before the steps, so that after an interrupt no text is taken for what was read
            self.tokens.extend((*pending, *[_UNKNOWN] * limit))
        n = binding.ecl_draft(
            self.handle,
            *(mask.packed(self.model.n_layer), self.model.n_layer),
            *(int32_array(pending), len(pending), begin, 0),
            *(ctypes.byref(options), tokens, probabilities),
        )
        if keep:
            read = llama.llama_memory_seq_pos_max(self.context.memory, 0) + 1 - begin
            drafted = (tokens[i * width] for i in range(max(n, 0)))
            self.tokens[begin:] = [*pending, *drafted][:read]
        if n == NO_ROOM_DRAFTING:
            return Draft()
        if n < 0:
            self.context.fail(n)
        places = [*range(0, n * width, width)]
        leaves = [place + i for place in places for i in range(1, width) if tokens[place + i] >= 0]
        return Draft(
            tuple(tokens[i] for i in (*places, *leaves)),
            tuple(probabilities[i] for i in (*places, *leaves)),
            tuple(i // width - 1 for i in (*places, *leaves)) if leaves else (),
        )

    def draft_logits(self) -> npt.NDArray[np.float32]:
        """The logits of ``draft_vocabulary``, in its order, of the last step of the last draft:
        float32, not copied, valid until the next step or draft.

        Raises:
            EdgeConflayersError: the last draft was not made in a draft vocabulary.
        """
        pointer = binding.ecl_draft_logits(self.handle)
        if not pointer:
            raise EdgeConflayersError("the last draft kept no logits; set a draft vocabulary")
        return np.ctypeslib.as_array(pointer, shape=(len(self.draft_vocabulary),))

    def draft_exit(
        self, exit_layer: int, pending: Sequence[int], *, limit: int, stop_probability: float
    ) -> Draft:
        """Drafts greedily as ``draft`` does by an early exit: the first ``exit_layer`` layers, then
        the model's own norm and head. Verified next, the draft is gone on with after those layers.

        Raises:
            BadInput: there is no such exit, or the architecture cannot be served by early exits.
        """
        n_layer, n_embd = self.model.n_layer, self.model.n_embd
        if not 0 < exit_layer < n_layer:
            raise BadInput(
                f"there is no exit after {exit_layer} of {n_layer} layers;"
                f" choose from 1 to {n_layer - 1}"
            )
        limit = min(limit, self.room - len(pending))
        if limit <= 0:
            return Draft()
        tokens = (ctypes.c_int32 * limit)()
        probabilities = (ctypes.c_float * limit)()
        states = np.empty((len(pending) + limit, n_embd), dtype=np.float32)
        n = binding.ecl_draft_exit(
            self.handle,
            *(exit_layer, int32_array(pending), len(pending), len(self.tokens), 0),
            *(limit, stop_probability, tokens, probabilities, floats(states)),
        )
        if n == NO_ROOM_DRAFTING:
            return Draft()
        if n < 0:
            self.context.fail(n)
        self._exit = ExitStates(exit_layer, states[: len(pending) + n])
        return Draft(tuple(tokens[:n]), tuple(probabilities[:n]), exit=self._exit)

    def _verify_exit(self, tokens: Sequence[int], exit: ExitStates) -> None:
        reused = ctypes.c_int32()
        self.append(
            tokens,
            lambda begin: binding.ecl_verify_exit(
                self.handle,
                *(exit.layer, int32_array(tokens), floats(exit.states), len(tokens), begin, 0),
                ctypes.byref(reused),
            ),
        )
        self.exits_reused += reused.value
