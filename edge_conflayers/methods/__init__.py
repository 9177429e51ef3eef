"""The methods that a user can name, and how each one's drafter is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.methods.auto import AUTO_DRAFT_MODEL, Auto, AutoDraftModel
from edge_conflayers.methods.draft_model import DRAFT_MODEL, DraftModel
from edge_conflayers.methods.early_exit import Del, LayerSkip
from edge_conflayers.methods.free import Lookup, Plain, Recycling
from edge_conflayers.methods.measured import Measured
from edge_conflayers.methods.method import Method, MethodOptions
from edge_conflayers.methods.searched import Clasp, ConfLayers, KnapSpec, Swift

__all__ = [
    "DRAFT_MODEL_METHODS",
    "FORESEEING",
    "METHODS",
    "SHARING_SKIP_SETS",
    "Method",
    "MethodOptions",
    "check_draft_model",
    "make_method",
    "uses_head",
]

METHODS: dict[str, Callable[[Model, MethodOptions], Method]] = {
    "auto": Auto,
    "plain": Plain,
    "conflayers": ConfLayers,
    "swift": Swift,
    "measured": Measured,
    "clasp": Clasp,
    "knapspec": KnapSpec,
    "layerskip": LayerSkip,
    "del": Del,
    "lookup": Lookup,
    "recycling": Recycling,
    DRAFT_MODEL: DraftModel,
    AUTO_DRAFT_MODEL: AutoDraftModel,
}


DRAFT_MODEL_METHODS = (DRAFT_MODEL, AUTO_DRAFT_MODEL)
"""Methods that draft with a second model."""

FORESEEING = ("auto", AUTO_DRAFT_MODEL)
"""Methods that ask a next-state head."""

SHARING_SKIP_SETS = ("auto", AUTO_DRAFT_MODEL, "measured")
"""Methods whose state is the profile that ``tune`` writes."""


def make_method(name: str, model: Model, options: MethodOptions | None = None) -> Method:
    """The method of that name for a model, knowing nothing yet.

    Raises:
        BadInput: there is no such method, the model is too small for it, or an option that it needs
            is missing or of no use to it.
    """
    if name not in METHODS:
        raise BadInput(f"there is no method '{name}'; choose from {', '.join(METHODS)}")
    return METHODS[name](model, options or MethodOptions())


def uses_head(names: Iterable[str]) -> bool:
    """Whether one of these methods asks a next-state head."""
    return not set(FORESEEING).isdisjoint(names)


def check_draft_model(names: Iterable[str], *, given: bool) -> None:
    """Refuses a draft model that none of these methods uses.

    Raises:
        BadInput: there is one.
    """
    if given and set(DRAFT_MODEL_METHODS).isdisjoint(names):
        raise BadInput(
            f"--draft-model is of use to the methods {' and '.join(DRAFT_MODEL_METHODS)} only;"
            " choose one of them"
        )
