"""Refuses model files that llama.cpp would abort on, or that are no language models.

llama.cpp tells most faults of a file as errors. What is checked here is the rest: values that it
asserts while it loads (``load_hparams`` in its llama-model.cpp), while it builds a graph, or in its
operators, and a rotation over no dimensions, which never ends.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from edge_conflayers.engine.gguf_header import Header, read_header
from edge_conflayers.errors import BadInput

# llama-hparams.h
_MOST_LAYERS = 512
_MOST_EXPERTS = 1024
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")  # llama-model.cpp
# The graphs of these assert that all dimensions of a head are rotated (src/models of llama.cpp).
_WHOLE_HEAD_ROTATED = frozenset(
    """
    apertus arcee arctic baichuan chameleon codeshell cogvlm dbrx deci deepseek dots1 dream ernie4_5
    ernie4_5-moe exaone exaone-moe exaone4 falcon granite granitemoe grok grovemoe hunyuan-dense
    hunyuan-moe internlm2 jais2 llada llada-moe llama llama4 maincoder minimax-m2 mistral3 nemotron
    olmo olmo2 olmoe orion paddleocr pangu-embedded plamo qwen2 qwen2moe qwen2vl qwen3 qwen3moe
    qwen3vl qwen3vlmoe rnd1 seed_oss smallthinker smollm3 starcoder2 xverse
    """.split()  # noqa: SIM905
)
_RECURRENT = re.compile("mamba|rwkv|arwkv")  # their models state no heads, or none that count
_NO_MODEL = {
    "adapter": "a LoRA adapter",
    "mmproj": "a projector for images",
    "imatrix": "an importance matrix",
    "clip": "a projector for images",
    "clip-vision": "a projector for images",
}
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def check_file(path: Path) -> None:
    """Refuses a file that no language model can be loaded from.

    Args:
        path: the .gguf file; of a split model, its first part.

    Raises:
        BadInput: not a GGUF file, damaged, not a language model, or a part is missing.
    """
    header = read_header(path)
    _check_kind(path, header)
    _check_parts(path, header)
    wrong = _wrong_value(header)
    if wrong is not None:
        raise BadInput(f"{path} is damaged or not for this program: {wrong}; use another file")


def _check_kind(path: Path, header: Header) -> None:
    architecture = header.text("general.architecture")
    kind = _NO_MODEL.get(header.text("general.type")) or _NO_MODEL.get(architecture)
    if kind is not None:
        raise BadInput(f"{path} is {kind}, not a language model; give the model that it belongs to")
    if not architecture:
        raise BadInput(f"{path} names no architecture; use an undamaged GGUF language model")
    if header.n_tensors == 0 and not header.values.get("split.count"):
        raise BadInput(f"{path} holds no weights; use an undamaged GGUF language model")


def _check_parts(path: Path, header: Header) -> None:
    count = header.values.get("split.count", 0)
    if not isinstance(count, int) or count <= 1:
        return
    number = header.values.get("split.no", 0)
    match = _PART.search(path.name)
    if number != 0:
        raise BadInput(f"{path} is a later part of a split model; give the first of its {count}")
    if match is None or (int(match[1]), int(match[2])) != (1, count):
        raise BadInput(
            f"{path} is the first of {count} parts;"
            f" name them as they were, *-00001-of-{count:05d}.gguf"
        )
    stem = path.name[: match.start()]
    for part in range(2, count + 1):
        other = path.with_name(f"{stem}-{part:05d}-of-{count:05d}.gguf")
        if not other.is_file():
            raise BadInput(f"{other} is missing, a part of {path.name}; put it beside it")
        values = read_header(other).values
        if (values.get("split.no"), values.get("split.count")) != (part - 1, count):
            raise BadInput(f"{other} is not part {part} of {path.name}; fetch it again")


class _Numbers:
    """The numbers that a header gives for its architecture."""

    def __init__(self, header: Header) -> None:
        self.architecture = header.text("general.architecture")
        self._header = header

    def name(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def all(self, key: str) -> tuple[int | float, ...]:
        """One for each layer, or one for all; none where the header does not say."""
        value = self._header.values.get(self.name(key))
        if isinstance(value, tuple):
            return value
        return (value,) if isinstance(value, (int, float)) else ()

    def one(self, key: str, default: int = 0) -> int:
        """A whole number; the largest, where there is one for each layer."""
        return max((n for n in self.all(key) if isinstance(n, int)), default=default)


def _wrong_value(header: Header) -> str | None:
    """What llama.cpp would not survive, as "KEY is VALUE, but must ..."; None if there is
    nothing."""
    numbers = _Numbers(header)
    checks = (_wrong_layers, _wrong_experts, _wrong_heads, _wrong_rope, _wrong_epsilon)
    return next((wrong for check in checks if (wrong := check(numbers, header))), None)


def _wrong_layers(numbers: _Numbers, header: Header) -> str | None:
    key = numbers.name("block_count")
    if key not in header.values:
        return None  # llama.cpp says so itself
    layers = header.values[key]
    if not isinstance(layers, int) or not 1 <= layers <= _MOST_LAYERS:
        return f"{key} is {layers}, but must be from 1 to {_MOST_LAYERS}"
    if numbers.one("nextn_predict_layers") > layers:
        return f"{numbers.name('nextn_predict_layers')} is more than {key}"
    for part in ("posnet.block_count", "convnext.block_count"):
        if numbers.one(part) > layers:
            return f"{numbers.name(part)} is more than {key}"
    for key in ("embedding_length", "context_length"):
        if 0 in numbers.all(key):
            return f"{numbers.name(key)} is 0, but must be positive"
    return None


def _wrong_experts(numbers: _Numbers, header: Header) -> str | None:
    count, used = numbers.one("expert_count"), numbers.one("expert_used_count")
    groups, groups_used = numbers.one("expert_group_count"), numbers.one("expert_group_used_count")
    name = numbers.name("expert_count")
    if numbers.architecture.startswith("hunyuan") and count <= 1:
        return None  # llama.cpp takes those for models without experts
    if count > _MOST_EXPERTS:
        return f"{name} is {count}, but must be at most {_MOST_EXPERTS}"
    if used > count or (count > 0 and used == 0):
        return f"{numbers.name('expert_used_count')} is {used}, but {name} is {count}"
    if groups > 0 and groups >= count:
        return f"{numbers.name('expert_group_count')} is {groups}, but {name} is {count}"
    if groups > 1 and (count % groups or not 0 < groups_used < groups):
        return (
            f"{numbers.name('expert_group_count')} is {groups} with {groups_used} of them used,"
            f" which does not go with {count} experts"
        )
    return None


def _wrong_heads(numbers: _Numbers, header: Header) -> str | None:
    if _RECURRENT.match(numbers.architecture):
        return None
    key = numbers.name("attention.head_count")
    heads = numbers.all("attention.head_count")
    if heads and max(heads) <= 0:
        return f"{key} is 0, but must be positive"
    if any(head < 0 for head in heads):
        return f"{key} is {min(heads)}, but must be positive"
    groups = numbers.all("attention.head_count_kv")
    if len(heads) == len(groups) == 1 and groups[0] and heads[0] % groups[0]:
        return f"{key} is {heads[0]}, but must be a multiple of {groups[0]} (head_count_kv)"
    return None


def _head_size(numbers: _Numbers) -> int:
    """Dimensions of a head's keys; 0 where the header does not tell."""
    heads = numbers.one("attention.head_count")
    given = max(numbers.one("attention.key_length"), numbers.one("attention.key_length_swa"))
    return given or (numbers.one("embedding_length") // heads if heads else 0)


def _wrong_rope(numbers: _Numbers, header: Header) -> str | None:
    scaling = header.values.get(numbers.name("rope.scaling.type"), "linear")
    if scaling not in _ROPE_SCALINGS:
        return f"{numbers.name('rope.scaling.type')} is {scaling!r}, which llama.cpp does not know"
    size = _head_size(numbers)
    if not size or _RECURRENT.match(numbers.architecture):
        return None
    for key in ("rope.dimension_count", "rope.dimension_count_swa"):
        for rotated in numbers.all(key):
            if not 0 < rotated <= size or rotated % 2:
                return (
                    f"{numbers.name(key)} is {rotated}, but must be even and at most the"
                    f" {size} dimensions of a head"
                )
            if rotated != size and numbers.architecture in _WHOLE_HEAD_ROTATED:
                return f"{numbers.name(key)} is {rotated}, but a head has {size} dimensions"
    return None


def _wrong_epsilon(numbers: _Numbers, header: Header) -> str | None:
    for key in (
        "attention.layer_norm_epsilon",
        "attention.layer_norm_rms_epsilon",
        "attention.group_norm_epsilon",
    ):
        for epsilon in numbers.all(key):
            if not (math.isfinite(epsilon) and epsilon >= 0):
                return f"{numbers.name(key)} is {epsilon}, but must not be negative"
    return None
