"""Drafts by a second model."""

from __future__ import annotations

from edge_conflayers.drafters.draft_model import DraftModelDrafter, check_vocabulary
from edge_conflayers.errors import BadInput
from edge_conflayers.methods.method import Forgetful, MethodOptions
from edge_conflayers.model import Model

DRAFT_MODEL = "draft-model"


class DraftModel(Forgetful):
    """Drafts with a second model (Leviathan et al., arXiv 2211.17192)."""

    def __init__(self, model: Model, options: MethodOptions) -> None:
        if options.draft_model is None:
            raise BadInput(
                f"method '{DRAFT_MODEL}' needs a second model; give it with --draft-model"
            )
        check_vocabulary(model, options.draft_model)
        self.drafter = DraftModelDrafter(options.draft_model)

    def close(self) -> None:
        self.drafter.close()
