"""A GGUF model's layers in torch, to train them: states after chosen layers, logits from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edge_conflayers.onnx.architecture import Architecture
from edge_conflayers.onnx.gguf_file import GgufFile
from edge_conflayers.onnx.rope import Rope

Tensor = Any
"""A torch.Tensor; mypy does not see torch, which is not installed everywhere."""

Tensors = dict[str, Tensor]


def read_tensors(file: GgufFile) -> Tensors:
    """All tensors of a model by their names in the file, dequantized to float32."""
    return {name: torch.from_numpy(each.values()) for name, each in file.tensors.items()}


@dataclass(frozen=True)
class Adapter:
    """A low-rank change of a matrix (LoRA, arXiv 2106.09685): W + scale * up @ down.

    Attributes:
        down: float32 [rank, inputs].
        up: float32 [outputs, rank].
        scale: alpha / rank.
    """

    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True)
class Network:
    """The computation of ``onnx.architecture.Architecture``.

    Attributes:
        architecture: the model's hyperparameters.
        tensors: its weights by their names in a GGUF file.
        adapters: changes of some matrices, by the same names.
    """

    architecture: Architecture
    tensors: Tensors
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    _tables: dict[tuple[Rope, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def states(
        self,
        tokens: Tensor,
        exits: Sequence[int],
        dropped: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """The residual stream at some exits, ascending: float32 [texts, length, n_embd] each.

        Args:
            tokens: int64 [texts, length], padded at the end.
            exits: layers that run before each.
            dropped: for each layer, which texts leave it out: bool [texts].
        """
        x = functional.embedding(tokens, self.tensors["token_embd.weight"])
        x = x * self.architecture.embedding_scale
        found = []
        for layer in range(max(exits)):
            keep = None if dropped is None else torch.nonzero(~dropped[layer]).flatten()
            if keep is None or len(keep) == len(x):
                x = self._layer(layer, x)
            elif len(keep):
                x = x.index_copy(0, keep, self._layer(layer, x[keep]))
            if layer + 1 in exits:
                found.append(x)
        return found

    def logits(self, states: Tensor) -> Tensor:
        """The model's own norm and head after any layer: float32 [..., n_vocab]."""
        head = "output.weight" if "output.weight" in self.tensors else "token_embd.weight"
        normed = self._norm(states, "output_norm")
        logits = functional.linear(normed, self.tensors[head], self.tensors.get("output.bias"))
        logits = logits.float()
        if cap := self.architecture.logit_cap:
            logits = torch.tanh(logits / cap) * cap
        return logits

    def merged(self) -> Tensors:
        """All weights, with what the adapters change."""
        changed = {
            name: self.tensors[name] + each.scale * (each.up @ each.down)
            for name, each in self.adapters.items()
        }
        return {name: each.detach() for name, each in (self.tensors | changed).items()}

    def _layer(self, layer: int, x: Tensor) -> Tensor:
        block = f"blk.{layer}"
        y = self._attention(layer, self._norm(x, f"{block}.attn_norm"))
        x = x + self._after(y, f"{block}.post_attention_norm")
        y = self._mlp(block, self._norm(x, f"{block}.ffn_norm"))
        return x + self._after(y, f"{block}.post_ffw_norm")

    def _attention(self, layer: int, h: Tensor) -> Tensor:
        wanted, block = self.architecture, f"blk.{layer}"
        q, k, v = (
            self._linear(h, f"{block}.attn_{part}").unflatten(-1, (-1, wanted.head_dim))
            for part in "qkv"
        )
        if wanted.qk_norm:
            q, k = self._norm(q, f"{block}.attn_q_norm"), self._norm(k, f"{block}.attn_k_norm")
        q, k = self._rotated(q, layer), self._rotated(k, layer)
        groups = wanted.n_head // wanted.n_head_kv
        k, v = (each.repeat_interleave(groups, dim=2) for each in (k, v))
        length, window = h.shape[1], wanted.windows[layer]
        mask = None
        if 0 < window < length:
            distance = torch.arange(length, device=h.device)
            distance = distance[:, None] - distance[None, :]
            mask = (distance >= 0) & (distance < window)
        seen = functional.scaled_dot_product_attention(
            *(each.transpose(1, 2) for each in (q, k, v)),
            attn_mask=mask,
            is_causal=mask is None,
            scale=wanted.attention_scale,
        )
        return self._linear(seen.transpose(1, 2).flatten(2), f"{block}.attn_output")

    def _mlp(self, block: str, h: Tensor) -> Tensor:
        gate, up = self._linear(h, f"{block}.ffn_gate"), self._linear(h, f"{block}.ffn_up")
        if self.architecture.activation == "silu":
            gate = functional.silu(gate)
        else:
            gate = functional.gelu(gate, approximate="tanh")
        return self._linear(gate * up, f"{block}.ffn_down")

    def _after(self, y: Tensor, norm: str) -> Tensor:
        return self._norm(y, norm) if self.architecture.post_norm else y

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight = self.tensors[f"{name}.weight"]
        return functional.rms_norm(x.float(), weight.shape, weight, self.architecture.epsilon)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        bias = self.tensors.get(f"{name}.bias")
        y = functional.linear(x, self.tensors[f"{name}.weight"], bias)
        adapter = self.adapters.get(f"{name}.weight")
        if adapter is None:
            return y
        low = functional.linear(x, adapter.down)
        return y + adapter.scale * functional.linear(low, adapter.up)

    def _rotated(self, x: Tensor, layer: int) -> Tensor:
        """Queries or keys [texts, length, heads, head_dim], rotated. The order of a head's
        dimensions changes, for queries and keys alike, so that their products stay."""
        cosines, sines = self._table(self.architecture.ropes[layer], x)
        if self.architecture.pairs_adjacent:
            first, second = x[..., 0::2], x[..., 1::2]
        else:
            first, second = x.chunk(2, dim=-1)
        turned = (first * cosines - second * sines, first * sines + second * cosines)
        return torch.cat(turned, dim=-1).to(x.dtype)

    def _table(self, rope: Rope, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for the positions of x: float32 [length, 1, head_dim / 2]."""
        length = x.shape[1]
        key = (rope, length)
        if key not in self._tables:
            chunks = list(zip(*rope.table(length), strict=True))
            cosines, sines = (
                torch.from_numpy(np.concatenate(part))[:, None].to(x.device) for part in chunks
            )
            self._tables[key] = (cosines, sines)
        return self._tables[key]
