"""A text in a model's KV cache: steps over it, their logits, rollback."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers import machine
from edge_conflayers.engine import binding
from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.model_options import KV_TYPES
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session.arrays import int32_array
from edge_conflayers.engine.session.checks import check_prompt, check_step
from edge_conflayers.engine.session.context import Context
from edge_conflayers.engine.session.kv_cache import KVType, check_memory, context_for
from edge_conflayers.engine.session.mask import NO_MASK, LayerMask
from edge_conflayers.engine.session.read_batches import ReadBatches, shared_tokens
from edge_conflayers.engine.session.results import GraphStats, Outputs
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.limits import MOST_INT32, check_number

OUTPUT_CODES: dict[Outputs, int] = {
    "none": binding.OUTPUTS_NONE,
    "last": binding.OUTPUTS_LAST,
    "all": binding.OUTPUTS_ALL,
}
SIDE_SEQUENCE = 1
"""The cache's sequence for tokens that are run beside the text, which is sequence 0."""


class CachedText(Closing):
    """A text in a KV cache of its own.

    Args:
        model: must stay open as long as the session.
        n_ctx: size of the context in tokens, as ``context_for``'s ``wanted``.
        threads: CPU threads; None for the machine's physical cores, at most its hardware threads.
        flash_attention: True, False, or None to let llama.cpp choose.
        kv_type: type of keys and values in the cache; None for the model's options.
        offload_kv: whether the KV cache of offloaded layers is on the GPU.
        batch: most tokens of one step; prompts are read in batches of so many.
        max_outputs: most tokens of one step whose logits are kept; memory is reserved for them.

    Attributes:
        tokens: the text in the cache, in order.
        read_batches: what of it was read in whole batches.
        kv_type: of keys and values in the cache; both, if they differ.

    Raises:
        BadInput: a number out of range, a context that does not fit in memory, or settings that
            exclude each other.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int | None = None,
        threads: int | None = None,
        flash_attention: bool | None = None,
        kv_type: KVType | None = None,
        offload_kv: bool = True,
        batch: int = 512,
        max_outputs: int = 32,
    ) -> None:
        for name, number, least in (
            ("ctx-size (-c)", n_ctx, 0),
            ("batch", batch, 1),
            ("max_outputs", max_outputs, 1),
        ):
            if number is not None:
                check_number(name, number, least, MOST_INT32, whole=True)
        self.model = model
        self.tokens: list[int] = []
        self.n_ctx = context_for(model, 0, 0, n_ctx)
        self.flash_attention = flash_attention
        type_k, type_v = kv_type or model.options.type_k, kv_type or model.options.type_v
        self.kv_type = type_k if type_k == type_v else f"{type_k} {type_v}"
        self.threads = machine.threads_to_use(threads)
        self._mask = NO_MASK
        self._batch = min(batch, self.n_ctx)
        self.read_batches = ReadBatches(self._batch)
        self.max_outputs = min(max_outputs, self._batch)
        check_memory(model, self.n_ctx, kv_type)

        params = llama.llama_context_default_params()
        params.n_ctx = self.n_ctx
        params.n_batch = params.n_ubatch = self._batch
        params.n_seq_max = 1
        params.n_outputs_max = self.max_outputs
        params.kv_unified = True  # lets the side sequence use the same cache
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = {None: -1, False: 0, True: 1}[flash_attention]
        params.type_k, params.type_v = KV_TYPES[type_k][0], KV_TYPES[type_v][0]
        params.offload_kqv = offload_kv
        params.swa_full = False
        params.no_perf = True
        self.context = Context(model, params)
        self.n_ctx = min(self.n_ctx, llama.llama_n_ctx(self.handle))

    @property
    def handle(self) -> Any:
        """llama.cpp's own pointer.

        Raises:
            EdgeConflayersError: the session is closed.
        """
        return self.context.handle

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

    @property
    def mask(self) -> LayerMask:
        """The sub-layers that steps leave out."""
        return self._mask

    def set_mask(self, mask: LayerMask) -> None:
        """Sets the sub-layers that the next steps leave out.

        Raises:
            BadInput: the model's architecture cannot be served by a mask.
        """
        if mask == self._mask:
            return
        bits = mask.packed(self.model.n_layer) if mask else None
        self.context.check(binding.ecl_set_mask(self.handle, bits, self.model.n_layer))
        self._mask = mask

    def step(self, tokens: Sequence[int], *, outputs: Outputs = "last") -> None:
        """Runs the model over the next tokens and keeps them in the cache.

        Args:
            tokens: at most as many as there is room for.
            outputs: the tokens whose logits are kept.

        Raises:
            ContextFull: no room; the text is unchanged.
            BadInput: the model's architecture cannot be served by the mask.
            EdgeConflayersError: the step failed, or would keep more logits than ``max_outputs``.
        """
        self._decode(binding.ecl_step, tokens, outputs)

    def _decode(self, decode: Any, tokens: Sequence[int], outputs: Outputs) -> None:
        check_step(self, len(tokens), outputs)
        array, n = int32_array(tokens), len(tokens)
        self.append(
            tokens, lambda begin: decode(self.handle, array, n, begin, 0, OUTPUT_CODES[outputs])
        )

    def append(self, tokens: Sequence[int], run: Callable[[int], int]) -> None:
        """Appends tokens to the text by a step of any kind.

        Args:
            tokens: the tokens that the cache gains by the step.
            run: makes the step, given the position of its first token, and returns its status.

        Raises:
            what ``Context.fail`` raises for the status; the text is then unchanged.
        """
        begin = len(self.tokens)
        # Noted before the step, so that an interrupt right after it loses none of the text.
        self.tokens.extend(tokens)
        status = run(begin)
        if status != 0:
            del self.tokens[begin:]
            self.context.fail(status)

    def read(
        self, tokens: Sequence[int], *, before_batch: Callable[[], None] = lambda: None
    ) -> None:
        """See ``TextSession.read``. After an interrupt between batches, the session holds the
        batches that were read.

        Raises:
            ContextFull: the prompt does not fit; nothing was read.
        """
        check_prompt(self, len(tokens))
        for begin in range(0, len(tokens), self._batch):
            before_batch()
            part = tokens[begin : begin + self._batch]
            last = begin + len(part) == len(tokens)
            at = len(self.tokens)
            self._decode(binding.ecl_read, part, "last" if last else "none")
            if not self._mask:
                self.read_batches.read(at, len(part))

    def logits(self, index: int = -1) -> npt.NDArray[np.float32]:
        """The logits of one kept output of the last step.

        Args:
            index: of the output; negative from the end.

        Returns:
            float32 [n_vocab], not copied, valid until the next step.
        """
        pointer = llama.llama_get_logits_ith(self.handle, index)
        if not pointer:
            raise EdgeConflayersError(f"the last step kept no logits for token {index}")
        return np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab,))

    def logits_address(self, index: int) -> int | None:
        """Where those logits are in memory; None if none were kept."""
        address: int | None = binding.logits_address(self.handle, index)
        return address

    def argmax(self, index: int) -> int:
        """The most likely token of one kept output of the last step."""
        return self.context.check(binding.ecl_argmax(self.handle, index, None))

    def best(self, index: int = -1) -> tuple[int, float]:
        """The most likely token of one kept output of the last step, and its probability."""
        probability = ctypes.c_float()
        token = binding.ecl_argmax(self.handle, index, ctypes.byref(probability))
        return self.context.check(token), probability.value

    def top_k(self, index: int, k: int) -> tuple[list[int], list[float]]:
        """The ``k`` most likely tokens of one kept output of the last step, in descending order
        (of equal logits, the lower token first), and their softmax probabilities.

        Raises:
            EdgeConflayersError: the last step kept no logits for that output.
        """
        k = max(0, min(k, self.model.n_vocab))
        tokens = (ctypes.c_int32 * k)()
        probabilities = (ctypes.c_float * k)()
        n = self.context.check(binding.ecl_top_k(self.handle, index, k, tokens, probabilities))
        return tokens[:n], probabilities[:n]

    def draw(self, index: int, samplers: binding.Samplers) -> int:
        """Draws the next token of the text by one kept output of the last step.

        Raises:
            BadInput: a grammar allows no token.
            BaseException: what a grammar that calls back into Python has raised.
        """
        token = int(binding.ecl_draw(self.handle, index, ctypes.byref(samplers)))
        if token < 0:
            samplers.check()
            self.context.fail(token)
        return token

    def rollback(self, length: int) -> None:
        """Removes everything from position ``length`` on.

        Raises:
            EdgeConflayersError: the model's memory cannot be rolled back (recurrent models), or not
                so far (sliding windows keep little more than the window).
        """
        if length >= len(self.tokens):
            return
        if not self.has_window_before(length):
            window = llama.llama_model_n_swa(self.model.handle)
            raise EdgeConflayersError(
                f"position {length} is too far back: the {window} tokens before it are not all"
                " kept; clear the session and read its text again"
            )
        if not llama.llama_memory_seq_rm(self.context.memory, 0, length, -1):
            raise EdgeConflayersError(
                f"architecture '{self.model.architecture}' cannot forget tokens; use --method plain"
            )
        del self.tokens[length:]
        self.read_batches.forget(length)

    def rewind(self, length: int) -> None:
        """Forgets everything from position ``length`` on, whatever that takes: where the model's
        memory cannot be rolled back so far, the text before is read again."""
        try:
            self.rollback(length)
        except EdgeConflayersError:
            kept = self.tokens[:length]
            self.clear()
            self.read(kept)

    def held_prefix(self, prompt: Sequence[int], *, exact: bool = True) -> int:
        """See ``KeepsText.held_prefix``; nothing where the model's memory cannot be rolled back
        so far."""
        held = self.read_batches.kept if exact else shared_tokens
        kept = held(self.tokens, prompt)
        return kept if self.model.forgets and self.has_window_before(kept) else 0

    def keep_prefix(self, prompt: Sequence[int], *, exact: bool = True) -> int:
        """See ``KeepsText.keep_prefix``."""
        kept = self.held_prefix(prompt, exact=exact)
        if kept > 0:
            self.rollback(kept)
        else:
            self.clear()
        return kept

    def has_window_before(self, position: int) -> bool:
        """Whether the cache still holds all that a token at this position attends to."""
        window = llama.llama_model_n_swa(self.model.handle)
        if window == 0 or position == 0:
            return True
        oldest = llama.llama_memory_seq_pos_min(self.context.memory, 0)
        return bool(oldest <= max(0, position - window + 1))

    def clear(self) -> None:
        """Removes the whole text."""
        llama.llama_memory_clear(self.context.memory, True)
        self.tokens.clear()
        self.read_batches.forget(0)

    def graph_stats(self) -> GraphStats:
        """Counts of compute graphs so far."""
        built, spent, alive = ctypes.c_int64(), ctypes.c_int64(), ctypes.c_int32()
        self.context.check(
            binding.ecl_graph_stats(
                self.handle, ctypes.byref(built), ctypes.byref(spent), ctypes.byref(alive)
            )
        )
        return GraphStats(built.value, spent.value / 1e6, alive.value)

    def close(self) -> None:
        """Frees the cache."""
        self.context.close()
