"""Options that say what a model is run with beside its file, by llama.cpp's names."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.completing import one_of
from edge_conflayers.cli.help import Function, Option, group
from edge_conflayers.errors import BadInput

if TYPE_CHECKING:
    from edge_conflayers.engine.model_options import ModelOptions

_OF_THE_MODEL = "  [default: the model's]"
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""Of ``engine.model_options``, for help and completion."""
_SCALINGS = ("none", "linear", "yarn")


def _number(*names: str, help: str) -> Option:
    return click.option(*names, type=float, help=help + _OF_THE_MODEL)


def _cache_type(short: str, long: str, what: str) -> Option:
    return click.option(
        *(short, long),
        metavar="TYPE",
        default="f16",
        show_default=True,
        shell_complete=one_of(CACHE_TYPES),
        help=f"Type of the {what} in the KV cache: {', '.join(CACHE_TYPES[:-1])} or"
        f" {CACHE_TYPES[-1]}.",
    )


_OPTIONS: tuple[Option, ...] = (
    _cache_type("-ctk", "--cache-type-k", "keys"),
    _cache_type("-ctv", "--cache-type-v", "values"),
    click.option(
        "--lora",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FILE",
        help="LoRA adapter (GGUF) whose changes are added to the weights; repeatable.",
    ),
    click.option(
        "--lora-scaled",
        type=(click.Path(path_type=Path), float),
        multiple=True,
        metavar="FILE SCALE",
        help="LoRA adapter, and what its changes are multiplied by; repeatable.",
    ),
    click.option(
        "--rope-scaling",
        metavar=f"[{'|'.join(_SCALINGS)}]",
        shell_complete=one_of(_SCALINGS),
        help="How positions beyond the trained ones are scaled." + _OF_THE_MODEL,
    ),
    _number("--rope-scale", help="Makes room for N times the trained context."),
    _number("--rope-freq-base", help="Base of the rotation's frequencies."),
    _number("--rope-freq-scale", help="What they are multiplied by: 1/N of --rope-scale."),
    click.option("--yarn-orig-ctx", type=int, help="YaRN: context before scaling." + _OF_THE_MODEL),
    _number("--yarn-ext-factor", help="YaRN: mix of extrapolation, 0 for interpolation only."),
    _number("--yarn-attn-factor", help="YaRN: scale of the attention's magnitude."),
    _number("--yarn-beta-slow", help="YaRN: high correction dimension."),
    _number("--yarn-beta-fast", help="YaRN: low correction dimension."),
)
_SAME_NAMES = (
    *("rope_freq_base", "yarn_orig_ctx", "yarn_ext_factor", "yarn_attn_factor"),
    *("yarn_beta_slow", "yarn_beta_fast"),
)
_NAMES = (
    *("cache_type_k", "cache_type_v", "lora", "lora_scaled", "rope_scaling", "rope_scale"),
    *("rope_freq_scale", *_SAME_NAMES),
)


def model_options(command: Function) -> Function:
    """Gives a command these options, as one argument ``options``."""

    @functools.wraps(command)
    def with_options(**given: Any) -> Any:
        mine = {name: given.pop(name) for name in _NAMES}
        return command(options=_read(**mine), **given)

    return group("Model", *_OPTIONS)(with_options)


def _read(
    *,
    cache_type_k: str,
    cache_type_v: str,
    lora: Sequence[Path],
    lora_scaled: Sequence[tuple[Path, float]],
    rope_scaling: str | None,
    rope_scale: float | None,
    rope_freq_scale: float | None,
    **same: float | None,
) -> ModelOptions:
    from edge_conflayers.engine.model_options import Lora, ModelOptions
    from edge_conflayers.limits import check_number

    if rope_scale is not None:
        if rope_freq_scale is not None:
            raise BadInput("--rope-scale and --rope-freq-scale say the same; choose one")
        check_number("rope-scale", rope_scale, 1e-4, 1e4)
        rope_freq_scale = 1 / rope_scale
    given: dict[str, Any] = {"rope_freq_scale": rope_freq_scale, **same}
    return ModelOptions(
        lora=(*map(Lora, lora), *[Lora(path, scale) for path, scale in lora_scaled]),
        type_k=cache_type_k,  # type: ignore[arg-type]  # checked there
        type_v=cache_type_v,  # type: ignore[arg-type]
        rope_scaling_type=rope_scaling,  # type: ignore[arg-type]
        **{name: value for name, value in given.items() if value is not None},
    )
