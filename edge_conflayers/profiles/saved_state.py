"""What methods learn, as types that are checked when they are read from disk."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from edge_conflayers.errors import BadInput, one_line

_State = TypeVar("_State", bound="SavedState")

_LARGEST = sys.float_info.max
Number = Annotated[float, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
"""A finite number."""
Positive = Annotated[float, msgspec.Meta(ge=0, le=_LARGEST)]
"""A finite number, at least 0."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class UnusableState(BadInput):
    """What was saved is damaged, or was learned about another model."""

    def __init__(self, why: object) -> None:
        super().__init__(f"what was learned cannot be used ({one_line(why)})")


class SavedState(msgspec.Struct):
    """Base of the types. Their fields' types and limits are checked on the way in."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able; ``from_json`` restores it exactly."""
        state: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return state

    @classmethod
    def from_json(cls: type[_State], data: Mapping[str, Any]) -> _State:
        """Restores what ``to_json`` returned.

        Raises:
            UnusableState: a field is missing, of another type or out of its limits.
        """
        try:
            return msgspec.convert(data, cls, str_keys=True)
        except msgspec.ValidationError as error:
            raise UnusableState(error) from None


def check_same(what: str, saved: object, here: object) -> None:
    """Checks something that a state was learned for against what it is to be used for.

    Raises:
        UnusableState: they differ.
    """
    if saved != here:
        raise UnusableState(f"it is for {what} {saved}, not {here}")


def check_below(what: str, numbers: Iterable[int], limit: int) -> None:
    """Checks numbers of layers, sub-layers or tokens against how many the model has.

    Raises:
        UnusableState: one is not from 0 to limit - 1.
    """
    for number in numbers:
        if not 0 <= number < limit:
            raise UnusableState(f"{what} {number} of a model that has {limit}")
