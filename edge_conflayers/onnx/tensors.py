"""A model's weights by name, each given a place in the weights' file when the graph first asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers.errors import BadInput
from edge_conflayers.onnx.architecture import Architecture
from edge_conflayers.onnx.external_data import DataFile, Region
from edge_conflayers.onnx.gguf_file import Floats, GgufFile
from edge_conflayers.onnx.rope import Rope
from edge_conflayers.onnx.weights import Planned, Precision, Rows, check_type, choose_form, plan


class Tensors:
    """The weights that a graph is built of.

    Args:
        file: the GGUF model.
        architecture: its hyperparameters.
        precision: of what is written.
        turned: keep matrices by columns.
        data: the file that they go to.

    Attributes:
        data: as above.
        head: the LM head's name; that of the embedding, where the file ties them.

    Raises:
        BadInput: a tensor is missing, of a wrong shape or type, or not known.
    """

    def __init__(
        self,
        file: GgufFile,
        architecture: Architecture,
        precision: Precision,
        turned: bool,
        data: DataFile,
    ) -> None:
        self.data = data
        self._file = file
        self._architecture = architecture
        self._precision = precision
        self._turned = turned
        self._planned: dict[tuple[tuple[str, ...], bool], Planned] = {}
        self.head = "output" if "output.weight" in file.tensors else "token_embd"
        self._check()

    def _check(self) -> None:
        wanted = dict(_shapes(self._architecture, self._file))
        for name, shape in wanted.items():
            tensor = self._file.tensors.get(name)
            if tensor is None:
                raise BadInput(f"{self._file.path} has no {name}; use an undamaged GGUF model")
            if tensor.shape != shape:
                raise BadInput(
                    f"{self._file.path}: {name} is {list(tensor.shape)}, but must be"
                    f" {list(shape)}; use an undamaged GGUF model"
                )
            check_type(tensor, self._precision)
        unknown = self._file.tensors.keys() - wanted.keys()
        if unknown:
            raise BadInput(
                f"{self._file.path} can't be exported: it has {min(unknown)}, which no"
                f" {self._architecture.name} model that is supported has"
            )

    def vector(self, name: str) -> Floats:
        return self._file.tensors[name].values()

    def bias(self, *names: str) -> Floats | None:
        """The biases of some matrices, one after the other; None if there are none."""
        if f"{names[0]}.bias" not in self._file.tensors:
            return None
        parts = []
        for name in names:
            values = self.vector(f"{name}.bias")
            order = self._order(name, len(values))
            parts.append(values if order is None else values[order])
        return np.concatenate(parts)

    def alike(self, names: Sequence[str]) -> bool:
        """Whether some matrices of the same inputs can be one, one below the other."""
        tensors = [self._file.tensors[f"{name}.weight"] for name in names]
        biased = {f"{name}.bias" in self._file.tensors for name in names}
        return len({tensor.type for tensor in tensors}) == 1 and len(biased) == 1

    def embedding(self) -> Planned:
        """The tokens' embeddings. If the LM head is the same matrix, they are shared, but for
        quants of four bits kept by columns, which no operator takes single columns of."""
        kept = choose_form(self._file.tensors["token_embd.weight"].type, self._precision, True)
        four = kept.format is not None and kept.format.bits == 4
        if self.head != "token_embd" or four:
            return self._matrix(("token_embd",), turned=False)
        return self.matrix("token_embd")

    def matrix(self, *names: str) -> Planned:
        """A matrix, or several one below the other, with its place in the weights' file."""
        return self._matrix(names, self._turned)

    def _matrix(self, names: tuple[str, ...], turned: bool) -> Planned:
        if (names, turned) not in self._planned:
            tensors = tuple(self._file.tensors[f"{name}.weight"] for name in names)
            orders = tuple(
                self._order(name, tensor.rows) for name, tensor in zip(names, tensors, strict=True)
            )
            form = choose_form(tensors[0].type, self._precision, turned)
            label = "+".join([names[0], *(name.rsplit(".", 1)[-1] for name in names[1:])])
            label += ".rows" if turned != self._turned else ""
            self._planned[names, turned] = plan(self.data, label, Rows(tensors, orders), form)
        return self._planned[names, turned]

    def _order(self, name: str, rows: int) -> npt.NDArray[np.intp] | None:
        """The order in which rows of queries and keys come, so that the first half of a head is
        rotated with the second."""
        if not self._architecture.pairs_adjacent or not name.endswith((".attn_q", ".attn_k")):
            return None
        size = self._architecture.head_dim
        heads = np.arange(rows, dtype=np.intp).reshape(rows // size, size // 2, 2)
        order: npt.NDArray[np.intp] = heads.swapaxes(1, 2).reshape(-1)
        return order

    def rope(self, rope: Rope, positions: int) -> tuple[Region, ...]:
        """Room for the cosines and sines of a rotation."""
        dtype = np.float16 if self._precision == "fp16" else np.float32
        size = positions * rope.dimensions // 2 * np.dtype(dtype).itemsize

        def chunks() -> Iterator[tuple[npt.NDArray[Any], ...]]:
            for cosines, sines in rope.table(positions):
                yield cosines.astype(dtype), sines.astype(dtype)

        return self.data.plan([size, size], chunks)


def _shapes(wanted: Architecture, file: GgufFile) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors that a model has to have, and those it may have if it has them."""
    n_embd, head = wanted.n_embd, wanted.head_dim
    n_q, n_kv = wanted.n_head * head, wanted.n_head_kv * head
    optional: list[tuple[str, tuple[int, ...]]] = [("output.weight", (wanted.n_vocab, n_embd))]
    yield "token_embd.weight", (wanted.n_vocab, n_embd)
    yield "output_norm.weight", (n_embd,)
    if wanted.name == "llama":
        optional.append(("rope_freqs.weight", (wanted.head_dim // 2,)))
    if wanted.name == "qwen2":
        optional.append(("output.bias", (wanted.n_vocab,)))
    for layer in range(wanted.n_layer):
        block = f"blk.{layer}"
        up = file.tensors.get(f"{block}.ffn_up.weight")
        n_ff = 0 if up is None else up.rows
        yield f"{block}.attn_norm.weight", (n_embd,)
        for part, rows in (("q", n_q), ("k", n_kv), ("v", n_kv)):
            yield f"{block}.attn_{part}.weight", (rows, n_embd)
            optional.append((f"{block}.attn_{part}.bias", (rows,)))
        yield f"{block}.attn_output.weight", (n_embd, n_q)
        yield f"{block}.ffn_norm.weight", (n_embd,)
        yield f"{block}.ffn_gate.weight", (n_ff, n_embd)
        yield f"{block}.ffn_up.weight", (n_ff, n_embd)
        yield f"{block}.ffn_down.weight", (n_embd, n_ff)
        if wanted.qk_norm:
            yield f"{block}.attn_q_norm.weight", (head,)
            yield f"{block}.attn_k_norm.weight", (head,)
        if wanted.post_norm:
            yield f"{block}.post_attention_norm.weight", (n_embd,)
            yield f"{block}.post_ffw_norm.weight", (n_embd,)
        if wanted.name == "llama":
            optional += [
                (f"{block}.attn_output.bias", (n_embd,)),
                (f"{block}.ffn_gate.bias", (n_ff,)),
                (f"{block}.ffn_up.bias", (n_ff,)),
                (f"{block}.ffn_down.bias", (n_embd,)),
            ]
    yield from ((name, shape) for name, shape in optional if name in file.tensors)
