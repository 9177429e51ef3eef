"""Who finds skip sets: one module per published search, all behind `SkipSetSearch`."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt


@runtime_checkable
class SkipSetSearch(Protocol):
    """What the draft/verify loop needs from a search that runs during generation.

    The loop drafts with `skip_set`, reports every round with `observe_round`, and, when
    `wants_probe` is then true, runs the full model over the last `context_window` generated
    tokens and hands the probe's numbers to `propose`. It reads `skip_set` again after both.
    """

    @property
    def skip_set(self) -> tuple[int, ...]:
        """Layers to drop in the next draft, 0-based, ascending; empty means: draft nothing."""
        ...

    @property
    def wants_probe(self) -> bool:
        """Whether `propose` is due now; true only while enough tokens have been generated."""
        ...

    @property
    def context_window(self) -> int:
        """How many of the last generated tokens a probe runs over."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the search has stopped; `skip_set` stays as it is from then on."""
        ...

    def observe_round(self, drafted: int, accepted: int, tokens_generated: int) -> None:
        """Report one finished round.

        drafted: tokens drafted in the round; accepted: how many of them verification kept;
        tokens_generated: new tokens of the current text so far, this round's included.
        Raises ValueError unless 0 <= accepted <= drafted.
        """
        ...

    def propose(self, confidence_attn: npt.NDArray[Any], confidence_mlp: npt.NDArray[Any]) -> None:
        """Take a probe's confidences, float [n_layer] each, and choose the next skip set."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything the search knows, JSON-able, for the profile."""
        ...
