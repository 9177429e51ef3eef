"""How cautiously the controller drafts."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_conflayers.controller.loss_budget import BudgetSettings


@dataclass(frozen=True)
class Policy:
    """How drafts are held back that may not pay.

    Attributes:
        budget: what a text may lose.
        search_share: of the time that drafts have saved, what the search for skip sets may spend.
            Not tuned.
        margin: factor by which the expected gain of candidates must exceed their time in plain
            decoding: the best of many is seldom as good as it looks. 2.0 with ``min_acceptance``
            0.1, over 1.5 and 0.04: Gemma 2.49 to 2.74, SmolLM2 1.32 to 1.36, no text under 0.98
            any more (simulated over 270 recorded texts, 2026-11-25).
        draft_share: share of the loss budget that one draft may risk. One bad first draft used to
            spend nearly all: Gemma 2.59 to 2.71 with 1/2 (26 prompts), 1/3 with a first budget of
            1.25 steps (2026-11-25).
        arm_margin: ``margin`` for drafts that take time. 1.15 over 1.05: 0.5B 1.323 to 1.343,
            1.5B the same (26 and 13 prompts, 2026-11-25).
        arm_share: ``draft_share`` for drafts that take time. Simulated, 2026-11-25.
        reserve: one-token steps of the budget that only candidates may use.
        min_acceptance: rate under which a candidate, with all before it, is not verified.
        retry_after: rounds without a draft after which what would not pay is tried all the same,
            at a tenth of its price: a source may have become better. Not tuned.
    """

    budget: BudgetSettings = field(default_factory=BudgetSettings)
    search_share: float = 0.1
    margin: float = 2.0
    draft_share: float = 1 / 3
    arm_margin: float = 1.15
    arm_share: float = 1 / 3
    reserve: float = 0.0
    min_acceptance: float = 0.1
    retry_after: int = 48


WITH_NEXT_STATE = Policy(margin=1.5, draft_share=1 / 2, reserve=1.0, min_acceptance=0.04)
"""With a next-state head, which proposes tokens in any text, so a bad beginning is often made
good (1.5B and 0.5B, simulated over recorded texts and 26 prompts, 2026-11-25)."""
