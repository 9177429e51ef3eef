"""Small LoRA adapters for tests, as llama.cpp's convert_lora_to_gguf.py lays them out."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

_MATRICES = ("attn_q.weight", "attn_v.weight", "ffn_gate.weight", "ffn_down.weight")
RANK = 4
ALPHA = 8.0

Change = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""A [rank, inputs] and B [outputs, rank]."""


def write_lora(
    path: Path,
    model: Path,
    *,
    seed: int = 0,
    size: float = 0.1,
    matrices: Collection[str] = _MATRICES,
    architecture: str | None = None,
    kind: str = "lora",
) -> dict[str, Change]:
    """Writes a random adapter for a model file; returns what it changes, by the tensors' names.

    Args:
        size: standard deviation of B's entries.
        matrices: ends of the names of the tensors that are changed.
        architecture: that the file names; None for the model's.
        kind: its adapter.type.
    """
    reader = gguf.GGUFReader(model)
    own = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(path, architecture or own)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", kind)
    writer.add_float32("adapter.lora.alpha", ALPHA)
    random = np.random.default_rng(seed)
    changes: dict[str, Change] = {}
    for tensor in reader.tensors:
        if tensor.name.endswith(tuple(matrices)):
            inputs, outputs = (int(n) for n in tensor.shape[:2])
            a = random.standard_normal((RANK, inputs)) / np.sqrt(inputs)
            b = size * random.standard_normal((outputs, RANK))
            changes[tensor.name] = a.astype(np.float32), b.astype(np.float32)
            writer.add_tensor(f"{tensor.name}.lora_a", changes[tensor.name][0])
            writer.add_tensor(f"{tensor.name}.lora_b", changes[tensor.name][1])
    assert changes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return changes
