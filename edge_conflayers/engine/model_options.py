"""What a model is run with beside its file: LoRA adapters, rotary positions, KV-cache types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from edge_conflayers.errors import BadInput
from edge_conflayers.limits import MOST_INT32, check_number
from edge_conflayers.profiles.fingerprint import model_fingerprint

KVType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]
RopeScaling = Literal["none", "linear", "yarn"]

# The number of each type in ggml.h, and the bytes of one value.
KV_TYPES: dict[str, tuple[int, float]] = {
    "f32": (0, 4.0),
    "f16": (1, 2.0),
    "bf16": (30, 2.0),
    "q8_0": (8, 34 / 32),
    "q4_0": (2, 18 / 32),
    "q4_1": (3, 20 / 32),
    "iq4_nl": (20, 18 / 32),
    "q5_0": (6, 22 / 32),
    "q5_1": (7, 24 / 32),
}
_SCALINGS = {None: -1, "none": 0, "linear": 1, "yarn": 2}  # llama_rope_scaling_type of llama.h
_FLAGS = {
    "type_k": "--cache-type-k",
    "type_v": "--cache-type-v",
    "rope_scaling_type": "--rope-scaling",
}
_MOST_SCALE = 1e4  # by which positions are scaled, either way; models have at most a thousandth
_MOST_BASE = 1e15


@dataclass(frozen=True)
class Lora:
    """A LoRA adapter.

    Attributes:
        path: the .gguf file, as llama.cpp's convert_lora_to_gguf.py writes it.
        scale: what its change of the weights is multiplied by.

    Raises:
        BadInput: a scale out of range.
    """

    path: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_number("the scale of a LoRA adapter", self.scale, -1e3, 1e3)


@dataclass(frozen=True)
class ModelOptions:
    """What a model is run with beside its file; names and meanings are llama.cpp's.

    Attributes:
        lora: adapters whose changes are added to the weights.
        type_k, type_v: types of the keys and the values in the KV cache.
        rope_scaling_type: how positions beyond the trained ones are scaled; None for the model's.
        rope_freq_base: base of the rotation's frequencies; 0 for the model's.
        rope_freq_scale: what they are multiplied by, 1/N for N times the context; 0 for the
            model's.
        yarn_ext_factor: mix of extrapolation and interpolation, 0 for interpolation only; negative
            for the model's, as for the next three.
        yarn_attn_factor: scale of the attention's magnitude.
        yarn_beta_fast: low correction dimension.
        yarn_beta_slow: high correction dimension.
        yarn_orig_ctx: tokens of the context before scaling; 0 for the model's.

    Raises:
        BadInput: a number out of range, or a type that is not known.
    """

    lora: tuple[Lora, ...] = ()
    type_k: KVType = "f16"
    type_v: KVType = "f16"
    rope_scaling_type: RopeScaling | None = None
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    yarn_ext_factor: float = -1.0
    yarn_attn_factor: float = -1.0
    yarn_beta_fast: float = -1.0
    yarn_beta_slow: float = -1.0
    yarn_orig_ctx: int = 0

    def __post_init__(self) -> None:
        _check_choice("cache-type-k", self.type_k, get_args(KVType))
        _check_choice("cache-type-v", self.type_v, get_args(KVType))
        if self.rope_scaling_type is not None:
            _check_choice("rope-scaling", self.rope_scaling_type, get_args(RopeScaling))
        if self.rope_freq_base != 0.0:
            check_number("rope-freq-base", self.rope_freq_base, 1.0, _MOST_BASE, or_zero=True)
        if self.rope_freq_scale != 0.0:
            check_number(
                *("rope-freq-scale", self.rope_freq_scale, 1 / _MOST_SCALE, _MOST_SCALE),
                or_zero=True,
            )
        for name in ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"):
            check_number(name.replace("_", "-"), getattr(self, name), -1.0, 1e4)
        check_number("yarn-orig-ctx", self.yarn_orig_ctx, 0, MOST_INT32, whole=True)

    @property
    def _changed(self) -> dict[str, Any]:
        """What differs from the model's own and the defaults, by field."""
        values = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    @property
    def _changed_positions(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in self._changed.items()
            if name.startswith(("rope_", "yarn_"))
        }

    @property
    def flags(self) -> list[str]:
        """The command line's names of what is given here."""
        return [_FLAGS.get(name, f"--{name.replace('_', '-')}") for name in self._changed]

    @property
    def position_flags(self) -> list[str]:
        """Those that scale positions."""
        return [flag for flag in self.flags if flag.startswith(("--rope", "--yarn"))]

    @property
    def changes(self) -> str:
        """What changes the model's logits by more than rounding, so that what was learned about
        the model without it does not hold; "" for nothing.

        Raises:
            BadInput: an adapter cannot be read.
        """
        adapters = [f"lora {model_fingerprint(each.path)} {each.scale}" for each in self.lora]
        positions = [f"{name} {value}" for name, value in self._changed_positions.items()]
        return ", ".join([*adapters, *positions])

    def to_json(self) -> dict[str, Any]:
        """JSON-able; ``from_json`` restores it, whatever folder that is done in."""
        lora = [[str(each.path.resolve()), each.scale] for each in self.lora]
        return {**self._changed, "lora": lora}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> ModelOptions:
        """What ``to_json`` returned."""
        lora = tuple(Lora(Path(path), scale) for path, scale in saved["lora"])
        return cls(**{**saved, "lora": lora})

    def trained_context(self, trained: int, original: int) -> int:
        """Tokens of the longest text that the model is made for with these options.

        Args:
            trained: tokens that it was trained for.
            original: those before its own scaling.
        """
        if self.rope_scaling_type != "yarn" or not self.rope_freq_scale:
            return trained
        # As llama.cpp does (llama_init_from_model).
        longest = math.floor((self.yarn_orig_ctx or original) / self.rope_freq_scale)
        return max(1, min(longest, MOST_INT32))

    def set_positions(self, params: Any) -> None:
        """Sets a context's positions.

        Args:
            params: llama.cpp's own structure of how to make the context.
        """
        for name, value in self._changed_positions.items():
            setattr(params, name, _SCALINGS[value] if name == "rope_scaling_type" else value)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadInput(f"{name} is {value!r}; choose from {', '.join(choices)}")
