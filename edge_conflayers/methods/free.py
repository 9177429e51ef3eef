"""Methods whose drafts take no step of any model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_conflayers.drafters.free import FreeDrafter
from edge_conflayers.drafters.lookup import LookupSource
from edge_conflayers.drafters.recycling import RecyclingSource
from edge_conflayers.engine.model import Model
from edge_conflayers.methods.method import Forgetful, MethodOptions, Simple


class Plain(Forgetful):
    """Plain decoding: one step of the full model for each token."""

    drafter = None

    def __init__(self, model: Model, options: MethodOptions) -> None:
        pass


class Lookup(Forgetful):
    """Drafts what followed when the text's last tokens occurred before (SuffixDecoding, arXiv
    2411.04975)."""

    def __init__(self, model: Model, options: MethodOptions) -> None:
        self.drafter = FreeDrafter(LookupSource())


class Recycling(Simple):
    """Drafts from what the full model held likely after the same tokens before (Token Recycling,
    arXiv 2408.08696)."""

    def __init__(self, model: Model, options: MethodOptions) -> None:
        self._n_vocab = model.n_vocab
        self._start(RecyclingSource())

    def _start(self, source: RecyclingSource) -> None:
        self._source = source
        self.drafter = FreeDrafter(source)

    def settings(self) -> dict[str, Any]:
        return {"method": "recycling"}

    def state(self) -> dict[str, Any]:
        return self._source.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        self._start(RecyclingSource.from_state(state, self._n_vocab))
