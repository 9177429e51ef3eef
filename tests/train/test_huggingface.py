"""Weights of a Hugging Face folder, against transformers' own models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from steps import TinyPath

torch = pytest.importorskip("torch", reason="needs the `train` extra: torch is not installed")

from edge_conflayers.cli import main  # noqa: E402
from edge_conflayers.errors import BadInput  # noqa: E402
from edge_conflayers.onnx.architecture import read_architecture  # noqa: E402
from edge_conflayers.onnx.gguf_file import read_gguf  # noqa: E402
from edge_conflayers.profiles import DATA_VARIABLE  # noqa: E402
from edge_conflayers.train.huggingface import read_folder  # noqa: E402
from edge_conflayers.train.network import Network  # noqa: E402

SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096,
}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            "sliding_window": 64,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            },
            "tie_word_embeddings": True,
        },
    ),
}


def _saved(folder: Path, arch: str) -> Any:
    """A random model of transformers, saved in bfloat16."""
    reason = "compares with transformers, which is not installed"
    transformers = pytest.importorskip("transformers", reason=reason)
    config, model, more = MODELS[arch]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**SIZES, **more))
    for each in made.parameters():
        torch.nn.init.normal_(each, std=0.2)
        each.data = each.data.bfloat16().float()
    copy.deepcopy(made).to(torch.bfloat16).save_pretrained(folder)
    return made.eval()


@pytest.mark.parametrize("arch", MODELS)
def test_logits_are_those_of_transformers(tiny_path: TinyPath, tmp_path: Path, arch: str) -> None:
    made = _saved(tmp_path, arch)
    file = read_gguf(tiny_path(arch, tied=arch == "gemma3"))
    architecture = read_architecture(file)
    network = Network(architecture, read_folder(tmp_path, file, architecture))
    tokens = torch.randint(3, 320, (1, 90), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = made(tokens).logits[0].numpy()
        found = network.logits(network.states(tokens, [4])[0])[0].numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.97


def test_other_folders_are_refused(tiny_path: TinyPath, tmp_path: Path) -> None:
    file = read_gguf(tiny_path("llama"))
    architecture = read_architecture(file)
    with pytest.raises(BadInput, match=r"no \.safetensors"):
        read_folder(tmp_path, file, architecture)
    (tmp_path / "model.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0{no}}")
    with pytest.raises(BadInput, match="damaged"):
        read_folder(tmp_path, file, architecture)
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(BadInput, match="no weights for token_embd"):
        read_folder(tmp_path, file, architecture)
    _saved(tmp_path, "llama")
    other = read_gguf(tiny_path("llama", n_layer=4, n_embd=96))
    with pytest.raises(BadInput, match="another model"):
        read_folder(tmp_path, other, read_architecture(other))


def test_training_begins_with_the_folders_weights(
    tiny_path: TinyPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    folder, out = tmp_path / "folder", tmp_path / "trained.gguf"
    made = _saved(folder, "qwen2")
    texts = tmp_path / "texts.txt"
    texts.write_text("the cat sat on the mat and the dog ran after the hat. " * 40)
    arguments = ["train", str(tiny_path("qwen2")), "-o", str(out), "--texts", str(texts)]
    more = ["--weights", str(folder), "--steps", "1", "-lr", "1e-9", "--outtype", "f32", "-t", "1"]
    result = CliRunner().invoke(main, [*arguments, *more])
    assert result.exit_code == 0, result.output
    written = read_gguf(out).tensors["blk.1.ffn_up.weight"].values()
    wanted = made.model.layers[1].mlp.up_proj.weight.detach().numpy()
    np.testing.assert_allclose(written, wanted, atol=1e-6)
