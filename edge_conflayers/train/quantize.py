"""Weights to GGUF's quantization types, by llama.cpp's own quantizer."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from edge_conflayers.engine.native import LIBRARY
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.onnx.gguf_file import CHUNK_ELEMENTS, Bytes, GgufFile, GgufTensor

OutType = Literal["same", "f32", "f16", "bf16", "q8_0"]

_FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
}


def _declared() -> ctypes.CDLL:
    """The library, with the types of ggml's quantizer (ggml.h)."""
    library: ctypes.CDLL = LIBRARY
    library.ggml_quantize_chunk.argtypes = [
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
    ]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_requires_imatrix.argtypes = [ctypes.c_int]
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    return library


def type_for(tensor: GgufTensor, wanted: OutType) -> GGMLQuantizationType:
    """How a tensor of the trained model is stored: vectors as they were, matrices as wanted.

    A type that can't be had, as it needs an importance matrix or its blocks do not fit the rows,
    becomes Q8_0, or F16 where that does not fit either.
    """
    if len(tensor.shape) < 2:
        return tensor.type
    kind = tensor.type if wanted == "same" else GGMLQuantizationType[wanted.upper()]
    if _declared().ggml_quantize_requires_imatrix(kind):
        kind = GGMLQuantizationType.Q8_0
    return GGMLQuantizationType.F16 if tensor.columns % GGML_QUANT_SIZES[kind][0] else kind


def file_type(file: GgufFile, wanted: OutType) -> int | None:
    """``general.file_type`` of the trained model; None for the original's."""
    return None if wanted == "same" else int(_FILE_TYPES[wanted])


def stored_size(tensor: GgufTensor, kind: GGMLQuantizationType) -> int:
    """Bytes of a tensor in another type."""
    block, size = GGML_QUANT_SIZES[kind]
    return int(tensor.rows * (tensor.columns // block * size))


def quantized(values: npt.NDArray[np.float32], kind: GGMLQuantizationType) -> Iterator[Bytes]:
    """A matrix's rows as they are stored, some at a time.

    Args:
        values: [rows, columns].

    Raises:
        EdgeConflayersError: a weight is no number.
    """
    rows, columns = values.shape
    block, size = GGML_QUANT_SIZES[kind]
    library = _declared()
    step = max(1, CHUNK_ELEMENTS // columns)
    for begin in range(0, rows, step):
        part = np.ascontiguousarray(values[begin : begin + step], dtype=np.float32)
        if not np.isfinite(part).all():
            raise EdgeConflayersError("training failed: a weight is no number; nothing is written")
        if kind is GGMLQuantizationType.F32:
            yield part.view(np.uint8)
            continue
        stored = np.empty((len(part), columns // block * size), dtype=np.uint8)
        written = library.ggml_quantize_chunk(
            int(kind), part.ctypes.data, stored.ctypes.data, 0, len(part), columns, None
        )
        if written != stored.nbytes:
            raise EdgeConflayersError(f"weights could not be stored as {kind.name}")
        yield stored
