"""Rounds of drafts by early exits, whose verification goes on where the draft stopped."""

from __future__ import annotations

import numpy as np
from steps import assert_same_bits, decode, random_tokens, step, verify

from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import Session


def check_round(
    session: Session,
    reference: Session,
    pending: list[int],
    draft: Draft,
    rng: np.random.Generator,
    *,
    number: int,
    reused: int,
) -> list[int]:
    """Verifies a draft, accepts a part of any length, and compares all logits with those of a
    session that decodes the same tokens one by one.

    Args:
        number: of the round, for tokens that differ from the last round's.
        reused: how many verifications must have gone on from an exit so far.

    Returns:
        The next round's pending tokens.
    """
    begin, model = len(session), session.model
    found = verify(session, pending, draft)
    assert session.exits_reused == reused
    wanted = decode(reference, [*pending, *draft.tokens], [1])
    assert_same_bits(found, wanted)
    kept = len(pending) + int(rng.integers(0, len(draft.tokens) + 1))
    session.rollback(begin + kept)
    reference.rollback(begin + kept)
    # What stayed in the cache is looked at by full steps and by what comes next.
    following = random_tokens(model, 3, seed=number)
    assert_same_bits(step(session, following), decode(reference, following, [1]))
    session.rollback(begin + kept)
    reference.rollback(begin + kept)
    return random_tokens(model, 1 + number % 3, seed=-number + 100)
