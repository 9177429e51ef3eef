"""Weights of a Hugging Face folder under the names and in the order of its conversion to GGUF."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import torch

from edge_conflayers.errors import BadInput
from edge_conflayers.onnx.architecture import Architecture
from edge_conflayers.onnx.gguf_file import GgufFile
from edge_conflayers.train.network import Tensor, Tensors

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_LONGEST_HEADER = 100 << 20  # bytes, as the safetensors package takes it


def read_folder(folder: Path, file: GgufFile, architecture: Architecture) -> Tensors:
    """All tensors of a GGUF file with the weights that it was converted from, in float32.

    As llama.cpp's convert_hf_to_gguf.py has them: rows of a llama's queries and keys in its order
    of rotation, gemma's norms with one added. A vector that the folder lacks, such as the factors
    of the rotation, is the file's own.

    Args:
        folder: with .safetensors files.
        file: a conversion of the same model, of any quantization.

    Raises:
        BadInput: the folder can't be read, or is of another model.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadInput(f"{folder} has no .safetensors files; give --weights a Hugging Face folder")
    names = gguf.get_tensor_name_map(
        {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}[architecture.name],
        architecture.n_layer,
    )
    found: Tensors = {}
    for path in files:
        for name, tensor in _tensors(path):
            known = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if known in file.tensors:
                found[known] = _converted(known, tensor.float(), architecture)
    for name, stored in file.tensors.items():
        if name not in found:
            if len(stored.shape) > 1:
                raise BadInput(f"{folder} has no weights for {name}; give the model's own folder")
            found[name] = torch.from_numpy(stored.values())
        if tuple(found[name].shape) != stored.shape:
            raise BadInput(
                f"{folder} is of another model: {name} is {tuple(found[name].shape)}, not"
                f" {stored.shape}; give the folder that {file.path} was converted from"
            )
    return found


def _converted(name: str, tensor: Tensor, architecture: Architecture) -> Tensor:
    if architecture.name == "gemma3" and "norm." in name:
        return tensor + 1
    part = name.split(".")[-2]
    if architecture.name == "llama" and part in ("attn_q", "attn_k"):
        heads = architecture.n_head if part == "attn_q" else architecture.n_head_kv
        halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
        return halves.swapaxes(1, 2).reshape(tensor.shape).contiguous()
    return tensor


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a .safetensors file."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError("its header is too long")
            header: dict[str, Any] = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for name, each in header.items():
                    begin, end = each["data_offsets"]
                    stored = bytearray(data[8 + length + begin : 8 + length + end])
                    values = torch.frombuffer(stored, dtype=_DTYPES[each["dtype"]])
                    yield name, values.reshape(each["shape"])
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error.strerror}); give another folder") from None
    except (struct.error, ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise BadInput(
            f"{path} is damaged, or no safetensors file of floats ({type(error).__name__});"
            " fetch it again"
        ) from None
