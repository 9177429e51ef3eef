"""Trained models as GGUF files: like the original, with other weights."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf_models import random_blocks
from steps import TinyPath, decode, open_session, random_tokens

from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.onnx.gguf_file import GgufTensor, read_gguf
from edge_conflayers.train import gguf_writer
from edge_conflayers.train.gguf_writer import check_target, write_like
from edge_conflayers.train.quantize import OutType, quantized, type_for


def values_of(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    return {name: each.values() for name, each in read_gguf(path).tensors.items()}


@pytest.mark.parametrize("quant", ["f32", "f16", "q8_0", "q4_1"])
def test_unchanged_weights_give_the_same_model(
    tiny_path: TinyPath, tmp_path: Path, quant: str
) -> None:
    path, target = tiny_path("qwen2", quant=quant, n_embd=128), tmp_path / "new.gguf"
    write_like(read_gguf(path), target, values_of(path), "same")
    old, new = read_gguf(path), read_gguf(target)
    assert new.header.values == old.header.values
    assert new.header.lengths == old.header.lengths
    for name, tensor in old.tensors.items():
        other = new.tensors[name]
        assert (other.type, other.shape) == (tensor.type, tensor.shape)
        # Blocks of a quantized weight can be stored in more ways than one.
        np.testing.assert_allclose(other.values(), tensor.values(), rtol=2e-3, atol=2e-3)
    assert list(tmp_path.iterdir()) == [target]


def test_the_whole_file_is_the_originals(tiny_path: TinyPath, tmp_path: Path) -> None:
    path, target = tiny_path("llama", rope_factors=True), tmp_path / "new.gguf"
    write_like(read_gguf(path), target, values_of(path), "same")
    assert target.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("outtype", ["f16", "bf16", "q8_0"])
def test_another_type(tiny_path: TinyPath, tmp_path: Path, outtype: OutType) -> None:
    path, target = tiny_path("llama"), tmp_path / "new.gguf"
    write_like(read_gguf(path), target, values_of(path), outtype)
    new = read_gguf(target)
    kinds = {len(each.shape): each.type.name.lower() for each in new.tensors.values()}
    assert kinds == {1: "f32", 2: outtype}
    assert new.header.values["general.file_type"] == gguf.LlamaFileType[f"MOSTLY_{outtype.upper()}"]
    tokens = None
    logits = []
    for each in (path, target):
        with Model(each) as model:
            tokens = tokens or random_tokens(model, 20)
            with open_session(model, n_ctx=64) as session:
                logits.append(decode(session, tokens, [20]))
    np.testing.assert_allclose(logits[0], logits[1], atol=1)
    assert (logits[0].argmax(1) == logits[1].argmax(1)).mean() > 0.7


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "Q5_0", "IQ4_XS"])
def test_types_that_the_gguf_package_cannot_quantize(kind: str) -> None:
    rows = random_blocks(Kind[kind], 6, 512)
    values = gguf.quants.dequantize(rows, Kind[kind]).astype(np.float32)
    (stored,) = quantized(values, Kind[kind])
    again = gguf.quants.dequantize(stored, Kind[kind])
    error = np.linalg.norm(again - values) / np.linalg.norm(values)
    assert stored.shape == rows.shape and error < 0.1


def test_types_that_cannot_be_had() -> None:
    def tensor(kind: Kind, columns: int) -> GgufTensor:
        return GgufTensor("x", kind, (4, columns), Path("x"), 0)

    assert type_for(tensor(Kind.IQ2_XXS, 256), "same") is Kind.Q8_0  # wants an importance matrix
    assert type_for(tensor(Kind.Q4_K, 256), "same") is Kind.Q4_K
    assert type_for(tensor(Kind.F16, 40), "q8_0") is Kind.F16
    assert type_for(tensor(Kind.F32, 256), "same") is Kind.F32


def test_no_room_leaves_nothing(
    tiny_path: TinyPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_path("llama")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf_writer.os, "replace", full)
    with pytest.raises(EdgeConflayersError, match="no room"):
        write_like(read_gguf(path), tmp_path / "new.gguf", values_of(path), "same")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers(tiny_path: TinyPath, tmp_path: Path) -> None:
    path = tiny_path("llama")
    values = values_of(path)
    values["output_norm.weight"][0] = np.nan
    with pytest.raises(EdgeConflayersError, match="no number"):
        write_like(read_gguf(path), tmp_path / "new.gguf", values, "same")
    assert not list(tmp_path.iterdir())


def test_targets_are_checked_first(
    tiny_path: TinyPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = read_gguf(tiny_path("llama"))
    with pytest.raises(BadInput, match="exists"):
        check_target(file, file.path, "same")
    with pytest.raises(BadInput, match="no folder"):
        check_target(file, tmp_path / "a" / "b.gguf", "same")
    check_target(file, tmp_path / "b.gguf", "same")
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(gguf_writer.shutil, "disk_usage", lambda folder: usage(9, 8, 1))
    with pytest.raises(EdgeConflayersError, match="no room"):
        check_target(file, tmp_path / "b.gguf", "same")
