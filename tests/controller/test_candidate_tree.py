"""Candidate trees: merged, ordered, cut where they stop paying."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.candidate_tree import CandidateTree
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.drafters.native_source import GivenSource
from edge_conflayers.engine.draft import ROOT, Draft

Path = tuple[int, ...]
FREE: dict[str, Any] = {
    **{"tokens_per_second": 0.0, "budget": 1.0},
    **{"min_acceptance": 0.0, "chain": False},
}


def source_of(name: str, draft: Draft) -> GivenSource:
    source = GivenSource(name)
    source.give(draft)
    return source


def free(n: int) -> float:
    """Seconds of a step with n candidates: all that there are can be had for nothing."""
    return 1.0


def choose(
    drafts: Sequence[Draft],
    counts: Iterable[int] = range(1, 32),
    *,
    step: Callable[[int], float] = free,
    acceptance: AcceptanceRates | None = None,
    pending: int = 1,
    limit: int = 31,
    rate: float = 0.0,
    budget: float = math.inf,
    min_acceptance: float = 0.0,
    chain: bool = False,
) -> tuple[Draft, float]:
    """The choice among drafts of "a", "b", ..."""
    times = StepTimes(1.0, {pending + n: step(n) for n in range(1, 33)})
    candidates = CandidateTree(
        [source_of(name, draft) for name, draft in zip("abc", drafts, strict=False)],
        times,
        acceptance or AcceptanceRates(),
        [pending + n for n in counts],
    )
    return candidates.choose(
        pending,
        limit,
        tokens_per_second=rate,
        budget=budget,
        min_acceptance=min_acceptance,
        chain=chain,
    )


def random_tree(seed: int, size: int) -> Draft:
    """Siblings leave some probability to others."""
    rng = random.Random(seed)
    tokens: list[int] = []
    parents: list[int] = []
    taken = set()
    while len(tokens) < size:
        parent = rng.randrange(-1, len(tokens))
        token = rng.randrange(size + 2)
        if (parent, token) not in taken:
            taken.add((parent, token))
            tokens.append(token)
            parents.append(parent)
    chances = tuple(rng.uniform(0.3, 0.95) / parents.count(parent) for parent in parents)
    return Draft(tuple(tokens), chances, tuple(parents))


def paths(draft: Draft) -> list[Path]:
    found: list[Path] = []
    for i, token in enumerate(draft.tokens):
        before = () if draft.parent(i) == ROOT else found[draft.parent(i)]
        found.append((*before, token))
    return found


def path_chances(draft: Draft) -> dict[Path, float]:
    """Of a single source's draft, each node's with all before it."""
    found: list[float] = []
    for i, probability in enumerate(draft.probabilities):
        found.append(probability * (1.0 if draft.parent(i) == ROOT else found[draft.parent(i)]))
    return dict(zip(paths(draft), found, strict=True))


def ranked(drafts: Sequence[Draft], acceptance: AcceptanceRates | None = None) -> dict[Path, float]:
    """Every node of the merged tree, likeliest first, and its chance: what one more is worth."""
    order: dict[Path, float] = {}
    before = 0.0
    for n in itertools.count(1):
        draft, gain = choose(drafts, (n,), acceptance=acceptance)
        if not draft.tokens:
            return order
        (new,) = set(paths(draft)) - set(order)
        order[new] = gain - before
        before = gain
    raise AssertionError


@given(st.integers(0, 10**6), st.integers(1, 15), st.integers(0, 15))
def test_merged_trees_hold_every_path_once(seed: int, n: int, m: int) -> None:
    first, second = random_tree(seed, n), random_tree(seed + 1, m)
    merged, gain = choose([first, second])
    assert sorted(paths(merged)) == sorted({*paths(first), *paths(second)})
    order = ranked([first, second])
    assert sorted(order) == sorted(paths(merged))
    assert gain == pytest.approx(sum(order.values()))
    chances = list(order.values())
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(chances))
    for path, chance in order.items():
        assert chance <= (order[path[:-1]] if len(path) > 1 else 1) + 1e-9


def test_sources_err_independently() -> None:
    a = Draft((5, 6), (0.5, 0.9))
    b = Draft((5, 7, 8), (0.8, 0.5, 0.5), (ROOT, 0, ROOT))
    both = 1 - (1 - 0.5) * (1 - 0.8)
    assert ranked([a, b]) == pytest.approx(
        {
            (5,): both,
            (5, 6): both * 0.9,
            (8,): (1 - 0.5) * 0.5,
            (5, 7): both * (1 - 0.9) * 0.5,
        }
    )
    draft, _ = choose([a, b])
    known = dict(
        zip(paths(draft), zip(draft.sources, draft.probabilities, strict=True), strict=True)
    )
    assert known[(5,)] == ("b", 0.8)  # the surer one's
    assert known[(5, 6)] == ("a", 0.9) and known[(8,)] == ("b", 0.5)


def test_acceptance_rates_count() -> None:
    acceptance = AcceptanceRates()
    draft = Draft((5, 6), (0.5, 0.3))
    assert ranked([draft], acceptance) == pytest.approx({(5,): 0.5, (5, 6): 0.15})
    for i in range(36):
        acceptance.observe("a", 0.5, i % 6 > 0)
    half = (30 + 4 * 0.5) / 40
    assert ranked([draft], acceptance) == pytest.approx({(5,): half, (5, 6): half * 0.3})
    candidates = CandidateTree([source_of("a", draft)], StepTimes(1.0, {2: 1.0}), acceptance)
    acceptance.observe("a", 0.3, False)  # it goes on being heard
    _, gain = candidates.choose(
        1, 2, tokens_per_second=0.0, budget=1.0, min_acceptance=0.0, chain=False
    )
    assert gain == pytest.approx(half * (1 + 4 * 0.3 / 5))


@given(st.integers(0, 10**6), st.integers(1, 14), st.integers(1, 14))
def test_the_first_row_is_the_likeliest_chain(seed: int, size: int, n: int) -> None:
    whole = random_tree(seed, size)
    chances = path_chances(whole)
    draft, gain = choose([whole], (n,))
    best = sorted(chances, key=chances.__getitem__, reverse=True)[:n] if n <= size else []
    assert sorted(paths(draft)) == sorted(best)
    assert gain == pytest.approx(sum(chances[path] for path in best))
    assert all(draft.parent(i) < i for i in range(len(draft.tokens)))
    row: list[Path] = []
    while children := [p for p in best if p[:-1] == (row[-1] if row else ())]:
        row.append(max(children, key=chances.__getitem__))
    assert paths(draft)[: len(row)] == row


@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0.2, 3.0))
def test_no_other_set_of_nodes_is_worth_more(seed: int, size: int, rate: float) -> None:
    """Against every set of nodes that holds its nodes' parents."""

    def step(n: int) -> float:
        return 1.0 + 0.1 * n + (0.3 if n > 3 else 0.0)

    whole = random_tree(seed, size)
    draft, gain = choose([whole], step=step, rate=rate)
    chances = path_chances(whole)
    best = 0.0
    for chosen in itertools.product([False, True], repeat=size):
        kept = {path for path, keep in zip(chances, chosen, strict=True) if keep}
        if all(len(path) == 1 or path[:-1] in kept for path in kept):
            accepted = sum(chances[path] for path in kept)
            best = max(best, accepted - rate * (step(len(kept)) - step(0)))
    assert gain == pytest.approx(best)
    accepted = sum(chances[path] for path in paths(draft))
    assert gain == pytest.approx(accepted - rate * (step(len(draft.tokens)) - step(0)))


SURE = Draft(tuple(range(9)), (1.0,) * 9)


@pytest.mark.parametrize(
    "counts, settings, n",
    [
        (range(1, 5), {}, 4),
        ((2, 5, 11), {}, 5),
        ((), {}, 0),
        (range(1, 10), {"limit": 3}, 3),
        (range(1, 10), {"limit": 0}, 0),
        (range(1, 10), {"pending": 3}, 9),
        (range(1, 10), {"budget": 0.45, "step": lambda n: 1 + n / 10}, 4),
        (range(1, 10), {"budget": 0.0, "step": lambda n: 1 + n / 10}, 0),
        (range(1, 10), {"rate": 1.0, "step": lambda n: 1 + n / 10 + 4 * (n > 6)}, 6),
        (range(1, 10), {"rate": 5.0, "step": lambda n: 1 + n}, 0),
    ],
)
def test_how_many(counts: Sequence[int], settings: dict[str, object], n: int) -> None:
    draft, gain = choose([SURE], counts, **settings)  # type: ignore[arg-type]
    assert draft.tokens == tuple(range(n))
    assert (gain > 0) is (n > 0)


def test_unlikely_nodes_are_left_out() -> None:
    draft = Draft((1, 2, 3, 4), (0.9, 0.5, 0.5, 0.1), (ROOT, 0, 1, ROOT))
    assert choose([draft], min_acceptance=0.3)[0].tokens == (1, 2)
    assert choose([draft], min_acceptance=0.95)[0] == Draft()
    assert len(choose([draft])[0].tokens) == 4


def test_chains() -> None:
    a = Draft((1, 2, 3), (0.3, 0.5, 0.2), (ROOT, 0, ROOT))
    b = Draft((3, 4), (0.9, 0.9))
    draft, gain = choose([a, b], chain=True)
    assert draft.tokens == (3, 4) and draft.is_chain and draft.sources == ("b", "b")
    assert gain == pytest.approx(0.7 * 0.9 * 1.9)  # a's chain leaves 3 the rest


@pytest.mark.parametrize("drafts", [[], [Draft()], [Draft(), Draft()]])
def test_no_candidates(drafts: list[Draft]) -> None:
    draft, gain = choose(drafts)
    assert draft.tokens == () and gain == 0


def test_more_pending_tokens_than_a_step_takes() -> None:
    candidates = CandidateTree([source_of("a", SURE)], StepTimes(1.0, {2: 1.0}), AcceptanceRates())
    draft, _ = candidates.choose(
        99, 5, tokens_per_second=0.0, budget=1.0, min_acceptance=0.0, chain=False
    )
    assert draft.tokens == ()
