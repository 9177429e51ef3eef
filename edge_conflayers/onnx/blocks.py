"""GGUF's quantized blocks as ONNX has them: unsigned integers, a scale and an offset a block.

    weight = scale * (quant - zero) + offset, zero = 2 ** (bits - 1)

Where a format has no offset, the weight has the bits that the ``gguf`` package dequantizes it to;
else the two terms are rounded one by one, so that it is equal to float32's rounding. Five-bit
formats take eight bits, which is what runtimes have kernels for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType

from edge_conflayers.onnx.gguf_file import Bytes, Floats


@dataclass(frozen=True)
class Blocks:
    """Rows of quantized weights.

    Attributes:
        quants: uint8 [rows, columns].
        scales: float32 [rows, columns / block].
        offsets: as scales; None where the format has none.
    """

    quants: Bytes
    scales: Floats
    offsets: Floats | None = None


@dataclass(frozen=True)
class BlockFormat:
    """How a GGUF type is written in ONNX.

    Attributes:
        bits: of a quant, 4 or 8.
        block: columns that share a scale.
        offset: whether blocks have an offset.
        unpack: from stored rows, uint8 [rows, row_bytes].
    """

    bits: int
    block: int
    offset: bool
    unpack: Callable[[Bytes], Blocks]

    @property
    def zero(self) -> int:
        return 1 << (self.bits - 1)

    def values(self, blocks: Blocks) -> Floats:
        """The weights in float32, rounded as a runtime without approximations rounds them."""
        signed = blocks.quants.astype(np.float32) - np.float32(self.zero)
        values: Floats = signed * np.repeat(blocks.scales, self.block, axis=1)
        if blocks.offsets is not None:
            values += np.repeat(blocks.offsets, self.block, axis=1)
        return values


_FOUR, _LOW = np.uint8(4), np.uint8(15)


def _blocks(rows: Bytes, size: int) -> Bytes:
    return rows.reshape(len(rows), -1, size)


def _half(data: Bytes) -> Floats:
    """Two bytes each of a last axis, as float32 without it."""
    halves: Floats = np.ascontiguousarray(data).view(np.float16)[..., 0].astype(np.float32)
    return halves


def _nibbles(data: Bytes) -> Bytes:
    """Low halves of a last axis, then high ones."""
    return np.concatenate([data & _LOW, data >> _FOUR], axis=-1)


def _fifth_bits(data: Bytes) -> Bytes:
    """32 bits, four bytes of a last axis, as 32 times 0 or 16."""
    bits: Bytes = np.unpackbits(data, axis=-1, bitorder="little") << _FOUR
    return bits


def _flat(quants: Bytes) -> Bytes:
    return quants.reshape(len(quants), -1)


def _q4_0(rows: Bytes) -> Blocks:
    blocks = _blocks(rows, 18)
    return Blocks(_flat(_nibbles(blocks[..., 2:])), _half(blocks[..., :2]))


def _q4_1(rows: Bytes) -> Blocks:
    blocks = _blocks(rows, 20)
    scales, least = _half(blocks[..., :2]), _half(blocks[..., 2:4])
    return Blocks(_flat(_nibbles(blocks[..., 4:])), scales, least + 8 * scales)


def _q5_0(rows: Bytes) -> Blocks:
    blocks = _blocks(rows, 22)
    quants = _nibbles(blocks[..., 6:]) | _fifth_bits(blocks[..., 2:6])
    return Blocks(_flat(quants + np.uint8(128 - 16)), _half(blocks[..., :2]))


def _q5_1(rows: Bytes) -> Blocks:
    blocks = _blocks(rows, 24)
    quants = _nibbles(blocks[..., 8:]) | _fifth_bits(blocks[..., 4:8])
    scales, least = _half(blocks[..., :2]), _half(blocks[..., 2:4])
    return Blocks(_flat(quants + np.uint8(128 - 16)), scales, least + 16 * scales)


def _q8_0(rows: Bytes) -> Blocks:
    blocks = _blocks(rows, 34)
    return Blocks(_flat(blocks[..., 2:] ^ np.uint8(128)), _half(blocks[..., :2]))


def _scales_and_mins(blocks: Bytes) -> tuple[Floats, Floats]:
    """Those of the eight blocks in a superblock of Q4_K or Q5_K, products rounded."""
    # get_scale_min_k4 in llama.cpp's ggml-quants.c
    low, high, mixed = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scales = np.concatenate([low & 63, (mixed & 15) | (low >> 6 << 4)], axis=-1)
    mins = np.concatenate([high & 63, (mixed >> 4) | (high >> 6 << 4)], axis=-1)
    return _half(blocks[..., :2])[..., None] * scales, _half(blocks[..., 2:4])[..., None] * mins


def _pairs_of_nibbles(data: Bytes) -> Bytes:
    """128 bytes of a last axis as 256 quants: of each 32 bytes the low halves, then the high."""
    return _nibbles(data.reshape(*data.shape[:-1], 4, 32)).reshape(*data.shape[:-1], 256)


def _q4_k(rows: Bytes) -> Blocks:
    blocks = _blocks(rows, 144)
    scales, mins = map(_flat_floats, _scales_and_mins(blocks))
    return Blocks(_flat(_pairs_of_nibbles(blocks[..., 16:])), scales, 8 * scales - mins)


def _q5_k(rows: Bytes) -> Blocks:
    blocks = _blocks(rows, 176)
    scales, mins = map(_flat_floats, _scales_and_mins(blocks))
    # Bit n of byte i belongs to column 32 n + i.
    fifth = np.unpackbits(blocks[..., 16:48], axis=-1, bitorder="little")
    fifth = fifth.reshape(*blocks.shape[:2], 32, 8).swapaxes(-1, -2).reshape(*blocks.shape[:2], 256)
    quants = _pairs_of_nibbles(blocks[..., 48:]) | (fifth << _FOUR)
    return Blocks(_flat(quants + np.uint8(128 - 16)), scales, 16 * scales - mins)


def _q6_k(rows: Bytes) -> Blocks:
    blocks = _blocks(rows, 210)
    # Per half of 128 columns: 64 bytes of low halves, 32 bytes of upper pairs of bits.
    low = _nibbles(blocks[..., :128].reshape(*blocks.shape[:2], 2, 64))
    high = blocks[..., 128:192].reshape(*blocks.shape[:2], 2, 1, 32)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    high = ((high >> shifts) & np.uint8(3)).reshape(*blocks.shape[:2], 2, 128)
    quants = (low | (high << _FOUR)) + np.uint8(128 - 32)
    scales = blocks[..., 192:208].view(np.int8) * _half(blocks[..., 208:])[..., None]
    return Blocks(_flat(quants), _flat_floats(scales))


def _flat_floats(values: Floats) -> Floats:
    return np.ascontiguousarray(values.reshape(len(values), -1), dtype=np.float32)


FORMATS: Mapping[GGMLQuantizationType, BlockFormat] = {
    GGMLQuantizationType.Q4_0: BlockFormat(4, 32, False, _q4_0),
    GGMLQuantizationType.Q4_1: BlockFormat(4, 32, True, _q4_1),
    GGMLQuantizationType.Q5_0: BlockFormat(8, 32, False, _q5_0),
    GGMLQuantizationType.Q5_1: BlockFormat(8, 32, True, _q5_1),
    GGMLQuantizationType.Q8_0: BlockFormat(8, 32, False, _q8_0),
    GGMLQuantizationType.Q4_K: BlockFormat(4, 32, True, _q4_k),
    GGMLQuantizationType.Q5_K: BlockFormat(8, 32, True, _q5_k),
    GGMLQuantizationType.Q6_K: BlockFormat(8, 16, False, _q6_k),
}


def pack_nibbles(quants: Bytes) -> Bytes:
    """Quants of four bits, two a byte along the last axis, the first in the lower half."""
    packed: Bytes = quants[..., 0::2] | (quants[..., 1::2] << _FOUR)
    return packed
