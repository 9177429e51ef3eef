"""Weights of a GGUF file as a graph's tensors: which form each takes, and its bytes, in pieces.

A matrix is kept by rows, one for each output, as GGUF has it ("ort"), or by columns, one row for
each input, as ONNX's MatMul wants it ("standard").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType
from onnx import TensorProto

from edge_conflayers.errors import BadInput
from edge_conflayers.onnx.blocks import FORMATS, BlockFormat, Blocks, pack_nibbles
from edge_conflayers.onnx.external_data import DataFile, Region
from edge_conflayers.onnx.gguf_file import CHUNK_ELEMENTS, Bytes, Floats, GgufTensor, dequantize

Precision = Literal["keep", "fp32", "fp16"]
Array = npt.NDArray[Any]

_KEPT = {
    GGMLQuantizationType.F32: TensorProto.FLOAT,
    GGMLQuantizationType.F16: TensorProto.FLOAT16,
    GGMLQuantizationType.BF16: TensorProto.BFLOAT16,
}
_COLUMNS = 256  # that are turned at a time: a superblock of GGUF's k-quants


def check_type(tensor: GgufTensor, precision: Precision) -> None:
    """Refuses a tensor whose type can't be exported.

    Raises:
        BadInput: neither kept, nor known to the ``gguf`` package.
    """
    kind = tensor.type
    if kind in FORMATS or kind in _KEPT:
        return
    try:
        _, size = gguf.GGML_QUANT_SIZES[kind]
        gguf.quants.dequantize(np.zeros((1, size), dtype=np.uint8), kind)
    except NotImplementedError:
        raise BadInput(
            f"{tensor.path}: {tensor.name} is {kind.name}, which can't be read;"
            " use a file of another quantization"
        ) from None
    if precision == "keep":
        raise BadInput(
            f"{tensor.path}: {tensor.name} is {kind.name}, which ONNX can't hold;"
            " export with `--precision fp32` or `fp16`, or use a file of another quantization"
        )


@dataclass(frozen=True)
class Rows:
    """Rows of one tensor or of several, one after the other.

    Attributes:
        tensors: of the same type and number of columns.
        orders: for each tensor, in which order its rows come; None for its own.
    """

    tensors: tuple[GgufTensor, ...]
    orders: tuple[npt.NDArray[np.intp] | None, ...]

    @property
    def type(self) -> GGMLQuantizationType:
        return self.tensors[0].type

    @property
    def rows(self) -> int:
        return sum(tensor.rows for tensor in self.tensors)

    @property
    def columns(self) -> int:
        return self.tensors[0].columns

    def chunks(self, elements: int = CHUNK_ELEMENTS) -> Iterator[Bytes]:
        """Stored rows, some at a time: uint8 [some, row_bytes]."""
        for tensor, order in zip(self.tensors, self.orders, strict=True):
            if order is not None:
                yield tensor.read()[order]
                continue
            step = max(1, elements // tensor.columns)
            for begin in range(0, tensor.rows, step):
                yield tensor.read(begin, min(begin + step, tensor.rows))

    def turned(self) -> Iterator[Bytes]:
        """All rows, some columns at a time: uint8 [rows, bytes of some columns]."""
        everything = np.empty((self.rows, self.tensors[0].row_bytes), dtype=np.uint8)
        begin = 0
        for rows in self.chunks():
            everything[begin : begin + len(rows)] = rows
            begin += len(rows)
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        step = max(_COLUMNS // block, 1) * size
        for begin in range(0, everything.shape[1], step):
            yield everything[:, begin : begin + step]


@dataclass(frozen=True)
class Form:
    """How a matrix is written.

    Attributes:
        stored: ONNX type of its elements. Quants kept by rows are UINT8, two of four bits in one;
            by columns INT8 or INT4, from which zero is already taken.
        format: for quants.
        turned: kept by columns.
    """

    stored: int
    format: BlockFormat | None
    turned: bool


def choose_form(type: GGMLQuantizationType, precision: Precision, turned: bool) -> Form:
    """The form of a matrix of a GGUF type."""
    if precision == "fp32":
        return Form(TensorProto.FLOAT, None, turned)
    if precision == "fp16":
        return Form(TensorProto.FLOAT16, None, turned)
    if type in FORMATS:
        form = FORMATS[type]
        signed = TensorProto.INT4 if form.bits == 4 else TensorProto.INT8
        return Form(signed if turned else TensorProto.UINT8, form, turned)
    return Form(_KEPT[type], None, turned)


@dataclass(frozen=True)
class Planned:
    """A matrix with its places in the weights' file.

    Attributes:
        name: of its tensors.
        rows, columns: outputs and inputs.
        form: as it is written.
        regions: of the elements; of quants, of scales and perhaps offsets as well.
    """

    name: str
    rows: int
    columns: int
    form: Form
    regions: tuple[Region, ...]


def plan(data: DataFile, name: str, source: Rows, form: Form) -> Planned:
    """Makes room for a matrix in the weights' file."""
    elements = source.rows * source.columns
    if form.format is None:
        width = 4 if form.stored == TensorProto.FLOAT else 2
        sizes: Sequence[int] = [elements * width]
    else:
        parts = elements // form.format.block * 4
        sizes = [elements * form.format.bits // 8, parts, *([parts] if form.format.offset else [])]
    regions = data.plan(sizes, lambda: _written(source, form))
    return Planned(name, source.rows, source.columns, form, regions)


def _written(source: Rows, form: Form) -> Iterator[tuple[Array, ...]]:
    for rows in source.turned() if form.turned else source.chunks():
        if form.format is not None:
            yield _written_blocks(form.format.unpack(rows), form)
        elif form.stored == _KEPT.get(source.type):
            stored = np.ascontiguousarray(rows).view(np.uint16 if form.stored != 1 else np.uint32)
            yield (stored.T if form.turned else stored,)
        else:
            values: Array = dequantize(np.ascontiguousarray(rows), source.type)
            values = values.T if form.turned else values
            yield (values if form.stored == TensorProto.FLOAT else _halved(values, source),)


def _halved(values: Floats, source: Rows) -> Array:
    if np.abs(values).max() > np.finfo(np.float16).max:
        tensor = source.tensors[0]
        raise BadInput(
            f"{tensor.path}: {tensor.name} has weights beyond float16; export with"
            " `--precision fp32`"
        )
    return values.astype(np.float16)


def _written_blocks(blocks: Blocks, form: Form) -> tuple[Array, ...]:
    assert form.format is not None
    zero = np.uint8(form.format.zero if form.turned else 0)
    arrays: list[Array] = [blocks.quants ^ zero, blocks.scales]
    if blocks.offsets is not None:
        arrays.append(blocks.offsets)
    if form.turned:
        arrays = [np.ascontiguousarray(array.T) for array in arrays]
    if form.format.bits == 4:
        # By columns, elements in order; an odd number of outputs leaves none at a row's end alone.
        flat = arrays[0].reshape(-1) if form.turned else arrays[0]
        arrays[0] = pack_nibbles(flat)
    return tuple(arrays)


def vector(tensor: GgufTensor, dtype: type[np.floating[Any]]) -> Floats | npt.NDArray[Any]:
    """A norm's weights or a bias."""
    return tensor.values().reshape(-1).astype(dtype)
