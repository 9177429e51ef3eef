"""One sequence of a model: its KV cache, its steps, its way back."""

from __future__ import annotations

import ctypes
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
from edge_conflayers.draft import Draft
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
        if outputs == "all" and len(tokens) > self.max_outputs:
            raise EdgeConflayersError(
                f"a step keeps the logits of at most {self.max_outputs} tokens, not {len(tokens)};"
                " take fewer, or open the session with more max_outputs"
            )
        if len(tokens) > self.room:
            raise ContextFull(
                f"{len(tokens)} more tokens do not fit: {len(self)} of {self.n_ctx} are taken;"
                " start with a larger context (-c)"
            )
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        begin = len(self.tokens)
        self.tokens.extend(
            tokens
        )  # before the step, so that an interrupt right after it loses nothing
        status = decode(self.handle, array, len(tokens), begin, 0, _OUTPUTS[outputs])
        if status != 0:
            del self.tokens[begin:]
            self._raise(status)

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

    def verify(self, pending: Sequence[int], draft: Draft) -> None:
        """One step of the full model over the end of the text and what was drafted to follow it;
        the logits of ``[*pending, *draft.tokens]`` are kept.

        Raises:
            as ``step`` does.
        """
        if not draft.is_chain:
            raise EdgeConflayersError("trees of drafted tokens cannot be verified here")
        self.step([*pending, *draft.tokens], outputs="all")

    def draft(
        self, mask: LayerMask, pending: Sequence[int], *, limit: int, stop_probability: float
    ) -> Draft:
        """Drafts greedily under a mask, to follow ``pending``, which is not in the cache yet; the
        cache and the session's mask stay as they are.

        Args:
            limit: most tokens to draft.
            stop_probability: a token less likely than this is the last of the draft.

        Raises:
            BadInput: the model's architecture cannot be served by the mask.
        """
        limit = min(limit, self.room - len(pending) + 1)
        if limit <= 0:
            return Draft()
        begin = (ctypes.c_int32 * len(pending))(*pending)
        tokens = (ctypes.c_int32 * limit)()
        probabilities = (ctypes.c_float * limit)()
        n = binding.ecl_draft(
            self.handle,
            *(mask.packed(self.model.n_layer), self.model.n_layer),
            *(begin, len(pending), len(self.tokens), 0, limit, stop_probability),
            *(tokens, probabilities),
        )
        if n == _NO_ROOM_DRAFTING:
            return Draft()
        if n < 0:
            self._raise(n)
        return Draft(tuple(tokens[:n]), tuple(probabilities[:n]))

    def rollback(self, length: int) -> None:
        """Forgets everything from position ``length`` on.

        Raises:
            EdgeConflayersError: the model's memory cannot be rolled back (recurrent models), or not
                so far (sliding windows keep little more than the window).
        """
        if length >= len(self.tokens):
            return
        window = llama.llama_model_n_swa(self.model.handle)
        needed = max(0, length - window + 1)
        if window and llama.llama_memory_seq_pos_min(self._memory, 0) > needed and length > 0:
            raise EdgeConflayersError(
                f"position {length} is too far back: the {window} tokens before it are not all"
                " kept; clear the session and read its text again"
            )
        if not llama.llama_memory_seq_rm(self._memory, 0, length, -1):
            raise EdgeConflayersError(
                f"architecture '{self.model.architecture}' cannot forget tokens; use --method plain"
            )
        del self.tokens[length:]

    def clear(self) -> None:
        """Forgets everything."""
        llama.llama_memory_clear(self._memory, True)
        self.tokens.clear()

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
        if "cannot be served" in why:
            raise BadInput(f"{why}; use --method plain")
        raise EdgeConflayersError(f"the model could not be run: {why or f'code {status}'}")


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
