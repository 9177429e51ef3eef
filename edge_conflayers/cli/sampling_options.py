"""Options that say how tokens are drawn, by llama.cpp's names."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from edge_conflayers.cli.help import Option, group

_BIAS = re.compile(r"\s*(\d+)\s*([+-])\s*(\S+)\s*")  # TOKEN_ID(+/-)BIAS


class LogitBias(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """TOKEN_ID(+/-)BIAS, as in llama.cpp, or a JSON object of biases by token, as in OpenAI's
    API."""

    name = "bias"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[int, float]:
        found = _BIAS.fullmatch(value)
        try:
            if found is not None:
                token, sign, bias = found.groups()
                return {int(token): float(sign + bias)}
            given = json.loads(value)
            return {int(token): float(bias) for token, bias in given.items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            self.fail(
                f'{value!r} is no bias; write 15043+1, 15043-inf or {{"15043": 1}}', param, ctx
            )


def _merged(
    ctx: click.Context, param: click.Parameter, value: tuple[dict[int, float], ...]
) -> dict[int, float]:
    return {token: bias for each in value for token, bias in each.items()}


def _breakers(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...] | None:
    """llama.cpp's: given ones stand instead of the default, and "none" for none."""
    return tuple(each for each in value if each != "none") if value else None


def _number(*names: str, default: float, help: str) -> Option:
    return click.option(*names, type=float, default=default, show_default=True, help=help)


def _count(*names: str, default: int, help: str) -> Option:
    return click.option(*names, type=int, default=default, show_default=True, help=help)


def _seed(default: int) -> Option:
    return _count(
        *("-s", "--seed"),
        default=default,
        help="Seed of the random numbers; -1 draws one and shows it.",
    )


_SEED = _seed(0)
_OPTIONS: tuple[Option, ...] = (
    _number("--temp", default=0.0, help="Sampling temperature; 0 takes the most likely token."),
    _count("--top-k", default=40, help="Keep the k most likely tokens; 0 keeps all."),
    _number("--top-p", default=0.95, help="Keep the most likely tokens up to this probability."),
    _number(
        "--min-p", default=0.05, help="Drop tokens less likely than this share of the likeliest."
    ),
    _number(
        *("--typical", "--typical-p", "typical_p"),
        default=1.0,
        help="Keep the locally typical tokens up to this probability; 1 keeps all.",
    ),
    _number(
        *("--top-n-sigma", "--top-nsigma", "top_n_sigma"),
        default=-1.0,
        help="Drop tokens whose logits are more than so many standard deviations below the highest;"
        " -1 keeps all.",
    ),
    _number(
        "--xtc-probability",
        default=0.0,
        help="Chance of dropping all likely tokens but the least likely of them (XTC).",
    ),
    _number("--xtc-threshold", default=0.1, help="Probability from which XTC takes a token so."),
    _SEED,
    _number("--repeat-penalty", default=1.0, help="Penalty on recent tokens; 1 is none."),
    _count(
        "--repeat-last-n",
        default=64,
        help="Recent tokens that the penalties look at; 0 for none, -1 for as many as the model was"
        " trained for.",
    ),
    _number("--presence-penalty", default=0.0, help="Penalty on tokens that occurred; 0 is none."),
    _number(
        "--frequency-penalty",
        default=0.0,
        help="Penalty on tokens for each time they occurred; 0 is none.",
    ),
    click.option(
        "--mirostat",
        type=click.IntRange(0, 2),
        default=0,
        show_default=True,
        help="Draw by this version of Mirostat in place of the other filters, where --temp is above"
        " 0; 0 does not.",
    ),
    _number(
        *("--mirostat-ent", "mirostat_tau"),
        default=5.0,
        help="Surprise of a token that Mirostat aims at (tau).",
    ),
    _number(
        *("--mirostat-lr", "mirostat_eta"),
        default=0.1,
        help="How fast Mirostat corrects itself (eta).",
    ),
    _number(
        "--dry-multiplier",
        default=0.0,
        help="Penalty on tokens that would go on repeating a sequence (DRY); 0 is none.",
    ),
    _number("--dry-base", default=1.75, help="What DRY's penalty grows by with each token."),
    _count("--dry-allowed-length", default=2, help="Longest sequence that DRY lets be repeated."),
    _count("--dry-penalty-last-n", default=-1, help="Recent tokens of DRY, as --repeat-last-n."),
    click.option(
        "--dry-sequence-breaker",
        "dry_sequence_breakers",
        multiple=True,
        callback=_breakers,
        metavar="TEXT",
        help='Text that DRY\'s sequences end at; repeatable; "none" for none.  [default: a line'
        ' end, :, " and *]',
    ),
    click.option(
        "-l",
        "--logit-bias",
        type=LogitBias(),
        multiple=True,
        callback=_merged,
        metavar="TOKEN(+/-)BIAS",
        help="Added to a token's logit, such as 15043+1, or 15043-inf to ban it; repeatable; or a"
        ' JSON object, {"15043": 1}.',
    ),
)
sampling_options = group("Sampling", *_OPTIONS)
server_sampling_options = group(
    "Sampling", *(_seed(-1) if option is _SEED else option for option in _OPTIONS)
)
"""The same, where each text draws a seed of its own unless one is given."""


def sampler_arguments(temp: float, dry_sequence_breakers: Any, **rest: Any) -> dict[str, Any]:
    """What these options say, as arguments of ``SamplerSettings``."""
    breakers = dry_sequence_breakers
    given = {} if breakers is None else {"dry_sequence_breakers": breakers}
    return {"temperature": temp, **given, **rest}
