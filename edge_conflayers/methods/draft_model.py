"""Drafts by a second model."""

from __future__ import annotations

from edge_conflayers.drafters.draft_model import DraftModelDrafter
from edge_conflayers.drafters.second_model import check_vocabulary
from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.methods.method import Forgetful, MethodOptions

DRAFT_MODEL = "draft-model"


class DraftModel(Forgetful):
    """Drafts with a second model (Leviathan et al., arXiv 2211.17192)."""

    def __init__(self, model: Model, options: MethodOptions) -> None:
        self.drafter = DraftModelDrafter(required_draft_model(DRAFT_MODEL, model, options))

    def close(self) -> None:
        self.drafter.close()


def required_draft_model(method: str, model: Model, options: MethodOptions) -> Model:
    """The second model that a method drafts with.

    Raises:
        BadInput: there is none, or it has other tokens.
    """
    if options.draft_model is None:
        raise BadInput(f"method '{method}' needs a second model; give it with --draft-model")
    check_vocabulary(model, options.draft_model)
    return options.draft_model
