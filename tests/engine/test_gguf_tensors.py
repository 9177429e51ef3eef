"""The tensors of GGUF files, as the `gguf` package reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from gguf_models import write_tiny_model

from edge_conflayers.costs.bytes_read import bytes_read, is_read
from edge_conflayers.engine.ggml import tensor_types
from edge_conflayers.engine.gguf_tensors import read_tensors
from edge_conflayers.engine.session import LayerMask
from edge_conflayers.errors import BadInput


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2moe", "mamba"])
@pytest.mark.parametrize("quant", ["f16", "q8_0"])
def test_names_shapes_and_sizes(tiny_path: Callable[..., Path], arch: str, quant: str) -> None:
    path = tiny_path(arch, quant=quant)
    expected = {
        each.name: (tuple(int(n) for n in each.shape), each.tensor_type.name, int(each.n_bytes))
        for each in gguf.GGUFReader(str(path)).tensors
    }
    found = {each.name: (each.shape, each.type.name, each.n_bytes) for each in read_tensors(path)}
    assert found == expected


def test_the_library_and_the_gguf_package_agree_on_types() -> None:
    known = {each.name: each for each in tensor_types().values()}
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        if kind.name in known and kind.name != "Q8_1":  # there of another time; never in files
            assert (known[kind.name].block, known[kind.name].block_bytes) == (block, size)
    assert {"F32", "F16", "Q4_0", "Q4_K", "Q6_K", "Q8_0", "IQ4_XS"} <= set(known)


def test_a_file_that_ends_in_its_tensors_is_told(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", "llama")
    whole = path.read_bytes()
    last = max(whole.rfind(each.name.encode()) for each in read_tensors(path))
    path.write_bytes(whole[: last + 4])
    with pytest.raises(BadInput, match="cut off in its list of tensors"):
        read_tensors(path)


def test_a_type_that_nobody_knows_is_told(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", "llama")
    data = bytearray(path.read_bytes())
    name = b"output_norm.weight"
    at = data.index(name) + len(name) + 4 + 8  # one dimension
    data[at : at + 4] = (99).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"output_norm\.weight .* has type 99"):
        read_tensors(path)


def test_a_step_reads_all_but_the_embeddings_that_are_not_the_head(
    tiny_path: Callable[..., Path],
) -> None:
    for arch in ("llama", "gemma2"):
        tensors = read_tensors(tiny_path(arch, n_layer=3))
        tied = not any(each.name == "output.weight" for each in tensors)
        assert tied == (arch == "gemma2")
        whole = sum(each.n_bytes for each in tensors)
        table = next(each for each in tensors if each.name == "token_embd.weight")
        assert is_read(table, tensors) == tied
        read = bytes_read(tensors, 3)
        assert read.under() == whole - (0 if tied else table.n_bytes)


def test_dropped_layers_are_not_read(tiny_path: Callable[..., Path]) -> None:
    tensors = read_tensors(tiny_path("llama", n_layer=3))
    read = bytes_read(tensors, 3)

    def of(prefix: str) -> int:
        return sum(each.n_bytes for each in tensors if each.name.startswith(prefix))

    assert read.under() - read.under(LayerMask.layers([1])) == of("blk.1.")
    mlp = LayerMask(mlp=frozenset([2]))
    assert read.under() - read.under(mlp) == of("blk.2.ffn")
    attention = LayerMask(attention=frozenset([0]))
    assert read.under() - read.under(attention) == of("blk.0.attn")
    assert read.under(LayerMask.layers(range(3))) == read.rest
    assert bytes_read(tensors, 2).under() == read.under() - of("blk.2.")  # a layer that is not run


def test_experts_count_by_the_share_that_is_used(tiny_path: Callable[..., Path]) -> None:
    tensors = read_tensors(tiny_path("olmoe", n_layer=2))
    experts = sum(each.n_bytes for each in tensors if "_exps" in each.name)
    assert experts > 0
    whole, half = (bytes_read(tensors, 2, share).under() for share in (1.0, 0.5))
    assert whole - half == experts / 2
