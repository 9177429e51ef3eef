"""Token recycling: the table, its state, and what it learns from a round."""

from __future__ import annotations

import base64
import json
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import Tiny, random_tokens
from trees import check_tree

from edge_conflayers.decoding.round import Round
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.drafters.recycling import WIDTH, RecyclingSource
from edge_conflayers.engine.draft import ROOT, Draft
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput, EdgeConflayersError

VOCABULARY = 40


class Logits:
    """As much of a session as a source needs: a text, and the last step's logits."""

    model = SimpleNamespace(n_vocab=VOCABULARY)

    def __init__(self, tokens: list[int], logits: Any) -> None:
        self.tokens = tokens
        self.logits = logits

    def logits_address(self, index: int) -> int:
        return int(self.logits[index].ctypes.data)


def random_logits(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 3, (n, VOCABULARY)).astype(np.float32)


def test_logits_that_were_not_kept(tiny: Tiny) -> None:
    model = tiny("llama")
    source, round = RecyclingSource(), Round((3,), Draft(), (), 4, generated=2)
    with Session(model, n_ctx=32, threads=1) as session:
        session.step([3], outputs="none")
        source.observe(session, [3])
        with pytest.raises(EdgeConflayersError, match="no logits"):
            source.learn(session, round)
    assert entries(source, "by_one") == {}


def test_fewer_tokens_than_an_entry_has() -> None:
    source, few = RecyclingSource(), Logits([1], random_logits(1))
    few.model = SimpleNamespace(n_vocab=WIDTH - 1)
    source.observe(few, [2])  # type: ignore[arg-type]
    source.learn(few, Round((2,), Draft(), (), 3, generated=2))  # type: ignore[arg-type]
    assert entries(source, "by_one") == {}


def learn(source: RecyclingSource, before: int, last: int, row: Any, drawn: int = 0) -> None:
    """What a plain round teaches: these are the logits after two tokens."""
    session: Any = Logits([before], np.asarray(row, np.float32)[None])
    source.observe(session, [last])
    source.learn(session, Round((last,), Draft(), (), drawn, generated=2))


Entries = dict[int, tuple[list[int], list[int]]]


def entries(source: RecyclingSource, table: str) -> Entries:
    """Of every key, least recently updated first: its successors, and the kinds of them."""
    data = zlib.decompress(base64.b64decode(source.state()[table]["entries"]))
    n = len(data) // (8 + WIDTH * 5)
    keys = np.frombuffer(data, "<i8", n).tolist()
    tokens = np.frombuffer(data, "<i4", n * WIDTH, 8 * n).reshape(n, WIDTH).tolist()
    kinds = np.frombuffer(data, np.uint8, n * WIDTH, 40 * n).reshape(n, WIDTH).tolist()
    return dict(zip(keys, zip(tokens, kinds, strict=True), strict=True))


def pair(before: int, last: int) -> int:
    return (before + 1) << 32 | last


@pytest.mark.parametrize("n_vocab", [300, 5000])
def test_the_kinds_of_large_vocabularies(n_vocab: int) -> None:
    """Rows of several blocks, which are seldom added up to the end; some have NaN or nothing."""
    bounds = [0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97]
    rng = np.random.default_rng(0)
    source, found = RecyclingSource(), set()
    for last in range(300):
        row = rng.normal(0, rng.uniform(0.3, 6), (1, n_vocab)).astype(np.float32)
        row[0, rng.integers(0, n_vocab, 3)] += rng.uniform(0, 16, 3)
        row[0, rng.integers(0, n_vocab, 20)] = rng.choice([np.nan, -np.inf])
        session: Any = Logits([0], row)
        session.model = SimpleNamespace(n_vocab=n_vocab)
        source.observe(session, [last])
        source.learn(session, Round((last,), Draft(), (), 0, generated=2))
        clean = np.nan_to_num(row[0].astype(np.float64), nan=-np.inf, neginf=-np.inf)
        best = np.argsort(-clean, kind="stable")[:WIDTH]
        probabilities = np.exp(clean - clean.max())[best] / np.exp(clean - clean.max()).sum()
        kinds = np.searchsorted(bounds, probabilities, side="right")
        assert entries(source, "by_one")[last] == (
            best.tolist(),
            (kinds + 10 * np.minimum(np.arange(WIDTH), 2)).tolist(),
        )
        found |= set(kinds.tolist())
    assert found == set(range(10))


def learnt(source: RecyclingSource, end: tuple[int, int]) -> list[int]:
    """What the source knows after two tokens."""
    found = entries(source, "by_two").get(pair(*end)) or entries(source, "by_one").get(end[1])
    return found[0] if found else []


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 5), st.integers(0, 99)), max_size=40))
def test_the_tables_keep_the_last_updated(updates: list[tuple[int, int, int]]) -> None:
    source = RecyclingSource(capacity=4)
    by_one, by_two = dict[int, int](), dict[int, int]()
    for before, last, seed in updates:
        learn(source, before, last, random_logits(1, seed)[0])
        for naive, key in ((by_one, last), (by_two, pair(before, last))):
            naive.pop(key, None)
            naive[key] = seed
            if len(naive) > 4:
                del naive[next(iter(naive))]
    for name, naive in (("by_one", by_one), ("by_two", by_two)):
        best = {key: np.argsort(-random_logits(1, naive[key])[0])[:WIDTH] for key in naive}
        found = entries(source, name)
        assert list(found) == list(naive)
        assert {key: found[key][0] for key in found} == {k: best[k].tolist() for k in best}


def test_which_entry_goes_first_is_known_again() -> None:
    """Among the 20,000 that are kept."""
    keys = list(range(20_000))
    state = RecyclingSource().state()
    state["by_one"]["entries"] = packed(keys, [GOOD] * len(keys), [GOOD] * len(keys))
    source = RecyclingSource.from_state(state, VOCABULARY)
    learn(source, 3, 0, random_logits(1)[0])
    learn(source, 3, 30_000, random_logits(1)[0])
    assert list(entries(source, "by_one")) == [*keys[2:], 0, 30_000]


def test_the_kind_is_the_place_and_the_probability() -> None:
    probabilities = [0.9701, 0.02, 0.005, 0.0022, 0.001, 0.0005, 0.0001, 0.00005]
    rest = (1 - sum(probabilities)) / (VOCABULARY - WIDTH)
    source = RecyclingSource()
    learn(source, 1, 2, np.log([*probabilities, *[rest] * (VOCABULARY - WIDTH)]))
    assert entries(source, "by_one")[2][1] == [9, 11, 20, 20, 20, 20, 20, 20]
    for bound, kind in ((0.2, 4), (0.6, 6), (0.9, 8)):
        for side in (-1e-3, 1e-3):
            first = bound + side
            learn(source, 1, 2, np.log([first, *[(1 - first) / (VOCABULARY - 1)] * 39]))
            assert entries(source, "by_one")[2][1][0] == kind - (side < 0)


def test_every_token_of_the_text_is_learned_from() -> None:
    """Not those of branches that were not taken."""
    draft = Draft((10, 11, 12, 13), (0.5,) * 4, (ROOT, 0, 0, ROOT))
    logits = random_logits(6)
    source, session = RecyclingSource(), Logits([1, 2, 3], logits)
    source.observe(session, [4, 5])
    source.learn(session, Round((4, 5), draft, (0, 2), 20, generated=9))
    best = [np.argsort(-row)[:WIDTH].tolist() for row in logits]
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
    for last, row in enumerate(random_logits(6)):
        learn(source, last - 1, last, row)
    known = {end: learnt(source, end)[0] for end in ((2, 3), (4, 5), (1, 2), (-1, 0))}
    assert len(set(known.values())) == 4
    for tokens, pending, end in (
        ([1, 2], [3], (2, 3)),
        ([1, 2], [3, 4, 5], (4, 5)),
        ([1, 2], [], (1, 2)),
        ([], [0], (-1, 0)),
    ):
        source.observe(Logits(tokens, None), pending)  # type: ignore[arg-type]
        assert source.candidates(1).tokens == (known[end],)


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
        for each in (source, again):
            each.observe(Logits([end[0]], None), [end[1]])  # type: ignore[arg-type]
        assert again.candidates(12) == source.candidates(12)
        assert source.candidates(12).tokens


def filled() -> RecyclingSource:
    source = RecyclingSource()
    session = Logits([0], random_logits(3))
    source.observe(session, [1])
    source.learn(session, Round((1,), Draft((2, 3), (0.5, 0.5)), (0,), 9, generated=3))
    return source


def test_a_full_table_is_small_on_disk() -> None:
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 1 << 48, 20_000)
    tokens = rng.integers(0, 18_000, (20_000, WIDTH)) * WIDTH + np.arange(WIDTH)
    kinds = np.sort(rng.integers(0, 30, (20_000, WIDTH)))
    state = RecyclingSource().state()
    state["by_two"]["entries"] = packed(keys.tolist(), tokens.tolist(), kinds.tolist())
    again = RecyclingSource.from_state(state, 150_000).state()
    assert len(again["by_two"]["entries"]) < 1_300_000


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


@pytest.mark.parametrize(
    "came_true",
    [
        {"hits": [1.0], "seen": [2.0]},
        {"hits": [*[1.0] * 29, 3.0], "seen": [2.0] * 30},
        {"hits": [*[1.0] * 29, 0.0], "seen": [2.0] * 30},
        {"hits": [1.0] * 30, "seen": [*[2.0] * 29, float("nan")]},
        {"hits": [1.0] * 30, "seen": [*[2.0] * 29, float("inf")]},
        {"hits": "ab", "seen": "cd"},
        {"hits": [1.0] * 30},
        {"hits": 1, "seen": 2},
        None,
    ],
)
def test_frequencies_that_cannot_be(came_true: Any) -> None:
    state = filled().state()
    state["by_one"] = {**state["by_one"], "came_true": came_true}
    with pytest.raises(BadInput, match="cannot be used"):
        RecyclingSource.from_state(state, VOCABULARY)


def test_a_state_of_something_else() -> None:
    with pytest.raises(BadInput, match="cannot be used"):
        RecyclingSource.from_state({"skip_set": []}, VOCABULARY)
    state = filled().state()
    state["by_two"]["entries"] = packed([1], [GOOD], [GOOD])
    again = RecyclingSource.from_state(state, VOCABULARY)
    assert entries(again, "by_two") == {1: (GOOD, GOOD)}


@given(st.lists(st.booleans(), max_size=60))
def test_the_frequency_of_what_was_seen(hits: list[bool]) -> None:
    """The first of eight successors, seen with a probability near 1: 24 observations of 0.7 before
    anything was seen."""
    row = np.full(VOCABULARY, -9.0)
    row[10] = 9
    source = RecyclingSource()
    learn(source, 1, 5, row)
    for hit in hits:
        learn(source, 1, 5, row, drawn=10 if hit else 11)
    expected = (0.7 * 24 + sum(hits)) / (24 + len(hits))
    assert source.candidates(1).probabilities[0] == pytest.approx(expected)


def test_old_evidence_gives_way() -> None:
    row = np.full(VOCABULARY, -9.0)
    row[10] = 9
    source = RecyclingSource()
    for drawn in [10] * 5000 + [11] * 1000:
        learn(source, 1, 5, row, drawn)
    assert 0 < source.candidates(1).probabilities[0] < 0.2


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
