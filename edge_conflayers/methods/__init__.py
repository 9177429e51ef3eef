"""The methods that a user can name, and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.errors import BadInput
from edge_conflayers.methods import published, tuned
from edge_conflayers.methods.method import Method, MethodOptions

__all__ = [
    "DRAFT_MODEL_METHODS",
    "EXITS_METHODS",
    "METHODS",
    "STATES_METHODS",
    "TUNED_METHODS",
    "Method",
    "MethodOptions",
    "check_draft_model",
    "check_epsilon",
    "make_method",
    "uses_bridges",
    "uses_exits",
    "uses_head",
]

METHODS: dict[str, Callable[[LanguageModel, MethodOptions], Method]] = {
    "auto": tuned.Auto,
    "plain": published.plain,
    "conflayers": published.conflayers,
    "swift": published.swift,
    "measured": tuned.Measured,
    "bridged": tuned.bridged,
    "clasp": published.clasp,
    "knapspec": published.knapspec,
    "layerskip": published.layerskip,
    "del": published.del_,
    "dssd": published.dssd,
    "lookup": published.lookup,
    "recycling": published.recycling,
    "draft-model": published.draft_model,
    "auto-draft-model": tuned.auto_draft_model,
}

DRAFT_MODEL_METHODS = ("draft-model", "auto-draft-model")
"""Methods that draft with a second model."""

TUNED_METHODS = ("auto", "auto-draft-model", "measured")
"""Methods whose state is the profile that ``tune`` writes."""

EXITS_METHODS = ("dssd",)
"""Methods that draft by the exits that ``tune --exits`` teaches."""

STATES_METHODS = ("clasp", "knapspec", *EXITS_METHODS)
"""Methods that look at hidden states."""

_HEAD_METHODS = ("auto", "auto-draft-model")


def make_method(name: str, model: LanguageModel, options: MethodOptions | None = None) -> Method:
    """Makes the method of that name for a model, knowing nothing yet.

    Raises:
        BadInput: there is no such method, the model is too small for it or does not show what it
            looks at, or an option that it needs is missing.
    """
    if name not in METHODS:
        raise BadInput(f"there is no method '{name}'; choose from {', '.join(METHODS)}")
    if name in STATES_METHODS and not model.shows_states:
        others = ", ".join(each for each in METHODS if each not in STATES_METHODS)
        raise BadInput(
            f"method '{name}' needs hidden states, which {model.path} does not show; choose from"
            f" {others}"
        )
    return METHODS[name](model, options or MethodOptions())


def uses_head(names: Iterable[str]) -> bool:
    """Whether one of these methods asks a next-state head."""
    return not set(_HEAD_METHODS).isdisjoint(names)


def uses_exits(names: Iterable[str]) -> bool:
    """Whether one of these methods drafts by taught exits."""
    return not set(EXITS_METHODS).isdisjoint(names)


def check_epsilon(names: Iterable[str], epsilon: float | None) -> None:
    """Refuses an accuracy of taught exits that none of these methods uses.

    Raises:
        BadInput: one is given, and none uses it.
    """
    if epsilon is not None and not uses_exits(names):
        raise BadInput(
            f"--epsilon is of use to the method {' and '.join(EXITS_METHODS)} only; choose it"
        )


def uses_bridges(names: Iterable[str]) -> bool:
    """Whether one of these methods drafts over bridges."""
    return "bridged" in names


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
