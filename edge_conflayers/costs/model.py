"""T1, V(n) and c(S) at any context length, from steps measured at one or two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import msgspec

from edge_conflayers.costs.interpolate import interpolate
from edge_conflayers.engine.session import LayerMask
from edge_conflayers.errors import BadInput

_LEAST_C = 0.02  # not tuned; no draft step is predicted to cost next to nothing


class Measurement(msgspec.Struct, frozen=True):
    """Costs at one context length.

    Attributes:
        context: tokens in the cache before each step.
        t1: seconds of a full one-token step with its logits.
        attention, mlp: seconds of one sub-layer in a one-token step, the inner layers' mean.
        v: V(n) by n, from 2 on.
    """

    context: int
    t1: float
    attention: float
    mlp: float
    v: dict[int, float]

    def __post_init__(self) -> None:
        numbers = (self.t1, self.attention, self.mlp, *self.v.values())
        if not all(isfinite(number) and number >= 0 for number in numbers):
            raise ValueError("a time is not a number of seconds")
        if self.t1 == 0 or not self.v or min(self.v) < 2 or min(self.v.values()) == 0:
            raise ValueError("the time of a full step is missing")


class StepCosts(msgspec.Struct, frozen=True):
    """Costs of a model's steps at any context length.

    Attributes:
        at: measurements at one context length, or at two in ascending order and of the same n;
            a straight line between and beyond them.
        maskable: whether the model can run with sub-layers dropped; if not, a sub-layer costs 0.
    """

    at: tuple[Measurement, ...]
    maskable: bool = True

    def __post_init__(self) -> None:
        contexts = [each.context for each in self.at]
        if not 1 <= len(contexts) <= 2 or contexts != sorted(set(contexts)):
            raise ValueError("they are not of one context length or of two in ascending order")
        if len({tuple(sorted(each.v)) for each in self.at}) > 1:
            raise ValueError("V was not measured for the same numbers of tokens")

    def t1(self, context: int) -> float:
        """Seconds of a full one-token step."""
        return self._at(context, lambda each: each.t1)

    def attention(self, context: int) -> float:
        """Seconds of one layer's attention in a one-token step."""
        return self._at(context, lambda each: each.attention)

    def mlp(self, context: int) -> float:
        """Seconds of one layer's MLP in a one-token step."""
        return self._at(context, lambda each: each.mlp)

    def c(self, mask: LayerMask, context: int, *, saved_seconds: float = 0.0) -> float:
        """c(S): a one-token draft step under a mask, over T1.

        Args:
            saved_seconds: what a draft vocabulary saves of the step.
        """
        t1 = self.t1(context)
        dropped = len(mask.attention) * self.attention(context) + len(mask.mlp) * self.mlp(context)
        return max((t1 - dropped - saved_seconds) / t1, 0.0)

    def v(self, n: int, context: int) -> float:
        """V(n): a full step over ``n`` tokens, over T1.

        Never less than the measured V of fewer tokens. Beyond the largest measured n, the line
        through the last two goes on.
        """
        if n <= 1:
            return 1.0
        points = [(1, 1.0)]
        for size in sorted(self.at[0].v):
            ratio = self._at(context, lambda each, size=size: each.v[size])  # type: ignore[misc]
            points.append((size, max(ratio, points[-1][1])))
        return interpolate(points, n)

    def _at(self, context: int, value: Callable[[Measurement], float]) -> float:
        """A value at a context length; at least half of the least measured."""
        points = [(each.context, value(each)) for each in self.at]
        return max(interpolate(points, context), min(y for _, y in points) / 2)

    def to_json(self) -> dict[str, Any]:
        """JSON-able; ``from_json`` restores it exactly."""
        state: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        return state

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StepCosts:
        """Restores what ``to_json`` gave.

        Raises:
            BadInput: something is missing, not a number, or makes no sense.
        """
        try:
            return msgspec.convert(data, cls, str_keys=True)
        except msgspec.ValidationError as error:
            raise BadInput(f"the saved costs cannot be used ({error}); measure again") from error


@dataclass
class CostsAtContext:
    """Costs of steps at one context length, in full one-token steps.

    Attributes:
        costs: what was measured.
        context: tokens in the cache; may be set anew as the text grows.
        saved_seconds: what a draft vocabulary saves of each draft step.
    """

    costs: StepCosts
    context: int = 0
    saved_seconds: float = 0.0

    def c(self, mask: LayerMask) -> float:
        """c(S): a one-token draft step under a mask; never under 0.02."""
        return max(_LEAST_C, self.costs.c(mask, self.context, saved_seconds=self.saved_seconds))

    def v(self, n: int) -> float:
        """V(n): a full step over ``n`` tokens with logits for all of them."""
        return self.costs.v(n, self.context)

    @property
    def attention(self) -> float:
        """One layer's attention in a one-token step."""
        return self.costs.attention(self.context) / self.costs.t1(self.context)

    @property
    def mlp(self) -> float:
        """One layer's MLP in a one-token step."""
        return self.costs.mlp(self.context) / self.costs.t1(self.context)
