"""A text that is written by drafting and verification, or by plain decoding in the library."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import Draft, ExitStates
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session.arrays import floats, int32_array
from edge_conflayers.engine.session.cached_text import CachedText
from edge_conflayers.engine.session.checks import check_exit, check_step
from edge_conflayers.engine.session.exact_batch import exact_batch, within_stride
from edge_conflayers.engine.session.mask import LayerMask
from edge_conflayers.engine.session.probe import probe, probe_stream
from edge_conflayers.engine.session.replay import replay
from edge_conflayers.engine.session.results import MOST_WRITTEN, Confidences, Stretch
from edge_conflayers.engine.session.saved_text import SavedText, restore, saved

_UNKNOWN = -1  # stands for a token that is not known yet


class Session(CachedText):
    """A text that is written by drafting and verification. Arguments and errors are those of
    ``CachedText``.

    Attributes:
        draft_vocabulary: the tokens that drafts choose among, ascending; empty for all tokens.
        exits_reused: verifications that went on from the hidden states of an early exit.
        last_exit: hidden states of the last draft by an early exit.
    """

    draft_vocabulary: tuple[int, ...] = ()
    exits_reused = 0
    last_exit: ExitStates | None = None

    def clear(self) -> None:
        super().clear()
        self.last_exit = None

    def verify(self, pending: Sequence[int], draft: Draft) -> None:
        """See ``TextSession.verify``.

        Of a tree, only the first chain stays in the cache: the pending tokens, and the drafted
        ones as long as each follows the one before it.

        Raises:
            as ``step`` does.
            EdgeConflayersError: a tree where ``verifies_trees`` is false, or one of more than 32
                tokens together with the pending ones.
        """
        if draft.exit is not None and draft.exit is self.last_exit:
            self._verify_exit([*pending, *draft.tokens], draft.exit)
            return
        tokens = [*pending, *draft.tokens]
        if draft.is_chain:
            self.step(tokens, outputs="all")
            return
        check_step(self, len(tokens), "all")
        parents = [*range(-1, len(pending) - 1), *(len(pending) + p for p in draft.parents)]
        chain = next(i for i, parent in enumerate(parents) if parent != i - 1)
        self.append(
            tokens[:chain],
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
        watch: Sequence[Any] = (),
        wake_at: float = 1.0,
    ) -> Stretch:
        """See ``TextSession.write``: one call of the library."""
        most = min(most, MOST_WRITTEN, self.room - len(pending) + 1)
        check_step(self, len(pending), "all")
        tokens, times = (ctypes.c_int32 * most)(), (ctypes.c_double * most)()
        handles = (ctypes.c_void_p * len(watch))(*watch)
        stretch = binding.Stretch(
            max_tokens=most,
            max_seconds=seconds,
            lookups=handles,
            n_lookups=len(handles),
            stop_probability=wake_at,
            tokens=tokens,
            seconds=times,
        )
        begin = len(self.tokens)
        # Noted before the steps, so that an interrupt leaves nothing in the cache unnoted.
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
        return Stretch(tokens[:n], times[:n], stretch.found_match)

    @functools.cached_property
    def exact_batch(self) -> int:
        """Most tokens of a step that gives each of them the bits of a one-token step.

        It is tried when first asked for on this machine: about a dozen steps, after which the
        logits of the text's last step are gone.

        Raises:
            as ``step`` and ``rollback`` do.
        """
        return exact_batch(self)

    @property
    def most_verified(self) -> int:
        """Most tokens that ``verify`` may take here so that the text stays that of plain
        decoding."""
        most = min(self.room, self.max_outputs, self.exact_batch)
        return min(most, within_stride(len(self))) if self.model.on_gpu else most

    @property
    def verifies_drafts(self) -> bool:
        """Whether ``verify`` may take a draft at all without changing the text."""
        return self.exact_batch > 1

    @property
    def why_plain(self) -> str:
        """See ``TextSession.why_plain``."""
        on_gpu = self.model.on_gpu
        where = "this GPU rounds" if on_gpu else "these CPU kernels round"
        instead = "on the CPU (without -ngl)" if on_gpu else "with --kernels ecl"
        return (
            f"{where} steps over several tokens otherwise than steps over one, so that drafts could"
            f" change the text: decoding plainly; {instead} they cannot"
        )

    @functools.cached_property
    def verifies_trees(self) -> bool:
        """Whether ``verify`` takes drafts that are not chains, which needs our CPU kernels for
        attention. Finding out builds a graph, once."""
        return bool(self.context.check(binding.ecl_tree_supported(self.handle)))

    def set_draft_vocabulary(self, tokens: Iterable[int]) -> None:
        """Sets the tokens that drafts choose among, which makes draft steps cheaper (FR-Spec, arXiv
        2502.14856). Steps of the full model are unchanged.

        The tokens' rows of the LM head are copied: they take memory, and setting a vocabulary
        takes milliseconds to tenths of a second.

        Args:
            tokens: none for all tokens of the model.

        Raises:
            BadInput: the model's LM head cannot be cut down. If only its graph shows that, the next
                draft raises it.
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
        before: npt.NDArray[np.float32] | None = None,
    ) -> Draft:
        """See ``TextSession.draft``.

        Args:
            before: to draft over bridges, whose layers the mask drops too: ``bridge_states`` of the
                token before each pending one.
        """
        limit = min(limit, self.room - len(pending) + 1)
        if limit <= 0:
            return Draft()
        options = binding.ecl_draft_default_options()
        options.max_draft = limit
        options.stop_probability = stop_probability
        options.stop_path = stop_path
        options.min_path = least_path
        options.full_vocabulary = full_vocabulary
        options.n_runners_up = runners_up
        options.keep_cells = keep
        if before is not None:
            before = np.ascontiguousarray(before, dtype=np.float32)  # stays until the call
            options.before = floats(before)
        if acceptance is not None:
            options.acceptance = (ctypes.c_float * len(acceptance))(*acceptance)
            options.n_acceptance = len(acceptance)
        width = 1 + runners_up
        tokens = (ctypes.c_int32 * (limit * width))()
        probabilities = (ctypes.c_float * (limit * width))()
        begin = len(self.tokens)
        if keep:  # before the steps, as in ``write``
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
        if n == binding.NO_ROOM:
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

    def draft_exit(
        self, exit_layer: int, pending: Sequence[int], *, limit: int, stop_probability: float
    ) -> Draft:
        """See ``TextSession.draft_exit``. If the draft is verified next, verification goes on after
        those layers."""
        n_layer, n_embd = self.model.n_layer, self.model.n_embd
        check_exit(exit_layer, n_layer)
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
        if n == binding.NO_ROOM:
            return Draft()
        if n < 0:
            self.context.fail(n)
        self.last_exit = ExitStates(exit_layer, states[: len(pending) + n])
        return Draft(tuple(tokens[:n]), tuple(probabilities[:n]), exit=self.last_exit)

    def _verify_exit(self, tokens: Sequence[int], exit: ExitStates) -> None:
        """Verifies from the hidden states that an early exit left, where they can be used."""
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

    def saved(self) -> SavedText:
        """See ``KeepsText.saved``."""
        return saved(self)

    def restore(self, saved: SavedText) -> None:
        """See ``KeepsText.restore``."""
        restore(self, saved)

    def replay(
        self,
        mask: LayerMask,
        begin: int,
        end: int | None = None,
        *,
        stretch: int | None = None,
    ) -> list[tuple[int, float]] | None:
        """See ``TextSession.replay``."""
        return replay(self, mask, begin, end, stretch=stretch)

    def probe(self, window: Sequence[int]) -> Confidences | None:
        """See ``TextSession.probe``."""
        return probe(self, window)

    def probe_stream(self, layer: int, where: int, n_tokens: int) -> npt.NDArray[np.float32]:
        """See ``TextSession.probe_stream``."""
        return probe_stream(self, layer, where, n_tokens)
