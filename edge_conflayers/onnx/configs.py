"""The small files of an exported folder: what ONNX Runtime GenAI, transformers.js and our own
session read besides the graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge_conflayers.engine.gguf_header import Header
from edge_conflayers.onnx.architecture import Architecture
from edge_conflayers.onnx.folder import VOCABULARY
from edge_conflayers.onnx.token_table import TokenTable, read_token_table
from edge_conflayers.onnx.tokenizer import build_tokenizer, check_tokenizer
from edge_conflayers.onnx.vocabulary_file import write_vocabulary_file

_Json = dict[str, Any]

# By architecture in GGUF: Hugging Face's class, its model_type, and GenAI's type.
_NAMES = {
    "llama": ("LlamaForCausalLM", "llama", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2", "qwen2"),
    "qwen3": ("Qwen3ForCausalLM", "qwen3", "qwen3"),
    "gemma3": ("Gemma3ForCausalLM", "gemma3_text", "gemma3_text"),
}
# By ``tokenizer.ggml.model``: a class of which the runtimes know that it reads tokenizer.json.
_TOKENIZER_CLASSES = {"gpt2": "GPT2Tokenizer", "llama": "GemmaTokenizer"}
# Tokens for which GenAI makes room in the cache unless it is told otherwise. Not tuned: at most
# 0.4 GB for the 1.5B model, where its whole context would take 1.9 GB.
_GENAI_LENGTH = 4096


def check_vocabulary(model: Path) -> TokenTable:
    """The vocabulary of a GGUF file, if it can be exported.

    Raises:
        BadInput: it can't be.
    """
    vocabulary = read_token_table(model)
    check_tokenizer(vocabulary)
    return vocabulary


def write_configs(
    model: Path,
    folder: Path,
    *,
    header: Header,
    architecture: Architecture,
    vocabulary: TokenTable,
    graph: Path,
    shares_cache: bool,
    half: bool,
) -> None:
    """Writes everything in the folder but the graph and its weights.

    Args:
        model: the .gguf file.
        folder: is there already.
        header: of the model.
        vocabulary: of the model, from ``check_vocabulary``.
        graph: within the folder.
        shares_cache: whether the graph can write its cache in place.
        half: whether the cache is float16.

    Raises:
        BadInput: the vocabulary can't be exported.
    """
    config = _config(header, architecture, vocabulary, half)
    files = {
        "config.json": config,
        "generation_config.json": _generation_config(vocabulary),
        "genai_config.json": _genai_config(architecture, vocabulary, graph, shares_cache),
        "tokenizer_config.json": _tokenizer_config(architecture, vocabulary),
    }
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=2)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    tokenizer = build_tokenizer(vocabulary).to_str()
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    write_vocabulary_file(model, folder / VOCABULARY)


def _known(values: _Json) -> _Json:
    return {key: value for key, value in values.items() if value is not None}


def _special_ids(vocabulary: TokenTable) -> _Json:
    ends = list(vocabulary.ends)
    return _known(
        {
            "bos_token_id": vocabulary.bos,
            "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
            "pad_token_id": _pad(vocabulary),
        }
    )


def _pad(vocabulary: TokenTable) -> int | None:
    return vocabulary.eos if vocabulary.pad is None else vocabulary.pad


def _config(
    header: Header, architecture: Architecture, vocabulary: TokenTable, half: bool
) -> _Json:
    """config.json, as transformers has it, with what transformers.js wants to know."""
    class_name, model_type, _ = _NAMES[architecture.name]
    rope = architecture.ropes[-1]

    def of_architecture(key: str) -> Any:
        return header.values.get(f"{architecture.name}.{key}")

    return _known(
        {
            "architectures": [class_name],
            "model_type": model_type,
            "hidden_size": architecture.n_embd,
            "intermediate_size": of_architecture("feed_forward_length"),
            "num_hidden_layers": architecture.n_layer,
            "num_attention_heads": architecture.n_head,
            "num_key_value_heads": architecture.n_head_kv,
            "head_dim": architecture.head_dim,
            "hidden_act": "silu" if architecture.activation == "silu" else "gelu_pytorch_tanh",
            "max_position_embeddings": architecture.n_ctx_train,
            "rms_norm_eps": architecture.epsilon,
            "rope_theta": rope.base,
            "sliding_window": max(architecture.windows) or None,
            "vocab_size": architecture.n_vocab,
            "torch_dtype": "float16" if half else "float32",
            "transformers.js_config": {
                # The one graph there is; without it, a browser looks for model_quantized.onnx.
                "dtype": "fp32",
                "use_external_data_format": True,
                "kv_cache_dtype": "float16" if half else "float32",
            },
            **_special_ids(vocabulary),
        }
    )


def _generation_config(vocabulary: TokenTable) -> _Json:
    return {"do_sample": False, **_special_ids(vocabulary)}


def _genai_config(
    architecture: Architecture, vocabulary: TokenTable, graph: Path, shares_cache: bool
) -> _Json:
    """genai_config.json: the graph's inputs and outputs, and how GenAI generates by default."""
    past, present = "past_key_values.%d", "present.%d"
    return {
        "model": {
            **_special_ids(vocabulary),
            "type": _NAMES[architecture.name][2],
            "vocab_size": architecture.n_vocab,
            "context_length": architecture.n_ctx_train,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": graph.as_posix(),
                "head_size": architecture.head_dim,
                "hidden_size": architecture.n_embd,
                "num_attention_heads": architecture.n_head,
                "num_hidden_layers": architecture.n_layer,
                "num_key_value_heads": architecture.n_head_kv,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": f"{past}.key",
                    "past_value_names": f"{past}.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": f"{present}.key",
                    "present_value_names": f"{present}.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": min(architecture.n_ctx_train, _GENAI_LENGTH),
            "min_length": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": shares_cache,
            "repetition_penalty": 1.0,
            "temperature": 1.0,
            "top_k": 1,
            "top_p": 1.0,
        },
    }


def _tokenizer_config(architecture: Architecture, vocabulary: TokenTable) -> _Json:
    added = {
        str(each.token): {
            "content": each.name,
            "lstrip": each.lstrip,
            "normalized": False,
            "rstrip": each.rstrip,
            "single_word": False,
            "special": each.is_control,
        }
        for each in vocabulary.special
    }
    return _known(
        {
            "tokenizer_class": _TOKENIZER_CLASSES[vocabulary.kind],
            "model_max_length": architecture.n_ctx_train,
            "bos_token": vocabulary.name(vocabulary.bos),
            "eos_token": vocabulary.name(vocabulary.eos),
            "pad_token": vocabulary.name(_pad(vocabulary)),
            "unk_token": vocabulary.name(vocabulary.unknown),
            "add_bos_token": vocabulary.adds_bos,
            "add_eos_token": vocabulary.adds_eos,
            "add_prefix_space": vocabulary.adds_space,
            "clean_up_tokenization_spaces": False,
            "chat_template": vocabulary.chat_template or None,
            "added_tokens_decoder": added,
        }
    )
