"""One sequence of a model: its KV cache, its steps, its way back."""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_conflayers import binding, machine
from edge_conflayers.binding import llama
from edge_conflayers.closing import Closing
from edge_conflayers.draft import Draft, ExitStates
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.model import Model

Outputs = Literal["none", "last", "all"]
KVType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]

_OUTPUTS = {
    "none": binding.OUTPUTS_NONE,
    "last": binding.OUTPUTS_LAST,
    "all": binding.OUTPUTS_ALL,
}
# ggml.h's numbers of these types, and the bytes that one value takes.
_KV_TYPES: dict[str, tuple[int, float]] = {
    "f32": (0, 4.0),
    "f16": (1, 2.0),
    "bf16": (30, 2.0),
    "q8_0": (8, 34 / 32),
    "q5_1": (7, 24 / 32),
    "q5_0": (6, 22 / 32),
    "q4_1": (3, 20 / 32),
    "q4_0": (2, 18 / 32),
}
_DEFAULT_CONTEXT = 4096
_PROBE_SEQUENCE = 1
_MOST_REPLAYED = 32  # tokens a step; the kernels of larger ones are for prompts
_NO_ROOM = 1
_NO_ROOM_DRAFTING = -101


class ContextFull(BadInput):
    """No room for the tokens of a step; the cache is as it was before the step."""


@dataclass(frozen=True)
class LayerMask:
    """Which sub-layers a step leaves out.

    Attributes:
        attention: layers (0-based) without their attention.
        mlp: layers without their feed-forward.
    """

    attention: frozenset[int] = frozenset()
    mlp: frozenset[int] = frozenset()

    @classmethod
    def layers(cls, skip_set: Iterable[int]) -> LayerMask:
        """Whole layers left out, attention and feed-forward together."""
        skipped = frozenset(skip_set)
        return cls(attention=skipped, mlp=skipped)

    def __bool__(self) -> bool:
        return bool(self.attention or self.mlp)

    def packed(self, n_layer: int) -> Any:
        """The mask as ``ecl.h`` takes it: n_layer bytes.

        Raises:
            BadInput: a layer that the model does not have.
        """
        bits = (ctypes.c_uint8 * n_layer)()
        for layers, bit in (
            (self.attention, binding.DROP_ATTENTION),
            (self.mlp, binding.DROP_FFN),
        ):
            for layer in layers:
                if not 0 <= layer < n_layer:
                    raise BadInput(f"there is no layer {layer} to drop; the model has {n_layer}")
                bits[layer] |= bit
        return bits


NO_MASK = LayerMask()


@dataclass(frozen=True)
class GraphStats:
    """How often compute graphs were built, and what that took."""

    built: int
    build_seconds: float
    alive: int


class Session(Closing):
    """One sequence being read and written by a model.

    Args:
        model: stays open as long as the session.
        n_ctx: tokens that fit; None for 4096 or what the model was trained for, whichever is less;
            0 for what it was trained for.
        threads: CPU threads; None for the machine's physical cores.
        flash_attention: True, False, or None to let llama.cpp choose.
        kv_type: how keys and values are kept.
        offload_kv: keep the KV cache on the GPU with offloaded layers.
        batch: most tokens evaluated at once when reading a prompt.
        max_outputs: most tokens of one step whose logits are kept; memory is reserved for them.

    Raises:
        BadInput: a context that does not fit in memory, or settings that do not go together.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int | None = None,
        threads: int | None = None,
        flash_attention: bool | None = None,
        kv_type: KVType = "f16",
        offload_kv: bool = True,
        batch: int = 512,
        max_outputs: int = 32,
    ) -> None:
        self.model = model
        self.tokens: list[int] = []  # what is in the cache, in order
        self.n_ctx = _context_size(model, n_ctx)
        self.threads = threads or machine.default_threads()
        self._context: Any = None
        self._mask = NO_MASK
        self.draft_vocabulary: tuple[int, ...] = ()  # ascending; empty: all tokens
        self._exit: ExitStates | None = None  # of the last draft by an early exit
        self.exits_reused = 0
        """Verifications that went on from an early exit's states."""
        self._batch = min(batch, self.n_ctx)
        self.max_outputs = min(max_outputs, self._batch)
        _check_memory(model, self.n_ctx, kv_type)

        params = llama.llama_context_default_params()
        params.n_ctx = self.n_ctx
        params.n_batch = params.n_ubatch = self._batch
        params.n_seq_max = 1
        params.n_outputs_max = self.max_outputs
        params.kv_unified = True  # lets probes use a sequence of their own in the same cache
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = {None: -1, False: 0, True: 1}[flash_attention]
        params.type_k = params.type_v = _KV_TYPES[kv_type][0]
        params.offload_kqv = offload_kv
        params.swa_full = False
        params.no_perf = True
        binding.log.recent.clear()
        self._context = llama.llama_init_from_model(model.handle, params)
        if not self._context:
            why = binding.log.first_error() or "not enough memory"
            raise BadInput(
                f"a context of {self.n_ctx} tokens cannot be made: {why};"
                " try a smaller one or another kind of cache"
            )
        self.n_ctx = min(self.n_ctx, llama.llama_n_ctx(self._context))
        self._memory: Any = llama.llama_get_memory(self._context)

    @property
    def handle(self) -> Any:
        """llama.cpp's own pointer.

        Raises:
            EdgeConflayersError: the session is closed.
        """
        if self._context is None:
            raise EdgeConflayersError("the session is closed; open a new one")
        return self._context

    def __len__(self) -> int:
        """Tokens in the cache."""
        return len(self.tokens)

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self.n_ctx - len(self.tokens)

    @property
    def batch(self) -> int:
        """Most tokens of one step."""
        return self._batch

    def set_mask(self, mask: LayerMask) -> None:
        """Sets what the next steps leave out.

        Raises:
            BadInput: the model's architecture cannot be served by a mask.
        """
        if mask == self._mask:
            return
        bits = mask.packed(self.model.n_layer) if mask else None
        if binding.ecl_set_mask(self.handle, bits, self.model.n_layer) != 0:
            raise BadInput(f"{self._last_error()}; use --method plain")
        self._mask = mask

    def step(self, tokens: Sequence[int], *, outputs: Outputs = "last") -> None:
        """Runs the model over the next tokens and keeps them in the cache.

        Args:
            tokens: at most as many as there is room for.
            outputs: which logits to keep.

        Raises:
            ContextFull: no room; nothing was kept.
            BadInput: a mask that the model's architecture cannot be served by.
            EdgeConflayersError: the step failed, or is to keep more logits than there is room for.
        """
        self._decode(binding.ecl_step, tokens, outputs)

    def _decode(self, decode: Any, tokens: Sequence[int], outputs: Outputs) -> None:
        self._check_fits(len(tokens), outputs)
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        begin = len(self.tokens)
        self.tokens.extend(
            tokens
        )  # before the step, so that an interrupt right after it loses nothing
        status = decode(self.handle, array, len(tokens), begin, 0, _OUTPUTS[outputs])
        if status != 0:
            del self.tokens[begin:]
            self._raise(status)

    def _check_fits(self, n: int, outputs: Outputs) -> None:
        if outputs == "all" and n > self.max_outputs:
            raise EdgeConflayersError(
                f"a step keeps the logits of at most {self.max_outputs} tokens, not {n};"
                " take fewer, or open the session with more max_outputs"
            )
        if n > self.room:
            raise ContextFull(
                f"{n} more tokens do not fit: {len(self)} of {self.n_ctx} are taken;"
                " start with a larger context (-c)"
            )

    def read(self, tokens: Sequence[int]) -> None:
        """Runs the model over a prompt, batch by batch; the logits of its last token are kept.

        An interrupt between batches leaves a cache that can be gone on with.

        Raises:
            ContextFull: the prompt does not fit; nothing was read.
        """
        if len(tokens) > self.room:
            raise ContextFull(
                f"the prompt has {len(tokens)} tokens, {self.room} fit;"
                " shorten it or start with a larger context (-c)"
            )
        for begin in range(0, len(tokens), self._batch):
            part = tokens[begin : begin + self._batch]
            last = begin + len(part) == len(tokens)
            self._decode(binding.ecl_read, part, "last" if last else "none")

    def logits(self, index: int = -1) -> npt.NDArray[np.float32]:
        """The logits of one kept output of the last step: float32 [n_vocab], not copied, valid
        until the next step. Negative indices count from the end."""
        pointer = llama.llama_get_logits_ith(self.handle, index)
        if not pointer:
            raise EdgeConflayersError(f"the last step kept no logits for token {index}")
        return np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab,))

    def argmax(self, index: int = -1) -> int:
        """The most likely token by one kept output of the last step."""
        return int(binding.ecl_argmax(self.handle, index, None))

    def best(self, index: int = -1) -> tuple[int, float]:
        """The most likely token by one kept output of the last step, and its probability."""
        probability = ctypes.c_float()
        token = int(binding.ecl_argmax(self.handle, index, ctypes.byref(probability)))
        return token, probability.value

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
        self._check_fits(len(tokens), "all")
        parents = [*range(-1, len(pending) - 1), *(len(pending) + p for p in draft.parents)]
        row = next(i for i, parent in enumerate(parents) if parent != i - 1)
        begin = len(self.tokens)
        self.tokens.extend(tokens[:row])
        status = binding.ecl_step_tree(
            self.handle,
            (ctypes.c_int32 * len(tokens))(*tokens),
            (ctypes.c_int32 * len(parents))(*parents),
            *(len(tokens), begin, 0, binding.OUTPUTS_ALL),
        )
        if status != 0:
            del self.tokens[begin:]
            self._raise(status)

    @functools.cached_property
    def verifies_trees(self) -> bool:
        """Whether ``verify`` takes drafts that are not chains: where attention runs on our CPU
        kernels. Asked for once, as long as it takes to build a graph."""
        return bool(binding.ecl_tree_supported(self.handle))

    def top_k(self, index: int, k: int) -> tuple[list[int], list[float]]:
        """The ``k`` most likely tokens by one kept output of the last step, in descending order
        (equal logits: the lower token first), and their softmax probabilities.

        Raises:
            EdgeConflayersError: the last step kept no logits for that output.
        """
        k = max(0, min(k, self.model.n_vocab))
        tokens = (ctypes.c_int32 * k)()
        probabilities = (ctypes.c_float * k)()
        n = binding.ecl_top_k(self.handle, index, k, tokens, probabilities)
        if n < 0:
            raise EdgeConflayersError(self._last_error())
        return tokens[:n], probabilities[:n]

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
        if binding.ecl_set_draft_vocabulary(
            self.handle, (ctypes.c_int32 * len(array))(*array), len(array)
        ):
            raise BadInput(f"{self._last_error()}; draft without one")
        self.draft_vocabulary = tuple(array)

    def draft(
        self,
        mask: LayerMask,
        pending: Sequence[int],
        *,
        limit: int,
        stop_probability: float,
        stop_path: float = 0.0,
        acceptance: Sequence[float] | None = None,
        full_vocabulary: bool = False,
    ) -> Draft:
        """Drafts greedily under a mask, to follow ``pending``, which is not in the cache yet; the
        cache and the session's mask stay as they are.

        Args:
            limit: most tokens to draft.
            stop_probability: a token less likely than this is the last of the draft.
            stop_path: drafting goes on while the product of the tokens' chances of acceptance is
                at least this; a token that makes it less is left out, unless it is the first.
            acceptance: the chance of acceptance of a token whose probability p falls in bin
                floor(p * len(acceptance)); None takes p itself.
            full_vocabulary: choose among all tokens although there is a draft vocabulary. Within
                one, a probability is that of a softmax over its tokens, and so a little higher.

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
        options.full_vocabulary = full_vocabulary
        if acceptance is not None:
            options.acceptance = (ctypes.c_float * len(acceptance))(*acceptance)
            options.n_acceptance = len(acceptance)
        begin = (ctypes.c_int32 * len(pending))(*pending)
        tokens = (ctypes.c_int32 * limit)()
        probabilities = (ctypes.c_float * limit)()
        n = binding.ecl_draft(
            self.handle,
            *(mask.packed(self.model.n_layer), self.model.n_layer),
            *(begin, len(pending), len(self.tokens), 0),
            *(ctypes.byref(options), tokens, probabilities),
        )
        if n == _NO_ROOM_DRAFTING:
            return Draft()
        if n < 0:
            self._raise(n)
        return Draft(tuple(tokens[:n]), tuple(probabilities[:n]))

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
            *(exit_layer, _int32_array(pending), len(pending), len(self.tokens), 0),
            *(limit, stop_probability, tokens, probabilities, _floats(states)),
        )
        if n == _NO_ROOM_DRAFTING:
            return Draft()
        if n < 0:
            self._raise(n)
        self._exit = ExitStates(exit_layer, states[: len(pending) + n])
        return Draft(tuple(tokens[:n]), tuple(probabilities[:n]), exit=self._exit)

    def _verify_exit(self, tokens: Sequence[int], exit: ExitStates) -> None:
        begin = len(self.tokens)
        reused = ctypes.c_int32()
        self.tokens.extend(tokens)
        status = binding.ecl_verify_exit(
            self.handle,
            *(exit.layer, _int32_array(tokens), _floats(exit.states), len(tokens), begin, 0),
            ctypes.byref(reused),
        )
        if status != 0:
            del self.tokens[begin:]
            self._raise(status)
        self.exits_reused += reused.value

    def step_states(
        self, tokens: Sequence[int], states: npt.NDArray[np.float32], *, outputs: Outputs = "last"
    ) -> None:
        """A ``step`` that starts from given states and not from the tokens' embeddings: with the
        first layers dropped by the mask, the rest of a step that they were run in already.

        Args:
            states: float32 [tokens, n_embd], the residual stream into the first layer that runs.

        Raises:
            as ``step`` does; BadInput for an architecture whose layers hand on more than that.
        """
        rows = self._rows(states, len(tokens))
        if len(tokens) > self.room:
            raise ContextFull(
                f"{len(tokens)} more tokens do not fit; start with a larger context (-c)"
            )
        begin = len(self.tokens)
        self.tokens.extend(tokens)
        status = binding.ecl_step_states(
            self.handle,
            *(_int32_array(tokens), _floats(rows), len(tokens), begin, 0, _OUTPUTS[outputs]),
        )
        if status != 0:
            del self.tokens[begin:]
            self._raise(status)

    def branches(
        self,
        tokens: Sequence[int],
        begin: int,
        *,
        mask: LayerMask = NO_MASK,
        states: npt.NDArray[np.float32] | None = None,
        stream: int | Literal["all"] | None = None,
        outputs: Outputs = "none",
    ) -> npt.NDArray[np.float32] | None:
        """Runs tokens after the text's first ``begin`` ones, under a mask, once for each of several
        starting states, all in one step; the text and its mask stay as they are.

        Args:
            tokens: at most as many tokens in all branches together as a prompt's batch has.
            states: float32 [branches, tokens, n_embd], what each branch starts from; None for one
                branch that starts from the tokens' embeddings.
            stream: the layer whose residual stream, as it leaves the layer, to return (the last
                layer's only with all outputs); "all" for what enters each layer.
            outputs: which logits to keep, in each branch; all branches' are kept in a row.

        Returns:
            float32 [branches, tokens, n_embd], or [n_layer, branches, tokens, n_embd] for
            "all"; [0] without a stream; None if the cache has no room for the branches.

        Raises:
            BadInput: the model's architecture cannot be served.
        """
        n, n_layer, n_embd = len(tokens), self.model.n_layer, self.model.n_embd
        n_branches = 1 if states is None else len(states)
        rows = None if states is None else self._rows(states, n_branches * n)
        shape: tuple[int, ...] = (n_branches, n, n_embd)
        code = stream if isinstance(stream, int) else binding.STREAM_NONE
        if stream == "all":
            code, shape = binding.STREAM_ALL, (n_layer, *shape)
        found = np.empty(shape if stream is not None else (0,), dtype=np.float32)
        status = binding.ecl_branches(
            self.handle,
            *(mask.packed(n_layer), n_layer, _int32_array(tokens)),
            None if rows is None else _floats(rows),
            *(n, n_branches, begin, 0, code, _OUTPUTS[outputs], _floats(found)),
        )
        if status == _NO_ROOM:
            return None
        if status != 0:
            self._raise(status)
        return found

    def _rows(self, states: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.float32]:
        rows = np.ascontiguousarray(states, dtype=np.float32).reshape(-1, self.model.n_embd)
        if len(rows) != n:
            raise ValueError(f"{len(rows)} states for {n} tokens")
        return rows

    def rollback(self, length: int) -> None:
        """Forgets everything from position ``length`` on.

        Raises:
            EdgeConflayersError: the model's memory cannot be rolled back (recurrent models), or not
                so far (sliding windows keep little more than the window).
        """
        if length >= len(self.tokens):
            return
        if not self._has_window_before(length):
            window = llama.llama_model_n_swa(self.model.handle)
            raise EdgeConflayersError(
                f"position {length} is too far back: the {window} tokens before it are not all"
                " kept; clear the session and read its text again"
            )
        if not llama.llama_memory_seq_rm(self._memory, 0, length, -1):
            raise EdgeConflayersError(
                f"architecture '{self.model.architecture}' cannot forget tokens; use --method plain"
            )
        del self.tokens[length:]

    def _has_window_before(self, position: int) -> bool:
        """Whether the cache still has all that a token at this position looks back at."""
        window = llama.llama_model_n_swa(self.model.handle)
        if window == 0 or position == 0:
            return True
        oldest = llama.llama_memory_seq_pos_min(self._memory, 0)
        return bool(oldest <= max(0, position - window + 1))

    def clear(self) -> None:
        """Forgets everything."""
        llama.llama_memory_clear(self._memory, True)
        self.tokens.clear()
        self._exit = None

    def probe(
        self, window: Sequence[int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
        """Confidences of every sub-layer's output over a window of tokens, read as a text of its
        own; the session's own sequence stays as it is.

        Returns:
            Attention and feed-forward, float32 [n_layer] each, NaN where a layer has none; None if
            the cache has no room for the window.
        """
        n_layer = self.model.n_layer
        attention = (ctypes.c_float * n_layer)()
        mlp = (ctypes.c_float * n_layer)()
        array = (ctypes.c_int32 * len(window))(*window)
        status = binding.ecl_probe(
            self.handle, array, len(window), 0, _PROBE_SEQUENCE, attention, mlp, n_layer
        )
        llama.llama_memory_seq_rm(self._memory, _PROBE_SEQUENCE, -1, -1)
        if status == _NO_ROOM:
            return None
        if status != 0:
            self._raise(status)
        return np.array(attention, dtype=np.float32), np.array(mlp, dtype=np.float32)

    def replay(
        self, mask: LayerMask, begin: int, end: int | None = None, *, stretch: int | None = None
    ) -> list[tuple[int, float]] | None:
        """What the model would draft under a mask at each position of its text, given the text
        itself before that position (teacher forcing).

        The masked model runs in parallel over the positions, after the full model's keys and values
        of everything before ``begin``. The session's text, cache and mask stay as they are; its
        last step's logits do not.

        Args:
            begin: first position to predict, at least 1.
            end: after the last; None for the end of what is in the cache.
            stretch: positions after which the masked model goes on from the full model's keys and
                values again, as in drafting after each verification; None for never. At most 32.

        Returns:
            For each position the most likely token and its probability; None if the cache has no
            room for the positions once more, or no longer has the window before them.

        Raises:
            BadInput: the model's architecture cannot be served by the mask.
            ValueError: no such positions.
        """
        end = len(self.tokens) if end is None else end
        if not 1 <= begin <= end <= len(self.tokens):
            raise ValueError(f"positions {begin} to {end} are not all in 1 to {len(self.tokens)}")
        if not self._has_window_before(begin - 1):
            return None
        size = min(stretch or _MOST_REPLAYED, _MOST_REPLAYED, self.max_outputs)
        predictions: list[tuple[int, float]] = []
        before = self._mask
        self.set_mask(mask)
        try:
            llama.llama_memory_seq_cp(self._memory, 0, _PROBE_SEQUENCE, 0, begin - 1)
            for first in range(begin - 1, end - 1, size):
                if stretch is not None and first >= begin:
                    llama.llama_memory_seq_rm(self._memory, _PROBE_SEQUENCE, -1, -1)
                    llama.llama_memory_seq_cp(self._memory, 0, _PROBE_SEQUENCE, 0, first)
                last = min(first + size, end - 1)
                part = (ctypes.c_int32 * (last - first))(*self.tokens[first:last])
                status = binding.ecl_step(
                    self.handle, part, len(part), first, _PROBE_SEQUENCE, binding.OUTPUTS_ALL
                )
                if status == _NO_ROOM:
                    return None
                if status != 0:
                    self._raise(status)
                predictions += [self.best(i) for i in range(len(part))]
        finally:
            llama.llama_memory_seq_rm(self._memory, _PROBE_SEQUENCE, -1, -1)
            self.set_mask(before)
        return predictions

    def probe_stream(self, layer: int, where: int, n_tokens: int) -> npt.NDArray[np.float32]:
        """The residual stream around a layer in the last probe.

        Args:
            where: BEFORE_ATTENTION, AFTER_ATTENTION or AFTER_FFN of ``binding``.
            n_tokens: of the probe's window.

        Returns:
            float32 [tokens, n_embd]; after the last layer's attention only the last token is left.
        """
        size = n_tokens * self.model.n_embd
        stream = (ctypes.c_float * size)()
        rows = binding.ecl_probe_stream(self.handle, layer, where, stream, size)
        if rows < 0:
            raise EdgeConflayersError(self._last_error())
        return np.array(stream, dtype=np.float32).reshape(-1, self.model.n_embd)[:rows]

    def graph_stats(self) -> GraphStats:
        built, spent, alive = ctypes.c_int64(), ctypes.c_int64(), ctypes.c_int32()
        binding.ecl_graph_stats(
            self.handle, ctypes.byref(built), ctypes.byref(spent), ctypes.byref(alive)
        )
        return GraphStats(built.value, spent.value / 1e6, alive.value)

    def save(self, path: Path) -> None:
        """Writes the sequence (tokens, keys, values) to a file, with its SHA-256 at the end.

        Raises:
            EdgeConflayersError: the file cannot be written.
        """
        tokens = (ctypes.c_int32 * len(self.tokens))(*self.tokens)
        part = path.with_name(path.name + ".part")
        saved = llama.llama_state_seq_save_file(
            self.handle, str(part).encode(), 0, tokens, len(self.tokens)
        )
        try:
            if saved == 0:
                raise OSError
            digest = _sha256(part)
            with part.open("ab") as stream:
                stream.write(digest)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise EdgeConflayersError(
                f"the session cannot be written to {path}; check the folder"
            ) from None

    def load(self, path: Path) -> None:
        """Goes on from a file that ``save`` wrote; the next step needs at least one new token.

        Raises:
            BadInput: the file is damaged or of another model or cache type.
        """
        tokens = (ctypes.c_int32 * self.n_ctx)()
        count = ctypes.c_size_t()
        self.clear()
        # llama.cpp ends the process over a file that was cut off.
        if not _is_whole(path) or not llama.llama_state_seq_load_file(
            self.handle, str(path).encode(), 0, tokens, self.n_ctx, ctypes.byref(count)
        ):
            self.clear()
            raise BadInput(f"{path} is not a saved session of this model; start without it")
        self.tokens = list(tokens[: count.value])

    def close(self) -> None:
        """Frees the cache."""
        if self._context is not None:
            llama.llama_free(self._context)
            self._context = None

    def _last_error(self) -> str:
        return str(binding.ecl_last_error(self.handle).decode("utf-8", errors="replace"))

    def _raise(self, status: int) -> None:
        why = self._last_error()
        if status == _NO_ROOM:
            raise ContextFull(
                "the KV cache has no room for this step; start with a larger context (-c)"
            )
        if "a draft vocabulary" in why:
            raise BadInput(f"{why}; draft without one")
        if "cannot be served" in why:
            raise BadInput(f"{why}; use --method plain")
        raise EdgeConflayersError(f"the model could not be run: {why or f'code {status}'}")


def _int32_array(values: Sequence[int]) -> Any:
    return (ctypes.c_int32 * len(values))(*values)


def _floats(values: npt.NDArray[np.float32]) -> Any:
    return values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def _sha256(path: Path, length: int | None = None) -> bytes:
    """Of a file's first bytes, or of all."""
    digest = hashlib.sha256()
    left = path.stat().st_size if length is None else length
    with path.open("rb") as stream:
        while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.digest()


def _is_whole(path: Path) -> bool:
    """Whether a file ends with the SHA-256 of what is before it."""
    try:
        length = path.stat().st_size - hashlib.sha256().digest_size
        with path.open("rb") as stream:
            stream.seek(max(length, 0))
            return length > 0 and stream.read() == _sha256(path, length)
    except OSError:
        return False


def _context_size(model: Model, wanted: int | None) -> int:
    if wanted is None:
        return min(_DEFAULT_CONTEXT, model.n_ctx_train)
    if wanted < 0:
        raise BadInput(f"a context of {wanted} tokens makes no sense; give a positive number (-c)")
    return wanted or model.n_ctx_train


def kv_cache_bytes(model: Model, n_ctx: int, kv_type: KVType = "f16") -> int:
    """Bytes of keys and values for n_ctx tokens if every layer keeps all of them (sliding windows
    keep fewer)."""
    meta, arch = model.metadata, model.architecture

    def largest(key: str, default: int) -> int:
        values = meta.get(f"{arch}.{key}", "").strip("[]").split(",")
        numbers: Collection[int] = [int(v) for v in values if v.strip().isdigit()]
        return max(numbers, default=default)

    heads = largest("attention.head_count", 1)
    heads_kv = largest("attention.head_count_kv", heads)
    head_dim = model.n_embd // max(heads, 1)  # recurrent models have none
    key = largest("attention.key_length", head_dim)
    value = largest("attention.value_length", head_dim)
    return int(n_ctx * model.n_layer * heads_kv * (key + value) * _KV_TYPES[kv_type][1])


def _check_memory(model: Model, n_ctx: int, kv_type: KVType) -> None:
    free = machine.available_memory()
    needed = kv_cache_bytes(model, n_ctx, kv_type)
    on_gpu = model.gpu_layers != 0 and llama.llama_supports_gpu_offload()
    if free is None or on_gpu or "sliding_window" in " ".join(model.metadata):
        return
    if needed > free:
        fits = int(n_ctx * free / needed) // 1024 * 1024
        raise BadInput(
            f"a context of {n_ctx} tokens needs {needed / 2**30:.1f} GiB,"
            f" {free / 2**30:.1f} GiB are free; try -c {fits} or less"
        )
