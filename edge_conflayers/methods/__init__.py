"""The methods that a user can name, and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.methods import published, tuned
from edge_conflayers.methods.method import Method, MethodOptions

__all__ = [
    "DRAFT_MODEL_METHODS",
    "METHODS",
    "TUNED_METHODS",
    "Method",
    "MethodOptions",
    "check_draft_model",
    "make_method",
    "uses_head",
]

METHODS: dict[str, Callable[[Model, MethodOptions], Method]] = {
    "auto": tuned.Auto,
    "plain": published.plain,
    "conflayers": published.conflayers,
    "swift": published.swift,
    "measured": tuned.Measured,
    "clasp": published.clasp,
    "knapspec": published.knapspec,
    "layerskip": published.layerskip,
    "del": published.del_,
    "lookup": published.lookup,
    "recycling": published.recycling,
    "draft-model": published.draft_model,
    "auto-draft-model": tuned.auto_draft_model,
}

DRAFT_MODEL_METHODS = ("draft-model", "auto-draft-model")
"""Methods that draft with a second model."""

TUNED_METHODS = ("auto", "auto-draft-model", "measured")
"""Methods whose state is the profile that ``tune`` writes."""

_HEAD_METHODS = ("auto", "auto-draft-model")


def make_method(name: str, model: Model, options: MethodOptions | None = None) -> Method:
    """Makes the method of that name for a model, knowing nothing yet.

    Raises:
        BadInput: there is no such method, the model is too small for it, or an option that it needs
            is missing.
    """
    if name not in METHODS:
        raise BadInput(f"there is no method '{name}'; choose from {', '.join(METHODS)}")
    return METHODS[name](model, options or MethodOptions())


def uses_head(names: Iterable[str]) -> bool:
    """Whether one of these methods asks a next-state head."""
    return not set(_HEAD_METHODS).isdisjoint(names)


def check_draft_model(names: Iterable[str], *, given: bool) -> None:
    """Refuses a draft model that none of these methods uses.

    Raises:
        BadInput: one is given, and none uses it.
    """
    if given and set(DRAFT_MODEL_METHODS).isdisjoint(names):
        raise BadInput(
            f"--draft-model is of use to the methods {' and '.join(DRAFT_MODEL_METHODS)} only;"
            " choose one of them"
        )
