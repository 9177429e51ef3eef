"""Token recycling: the table, its state, and what it learns from a round."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import Tiny, random_tokens
from trees import check_tree

from edge_conflayers.draft import ROOT, Draft, Round
from edge_conflayers.drafters.recycling import WIDTH, RecyclingSource, SuccessorTable
from edge_conflayers.errors import BadInput
from edge_conflayers.sampling import Sampler, SamplerSettings
from edge_conflayers.session import Session
from edge_conflayers.speculate import generate

VOCABULARY = 40
PRIOR = [0.5] * 30


class Logits:
    """As much of a session as a source needs: a text, and the last step's logits."""

    def __init__(self, tokens: list[int], logits: Any) -> None:
        self.tokens = tokens
        self._logits = logits

    def top_k(self, index: int, k: int) -> tuple[list[int], list[float]]:
        row = self._logits[index]
        tokens = np.argsort(-row, kind="stable")[:k]
        return tokens.tolist(), (np.exp(row) / np.exp(row).sum())[tokens].tolist()


def random_logits(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 3, (n, VOCABULARY)).astype(np.float32)


def successors(seed: int) -> tuple[list[int], list[float]]:
    rng = np.random.default_rng(seed)
    tokens = rng.permutation(VOCABULARY)[:WIDTH].tolist()
    return tokens, sorted(rng.dirichlet(np.ones(WIDTH)).tolist(), reverse=True)


def tokens_at(table: SuccessorTable, key: int) -> list[int]:
    return [token for token, _ in table.get(key)]


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 99)), max_size=40))
def test_the_table_keeps_the_last_updated(updates: list[tuple[int, int]]) -> None:
    table, naive = SuccessorTable(PRIOR, capacity=4), dict[int, int]()
    for key, seed in updates:
        table.update(key, *successors(seed))
        naive.pop(key, None)
        naive[key] = seed
        if len(naive) > 4:
            del naive[next(iter(naive))]
        assert len(table) == len(naive)
    again = SuccessorTable(PRIOR, capacity=4)
    again.resume(table.state(), VOCABULARY)
    again.update(99, *successors(0))  # which one goes to make room is known again, too
    table.update(99, *successors(0))
    if len(naive) == 4:
        del naive[next(iter(naive))]
    for key in range(-5, 6):
        expected = successors(naive[key])[0] if key in naive else []
        assert tokens_at(table, key) == expected
        assert again.get(key) == table.get(key)


def test_the_kind_is_the_place_and_the_probability() -> None:
    table = SuccessorTable(PRIOR)
    table.update(1, range(WIDTH), [0.98, 0.02, 0.005, 0.002, 0.001, 0, 0, 0])
    assert [kind for _, kind in table.get(1)] == [9, 11, 20, 20, 20, 20, 20, 20]


def learnt(source: RecyclingSource, end: tuple[int, int]) -> list[int]:
    """What the source knows after two tokens."""
    return [token for token, _ in source._known(end)[1]]


def test_every_token_of_the_text_is_learned_from() -> None:
    """Not those of branches that were not taken."""
    draft = Draft((10, 11, 12, 13), (0.5,) * 4, (ROOT, 0, 0, ROOT))
    logits = random_logits(6)
    source, session = RecyclingSource(), Logits([1, 2, 3], logits)
    source.observe(session, [4, 5])
    source.learn(session, Round((4, 5), draft, (0, 2), 20, generated=9))
    best = [list(np.argsort(-row)[:WIDTH]) for row in logits]
    ends = [(4, 5), (5, 10), (10, 12)]
    assert [learnt(source, end) for end in ends] == [best[1], best[2], best[4]]
    assert learnt(source, (10, 11)) == learnt(source, (5, 13)) == []
    # An unknown pair falls back to its last token, a token never run over gives nothing.
    assert learnt(source, (30, 12)) == best[4]
    assert learnt(source, (4, 20)) == learnt(source, (3, 4)) == []


def test_the_tree_follows_the_table() -> None:
    source = RecyclingSource()
    draft = Draft((10, 11), (0.5,) * 2)
    logits = np.full((3, VOCABULARY), -9.0, np.float32)
    logits[[0, 1, 2], [10, 11, 5]] = 9  # 5, 10, 11, 5, ...
    session = Logits([1], logits)
    source.observe(session, [5])
    source.learn(session, Round((5,), draft, (0, 1), 5, generated=4))
    source.observe(Logits([1, 5, 10, 11], None), [5])
    assert source.candidates(7, chain=True).tokens == (10, 11, 5, 10, 11, 5, 10)
    for limit in range(12):
        tree = source.candidates(limit)
        check_tree(tree, limit)
        assert len(tree.tokens) == limit
        assert tree.tokens[:3] == (10, 11, 5)[: min(limit, 3)] or limit < 6


def test_only_the_end_of_the_text_counts() -> None:
    source = RecyclingSource()
    for tokens, pending, end in (
        ([1, 2], [3], (2, 3)),
        ([1, 2], [3, 4, 5], (4, 5)),
        ([1, 2], [], (1, 2)),
        ([], [3], (-1, 3)),
    ):
        source.observe(Logits(tokens, None), pending)
        assert source._end == end


def test_probabilities_follow_what_comes_true() -> None:
    logits = np.full((1, VOCABULARY), -9.0, np.float32)
    logits[0, 10] = 9
    chances = {}
    for token in (10, 11):
        source, session = RecyclingSource(), Logits([1], logits)
        for _ in range(100):
            source.observe(session, [5])
            source.learn(session, Round((5,), Draft(), (), token, generated=2))
        chances[token] = source.candidates(1).probabilities[0]
    assert chances[10] > 0.9 > 0.3 > chances[11]


def test_state_round_trip() -> None:
    source = filled()
    state = json.loads(json.dumps(source.state()))
    again = RecyclingSource.from_state(state, VOCABULARY)
    assert again.state() == source.state()
    for end in [(0, 1), (1, 2), (0, 2)]:
        source._end = again._end = end
        assert again.candidates(12) == source.candidates(12)
        assert source.candidates(12).tokens


def filled() -> RecyclingSource:
    source = RecyclingSource()
    session = Logits([0], random_logits(3))
    source.observe(session, [1])
    source.learn(session, Round((1,), Draft((2, 3), (0.5, 0.5)), (0,), 9, generated=3))
    return source


def test_a_full_table_is_small_on_disk() -> None:
    table, rng = SuccessorTable(PRIOR), np.random.default_rng(0)
    probabilities = successors(0)[1]
    for key in range(25_000):
        table.update(key, rng.integers(0, 150_000, WIDTH).tolist(), probabilities)
    assert len(table) == 20_000
    assert len(table.state()) < 1_300_000


def packed(keys: list[int], tokens: list[list[int]], kinds: list[list[int]]) -> str:
    parts = (np.array(keys, "<i8"), np.array(tokens, "<i4"), np.array(kinds, np.uint8))
    return base64.b64encode(zlib.compress(b"".join(p.tobytes() for p in parts))).decode()


GOOD = list(range(WIDTH))


@pytest.mark.parametrize(
    "entries",
    [
        packed([1], [[*GOOD[:-1], VOCABULARY]], [GOOD]),
        packed([1], [[*GOOD[:-1], -1]], [GOOD]),
        packed([1], [[*GOOD[:-1], 0]], [GOOD]),
        packed([1], [GOOD], [[*GOOD[:-1], 30]]),
        packed([1, 1], [GOOD] * 2, [GOOD] * 2),
        packed([1], [GOOD], [GOOD])[:-8],
        packed([1, 2], [GOOD], [GOOD]),
        packed(list(range(20_001)), [GOOD] * 20_001, [GOOD] * 20_001),
        base64.b64encode(b"nothing").decode(),
        "no base64",
        7,
    ],
)
def test_a_state_that_cannot_be(entries: Any) -> None:
    state = filled().state()
    state["by_two"] = {**state["by_two"], "entries": entries}
    with pytest.raises(BadInput, match="cannot be used") as caught:
        RecyclingSource.from_state(state, VOCABULARY)
    assert "\n" not in str(caught.value)


def test_a_state_of_something_else() -> None:
    with pytest.raises(BadInput, match="cannot be used"):
        RecyclingSource.from_state({"skip_set": []}, VOCABULARY)
    good = packed([1], [GOOD], [GOOD])
    table = SuccessorTable(PRIOR)
    table.resume(good, VOCABULARY)
    assert tokens_at(table, 1) == GOOD


def test_the_model_itself_is_remembered(tiny: Tiny) -> None:
    """After a plain text of a real session the table has the model's own choices."""
    model = tiny("llama")
    source = RecyclingSource()

    class Watching:
        def begin(self, session: Session, prompt: Any) -> None:
            pass

        def draft(self, session: Session, pending: Any, limit: int) -> Draft:
            source.observe(session, pending)
            return Draft()

        def learn(self, session: Session, round: Round) -> None:
            source.learn(session, round)

        def report(self) -> dict[str, Any]:
            return {}

    with Session(model, n_ctx=128, threads=1) as session:
        sampler = Sampler(model, SamplerSettings())
        prompt = random_tokens(model, 5)
        text = list(generate(session, prompt, sampler, drafter=Watching(), max_tokens=20))
        sampler.close()
    triples = zip([prompt[-1], *text], text, text[1:], strict=False)
    chosen = {(before, last): token for before, last, token in triples}  # the last time counts
    assert {end: learnt(source, end)[0] for end in chosen} == chosen
