"""The controller in a simulated world: what it gains, and what it can lose."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.arm import Prior
from edge_conflayers.controller.controller import Controller, Lineup
from edge_conflayers.controller.layers_arm import LayersArm
from edge_conflayers.controller.loss_budget import BudgetSettings
from edge_conflayers.controller.policy import Policy
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.lookup import LookupSource
from edge_conflayers.drafters.native_source import GivenSource
from edge_conflayers.drafters.source import CandidateSource
from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import ROOT, Draft
from edge_conflayers.engine.session import LayerMask

V = {2: 1.1, 4: 1.25, 8: 1.5, 16: 2.4}
T1 = 0.04
VOCABULARY = 50
STRETCH = 5  # plain rounds in one call


@dataclass
class World:
    """A text to be written, and a clock that steps move."""

    text: list[int]
    noise: float = 0.0
    trees: bool = True
    now: float = 0.0
    watched: int = 0  # calls of the library in which lookups watched
    longest: int = 0  # rounds in one call
    tokens: list[int] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    @property
    def verifies_trees(self) -> bool:
        return self.trees

    def __len__(self) -> int:
        return len(self.tokens)

    def clock(self) -> float:
        return self.now

    def spend(self, seconds: float) -> float:
        seconds *= 1 + self.noise * self.rng.random()
        self.now += seconds
        return seconds


class Guesser(GivenSource):
    """Knows the text and proposes it, right with one probability, claiming another."""

    def __init__(
        self,
        world: World,
        right: float,
        claims: float,
        length: int = 6,
        name: str = "guess",
        seconds: float = 0.0,
    ) -> None:
        super().__init__(name)
        self.world, self.right, self.claims, self.length = world, right, claims, length
        self.seconds = seconds
        self.at = 0
        self.asked = 0
        self.heard: list[Round] = []

    def observe(self, session: Any, pending: Sequence[int]) -> None:
        self.at = len(session) + len(pending)

    def look_ahead(self) -> float:
        self.asked += 1
        self.world.now += self.seconds
        tokens = [
            token if self.world.rng.random() < self.right else (token + 1) % VOCABULARY
            for token in self.world.text[self.at : self.at + self.length]
        ]
        self.give(Draft(tuple(tokens), (self.claims,) * len(tokens)))
        return 0.0

    def learn(self, session: Any, round: Round) -> None:
        self.heard.append(round)


class Layers:
    """A search that is done, and drafts that are right with one chance."""

    finished = True
    mask = LayerMask.layers({1, 2, 3})

    def observe(self, round: Round) -> None: ...


def play(world: World, controller: Controller, n: int) -> tuple[float, list[Round]]:
    """Seconds over those of plain decoding for the first n tokens, and the rounds."""
    rounds: list[Round] = []
    controller.begin(world, [])  # type: ignore[arg-type]
    began = world.now
    pending = [world.text[0]]
    plain = 0.0
    written = 1
    while written < n:
        if (back_off := controller.back_off()) is not None:
            passed: list[Round] = []
            woken = False
            world.watched += bool(back_off.watch)
            while len(passed) < min(back_off.rounds, STRETCH, n - written) and not woken:
                verify = world.spend(T1 * StepTimes(T1, V).v(len(pending)))
                world.tokens += pending
                token = world.text[written]
                written += 1
                passed.append(Round(tuple(pending), Draft(), (), token, written, 0.0, verify))
                pending = [token]
                plain += T1 * (1 + world.noise / 2)
                for handle in back_off.watch:
                    woken |= binding.ecl_lookup_follow(handle, token) >= back_off.wake_at
            rounds += passed
            world.longest = max(world.longest, len(passed))
            controller.skipped(world, passed, woken)  # type: ignore[arg-type]
            continue
        limit = min(n - written - 1, 31 - len(pending))
        before = world.now
        draft = controller.draft(world, pending, limit).first(limit)
        draft_seconds = world.now - before
        verify = world.spend(T1 * StepTimes(T1, V).v(len(pending) + len(draft.tokens)))
        world.tokens += pending
        path, node = [], ROOT
        while (child := draft.child(node, world.text[written])) is not None:
            path.append(child)
            node = child
            written += 1
        row = sum(i == at for at, i in enumerate(path))
        world.tokens += world.text[written - len(path) : written - len(path) + row]
        rest = world.text[written - len(path) + row : written]
        token = world.text[written]
        written += 1
        round = Round(tuple(pending), draft, tuple(path), token, written, draft_seconds, verify)
        rounds.append(round)
        controller.learn(world, round)
        pending = [*rest, token]
        plain += T1 * (len(path) + 1) * (1 + world.noise / 2)
    return (world.now - began) / plain, rounds


def world(seed: int = 0, n: int = 600, **settings: Any) -> World:
    rng = random.Random(seed)
    return World([rng.randrange(VOCABULARY) for _ in range(n + 40)], rng=rng, **settings)


class Fixed(Controller):
    """Under which the same drafters take part in every text."""

    lineup = Lineup(())

    def line_up(self, session: Any, prompt: Sequence[int]) -> Lineup:
        self.times.begin_text(T1, V)
        return self.lineup


def controller(w: World, *sources: CandidateSource, **rest: Any) -> Fixed:
    found = Fixed(StepTimes(T1, V), clock=w.clock)
    found.lineup = Lineup(sources, **rest)
    return found


@pytest.mark.parametrize("claims", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("right", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("n", [128, 500])
def test_never_slower_by_candidates_that_are_wrong(n: int, right: float, claims: float) -> None:
    for seed in range(5):
        w = world(seed)
        ratio, _ = play(w, controller(w, Guesser(w, right, claims)), n)
        assert ratio < 1.02


def test_a_source_that_never_helps_costs_no_more_than_may_be_lost() -> None:
    w = world()
    guesser = Guesser(w, 0.0, 0.02, seconds=0.05 * T1)
    ratio, _ = play(w, controller(w, guesser), 500)
    assert guesser.asked < 150
    assert ratio < 1.015


@pytest.mark.parametrize(("seconds", "share"), [(0.002, 1.0), (0.0095, 0.35), (0.02, 0.18)])
def test_looking_is_rarer_where_it_is_noticed_until_something_is_found(
    seconds: float, share: float
) -> None:
    w = world()
    guesser = Guesser(w, 0.0, 0.001, seconds=seconds * T1)
    found_from = 300
    asked_early = 0

    def look_ahead() -> float:
        nonlocal asked_early
        if guesser.at >= found_from:
            guesser.right, guesser.claims = 1.0, 0.95
        else:
            asked_early += 1
        return Guesser.look_ahead(guesser)

    guesser.look_ahead = look_ahead  # type: ignore[method-assign]
    _, rounds = play(w, controller(w, guesser), 600)
    assert 0.8 * share * found_from < asked_early <= share * found_from
    late = [round for round in rounds if round.generated > found_from + 8]
    assert sum(round.drafted > 0 for round in late) > 0.9 * len(late)


@pytest.mark.parametrize("look", [0.01, 0.02, 0.04])
def test_looking_in_vain_is_bounded_by_time_not_by_rounds(look: float) -> None:
    w = world()
    guesser = Guesser(w, 0.0, 0.001, seconds=look * T1)
    _, rounds = play(w, controller(w, guesser), 200)
    before_it_sleeps, after = 0.25 + look, 0.0025 * len(rounds) + look
    assert 0 < guesser.asked * look <= before_it_sleeps + after


@pytest.mark.parametrize("risk", [0.1, 0.25])
def test_one_draft_risks_a_share_of_what_may_be_lost_until_something_is_won(risk: float) -> None:
    w = world()
    policy = Policy(BudgetSettings(of_elapsed=0.0, first_steps=1.2), draft_share=risk)
    _, rounds = play(w, controller(w, Guesser(w, 1.0, 0.95), policy=policy), 100)
    drafted = [round.drafted for round in rounds if round.drafted]
    at_risk = [StepTimes(T1, V).step(1 + n) - T1 for n in drafted]
    assert at_risk[0] <= risk * policy.budget.first_steps * T1 < at_risk[1]


def test_what_was_slept_through_is_heard_of_at_last() -> None:
    w = world()
    guesser = Guesser(w, 0.0, 0.001, seconds=0.05 * T1)
    c = controller(w, guesser)
    _, rounds = play(w, c, 300)
    assert guesser.asked < 0.2 * len(rounds) and len(guesser.heard) < 0.2 * len(rounds)
    assert c.report()["rounds_by"]["plain"] == len(rounds)


def test_sources_that_learn_always_hear_of_every_round_once() -> None:
    w = world()
    guesser = Guesser(w, 0.0, 0.001, seconds=0.05 * T1)
    guesser.learns_always = True
    _, rounds = play(w, controller(w, guesser), 300)
    assert guesser.asked < 0.2 * len(rounds) and guesser.heard == rounds
    assert w.longest == 1  # the session's logits are those of the last round


def test_where_nothing_may_be_lost_sources_are_asked_seldom() -> None:
    """Right after every bad draft, not only after a while without any."""
    w = world()
    guesser = Guesser(w, 0.0, 0.9, seconds=0.02 * T1)
    policy = Policy(BudgetSettings(of_elapsed=0.0, first_steps=0.0))
    c = controller(w, guesser, policy=policy)
    ratio, rounds = play(w, c, 300)
    assert guesser.asked < 0.3 * len(rounds) and ratio < 1.007


def test_sources_hear_of_rounds_in_which_they_are_not_asked() -> None:
    w = world()
    guesser = Guesser(w, 0.9, 0.9)
    _, rounds = play(w, controller(w, guesser), 100)
    assert guesser.heard == rounds
    assert guesser.asked < len(rounds)  # T1 is measured first


@pytest.mark.parametrize("trees", [True, False])
@pytest.mark.parametrize("claims, most", [(0.5, 0.5), (0.9, 0.45)])
def test_faster_by_candidates_that_are_right(claims: float, most: float, trees: bool) -> None:
    w = world(noise=0.3, trees=trees)
    ratio, rounds = play(w, controller(w, Guesser(w, 0.9, claims)), 500)
    assert ratio < most
    assert sum(r.accepted for r in rounds) > 0.7 * sum(r.drafted for r in rounds)


def test_two_halves_of_a_text() -> None:
    """Wrong at first, right afterwards: found out soon enough."""
    w = world()
    guesser = Guesser(w, 0.0, 0.6)
    c = controller(w, guesser)
    play(w, c, 128)
    w.text = w.text[len(w.tokens) + 1 :]
    w.tokens.clear()
    guesser.right = 0.9
    ratio, _ = play(w, c, 300)
    assert ratio < 0.75


def test_a_text_that_begins_badly() -> None:
    """What is too risky to be verified is followed all the same, and tells when that is over."""
    w = world(n=1000)
    guesser = Guesser(w, 0.0, 0.9)
    c = controller(w, guesser)
    right_from = 300

    def look_ahead() -> float:
        guesser.right = 0.0 if guesser.at < right_from else 0.95
        return Guesser.look_ahead(guesser)

    guesser.look_ahead = look_ahead  # type: ignore[method-assign]
    ratio, rounds = play(w, c, 900)
    early = [r for r in rounds if r.generated < right_from]
    late = [r for r in rounds if r.generated > right_from + 60]
    assert sum(r.drafted > 0 for r in early) < 0.05 * len(early)
    assert sum(r.drafted > 0 for r in late) > 0.9 * len(late)
    assert ratio < 0.65


def test_a_step_that_was_held_up_is_not_the_drafts_loss() -> None:
    w = world()
    held_up = iter([1000])

    def spend(seconds: float) -> float:
        if len(w.tokens) > 50 and seconds > T1:  # the first draft after a while
            seconds *= next(held_up, 1)
        w.now += seconds
        return seconds

    w.spend = spend  # type: ignore[method-assign]
    c = controller(w, Guesser(w, 0.6, 0.6))
    _, rounds = play(w, c, 400)
    assert next(held_up, None) is None
    assert c.report()["won_seconds"] > 50 * T1
    late = [r for r in rounds if r.generated > 100]
    assert sum(r.drafted > 0 for r in late) > 0.7 * len(late)


def test_without_trees_drafts_are_chains() -> None:
    w = world(trees=False)
    sources = (Guesser(w, 0.6, 0.7, name="a"), Guesser(w, 0.6, 0.7, name="b"))
    _, rounds = play(w, controller(w, *sources), 200)
    assert any(r.drafted > 1 for r in rounds) and all(r.draft.is_chain for r in rounds)


def test_trees_of_two_sources() -> None:
    w = world()
    sources = (Guesser(w, 0.6, 0.7, name="a"), Guesser(w, 0.6, 0.7, name="b"))
    ratio, rounds = play(w, controller(w, *sources), 300)
    assert any(not r.draft.is_chain for r in rounds)
    assert ratio < 0.6


def with_layers(
    w: World,
    right: float,
    promised: float,
    *sources: CandidateSource,
    search: Any = None,
    **rest: Any,
) -> Fixed:
    def draft(mask: LayerMask, pending: Sequence[int], *, limit: int, **_: Any) -> Draft:
        at = len(w.tokens) + len(pending)
        n = min(limit, 5)
        w.spend(n * 0.5 * T1)
        tokens = [
            t if w.rng.random() < right else (t + 1) % VOCABULARY for t in w.text[at : at + n]
        ]
        return Draft(tuple(tokens), (0.9,) * n)

    w.draft = draft  # type: ignore[attr-defined]
    acceptance = AcceptanceRates()
    prior = Prior(accepted=promised, drafted=5, seconds=0.5 * T1)
    arm = LayersArm(search or Layers(), lambda mask: prior, acceptance, clock=w.clock)
    found = Fixed(StepTimes(T1, V), acceptance, clock=w.clock)
    found.lineup = Lineup(sources, arm, **rest)
    return found


def test_layers_that_pay() -> None:
    w = world()
    ratio, rounds = play(w, with_layers(w, 0.97, 4.5), 400)
    assert ratio < 0.85
    assert {r.draft.source(0) for r in rounds if r.drafted} == {"layers"}


@pytest.mark.parametrize("right", [0.85, 0.9])
def test_layers_that_pay_less(right: float) -> None:
    """The loss of one draft does not keep them out."""
    ratios = []
    for seed in range(5):
        w = world(seed)
        ratios.append(play(w, with_layers(w, right, 4.0), 400)[0])
    assert sorted(ratios)[2] < 0.95


@pytest.mark.parametrize("promised", [0.5, 4.9])
def test_never_slower_by_layers_that_do_not_pay(promised: float) -> None:
    for n in (128, 500):
        w = world()
        ratio, _ = play(w, with_layers(w, 0.3, promised), n)
        assert ratio < 1.02


def test_a_reserve_is_for_candidates_alone() -> None:
    """Where a bad draft with layers dropped would leave too little for candidates, it waits until
    they have won something."""
    first = {}
    for reserve in (0.0, 2.0):
        w = world()
        policy = Policy(BudgetSettings(first_steps=3.0), reserve=reserve)
        guesser = Guesser(w, 0.5, 0.5, length=1)
        c = with_layers(w, 0.97, 4.5, guesser, policy=policy)
        _, rounds = play(w, c, 200)
        by = [r.draft.source(0) if r.drafted else "plain" for r in rounds]
        first[reserve] = by.index("layers"), by.index("guess")
    assert first[0.0][0] < first[0.0][1] and first[2.0][1] < first[2.0][0]


def test_lookups_are_preferred_where_they_are_right() -> None:
    w = world()
    c = with_layers(w, 0.97, 4.5, Guesser(w, 0.95, 0.9))
    ratio, rounds = play(w, c, 400)
    assert ratio < 0.4
    assert sum(r.draft.source(0) == "guess" for r in rounds if r.drafted) > 0.9 * len(rounds)


def test_what_did_not_pay_is_retried_now_and_then() -> None:
    """A source that claims little and is right all the same."""
    w = world()
    _, rounds = play(w, controller(w, Guesser(w, 0.95, 0.15)), 300)
    drafted = [i for i, each in enumerate(rounds) if each.drafted]
    assert drafted[0] == Policy().retry_after
    assert len(drafted) > 0.7 * (len(rounds) - drafted[0])


def test_each_text_has_a_loss_budget_of_its_own() -> None:
    w = world()
    guesser = Guesser(w, 0.0, 0.9)
    c = controller(w, guesser)
    _, first = play(w, c, 128)
    assert not any(round.drafted for round in first[-20:])
    w.text = w.text[len(w.tokens) + 1 :]
    w.tokens.clear()
    guesser.right, guesser.claims = 0.9, 0.6
    _, second = play(w, c, 100)
    assert [round.drafted for round in second[:3]] == [0, 0, 3]


class Search(Layers):
    """A search that goes on for ever, each time it may for so many seconds."""

    finished = False
    controller: Controller

    def __init__(self, world: World, seconds: float) -> None:
        self.world, self.seconds, self.spent = world, seconds, 0.0

    def advance(self, session: Any) -> None:
        won = self.controller.report()["won_seconds"] + self.spent
        assert self.spent + self.seconds <= Policy().search_share * won
        self.world.now += self.seconds
        self.spent += self.seconds


@pytest.mark.parametrize("right", [0.0, 0.95])
def test_a_search_spends_a_share_of_what_was_won(right: float) -> None:
    w = world()
    search = Search(w, 3 * T1)
    search.controller = c = with_layers(w, 0.0, 0.1, Guesser(w, right, 0.9), search=search)
    play(w, c, 600)
    assert (search.spent > 0) is (right > 0)


class SlowLookup(LookupSource):
    """Lookups in a world where polling takes a time that is noticed."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def observe(self, session: Any, pending: Sequence[int]) -> None:
        self.world.now += 0.02 * T1
        super().observe(session, pending)


def repeating(w: World, period: int, begin: int = 0) -> World:
    """A world whose text repeats itself from a place on."""
    for i in range(begin + period, len(w.text)):
        w.text[i] = w.text[i - period]
    return w


def test_lookups_watch_and_wake_the_controller_up() -> None:
    w = repeating(world(), 40, begin=220)
    ratio, rounds = play(w, controller(w, SlowLookup(w)), 600)
    assert w.watched > 10
    first = next(round for round in rounds if round.accepted)
    assert 260 < first.generated < 275  # the text repeats itself from its token 260 on
    late = [round for round in rounds if round.generated > 300]
    assert sum(round.accepted for round in late) > 250
    assert ratio < 0.75


def test_nobody_watches_while_layers_may_draft() -> None:
    w = world()
    policy = Policy(BudgetSettings(first_steps=100.0))
    c = with_layers(w, 0.6, 4.9, SlowLookup(w), policy=policy)
    _, rounds = play(w, c, 100)
    assert any(round.drafted for round in rounds) and w.watched == 0


def test_report() -> None:
    w = world()
    c = controller(w, Guesser(w, 0.9, 0.9))
    _, rounds = play(w, c, 100)
    report = c.report()
    assert sum(report["rounds_by"].values()) == len(rounds)
    assert report["won_seconds"] > 0 and report["t1_ms"] == pytest.approx(T1 * 1e3)
