"""The JSON files of an exported folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from llama_tokenizer import LlamaTokenizer
from steps import ModelAt, TinyPath
from tokenizers import Tokenizer
from vocabularies import CONTROL, pairs, write_bpe

from edge_conflayers.engine.gguf_header import read_header
from edge_conflayers.errors import BadInput
from edge_conflayers.onnx.architecture import ARCHITECTURES
from edge_conflayers.onnx.configs import check_vocabulary
from edge_conflayers.onnx.export import Target, export
from edge_conflayers.onnx.folder import GRAPH
from edge_conflayers.onnx.token_table import read_token_table
from edge_conflayers.onnx.vocabulary_file import write_vocabulary_file


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("target", ["ort", "standard"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_genai_config_names_what_the_graph_has(
    arch: str, target: Target, tiny_path: TinyPath, tmp_path: Path
) -> None:
    export(tiny_path(arch), tmp_path / "out", target=target)
    config = read(tmp_path / "out", "genai_config")
    decoder = config["model"]["decoder"]
    assert tmp_path / "out" / decoder["filename"] == tmp_path / "out" / GRAPH
    graph = onnx.load(tmp_path / "out" / GRAPH, load_external_data=False).graph
    shapes = {
        each.name: [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim]
        for each in (*graph.input, *graph.output)
    }
    layers = range(decoder["num_hidden_layers"])
    for part in ("key", "value"):
        for pattern in (
            decoder["inputs"][f"past_{part}_names"],
            decoder["outputs"][f"present_{part}_names"],
        ):
            for layer in layers:
                shape = shapes.pop(pattern % layer)
                assert shape[1] == decoder["num_key_value_heads"]
                assert shape[3] == decoder["head_size"]
    assert shapes.pop(decoder["outputs"]["logits"])[2] == config["model"]["vocab_size"]
    shapes.pop(decoder["inputs"]["input_ids"])
    shapes.pop(decoder["inputs"]["attention_mask"])
    with_default = {each.name for each in graph.initializer}
    assert set(shapes) <= with_default
    assert config["search"]["past_present_share_buffer"] is (target == "ort")
    hugging_face = read(tmp_path / "out", "config")
    assert hugging_face["num_hidden_layers"] == len(layers)
    assert hugging_face["num_key_value_heads"] == decoder["num_key_value_heads"]
    assert hugging_face["head_dim"] == decoder["head_size"]


def test_special_tokens(tiny_path: TinyPath, model_at: ModelAt, tmp_path: Path) -> None:
    path = tiny_path("llama")
    export(path, tmp_path / "out")
    model = model_at(path)
    ends = [token for token in range(model.n_vocab) if model.ends_text(token)]
    for name in ("config", "generation_config"):
        found = read(tmp_path / "out", name)["eos_token_id"]
        assert (found if isinstance(found, list) else [found]) == ends
    assert read(tmp_path / "out", "genai_config")["model"]["eos_token_id"] == found
    config = read(tmp_path / "out", "tokenizer_config")
    assert config["chat_template"] == model.chat_template
    assert config["add_bos_token"] is True
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.token_to_id(config["bos_token"]) == model.tokenize("")[0]
    assert tokenizer.encode("a b").ids == model.tokenize("a b")


def test_the_vocabulary_file_has_the_bytes_of_the_source(
    tiny_path: TinyPath, tmp_path: Path
) -> None:
    path = tiny_path("qwen2")
    export(path, tmp_path / "out")
    copy = tmp_path / "out" / "vocabulary.gguf"
    extents = read_header(path).extents.values()
    begin, end = min(begin for begin, _ in extents), max(end for _, end in extents)
    assert copy.read_bytes()[24:] == path.read_bytes()[begin:end]
    header = read_header(copy, whole=True)
    assert header.n_tensors == 0
    assert header.values == read_header(path, whole=True).values
    assert header.strings == read_header(path, whole=True).strings
    with LlamaTokenizer(copy) as llama, LlamaTokenizer(path) as other:
        assert llama.encode("a text", special=False) == other.encode("a text", special=False)


def test_the_vocabulary_file_of_a_split_model_looks_for_no_other_parts(tmp_path: Path) -> None:
    path = write_bpe(tmp_path / "model-00001-of-00002.gguf", "gpt-2", pairs(10))
    whole = read_header(path)
    data = bytearray(path.read_bytes())
    for key, value in (("split.no", 0), ("split.count", 2)):
        data += len(key).to_bytes(8, "little") + key.encode() + (2).to_bytes(4, "little")
        data += value.to_bytes(2, "little")
    data[16:24] = (len(whole.extents) + 2).to_bytes(8, "little")
    path.write_bytes(data)
    assert read_header(path).values["split.count"] == 2
    write_vocabulary_file(path, tmp_path / "vocabulary.gguf")
    assert read_header(tmp_path / "vocabulary.gguf").values == whole.values
    assert read_token_table(tmp_path / "vocabulary.gguf").special[0].name == CONTROL


@pytest.mark.parametrize("pre", ["kimi-k2", "tiny_aya", "superbpe"])
def test_unknown_pre_tokenizers_are_refused_before_work(pre: str, tmp_path: Path) -> None:
    path = write_bpe(tmp_path / "model.gguf", pre, pairs(10))
    with pytest.raises(BadInput, match=pre):
        check_vocabulary(path)
