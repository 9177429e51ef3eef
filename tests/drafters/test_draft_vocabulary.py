"""The choice of the tokens that drafts may use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import Tiny, open_session, random_tokens

from edge_conflayers.decoding.round import Round
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary, best_size, measure_savings
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.errors import BadInput

N_VOCAB = 1000
CONTROL = {0, 1, 2, 500}
ENDS = frozenset({2})
ASCII_FROM = 900  # single characters stand at the end, as SentencePiece has them


class FakeModel:
    n_vocab = N_VOCAB
    n_layer = 4
    end_tokens = ENDS

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        return [ASCII_FROM + ord(c) % 99 for c in text]

    def is_text(self, token: int) -> bool:
        return token not in CONTROL


class FakeSession:
    """Takes note of the vocabularies that it is given."""

    model = FakeModel()

    def __init__(self) -> None:
        self.draft_vocabulary: tuple[int, ...] = ()
        self.given: list[list[int]] = []

    def set_draft_vocabulary(self, tokens: Iterable[int]) -> None:
        self.given.append(list(tokens))
        self.draft_vocabulary = tuple(self.given[-1])


def vocabulary(size: int = 300) -> DraftVocabulary:
    return DraftVocabulary(cast(Model, FakeModel()), size=size)


ALWAYS = set(vocabulary().tokens(0))
tokens = st.integers(0, N_VOCAB - 1)
texts = st.lists(tokens, max_size=80)


def after(prompt: list[int], text: list[int], size: int) -> DraftVocabulary:
    found = vocabulary(size)
    session = cast(Session, FakeSession())
    found.begin(session, prompt)
    found.observe(session, text)
    return found


def test_what_is_always_in() -> None:
    assert {*ENDS, *FakeModel().tokenize("aZ~ \t", add_special=False)} <= ALWAYS
    assert {*ENDS, *range(ASCII_FROM, N_VOCAB)} >= ALWAYS


@given(texts, texts, st.integers(1, N_VOCAB))
def test_a_vocabulary_has_its_size_and_the_text(
    prompt: list[int], text: list[int], size: int
) -> None:
    found = after(prompt, text, size).tokens(size)
    needed = ALWAYS | {*prompt, *text}
    assert found == sorted(set(found))
    assert needed <= set(found)
    assert CONTROL & set(found) <= needed
    assert len(found) == max(len(needed), min(size, N_VOCAB - len(CONTROL - needed)))


def test_frequent_tokens_come_before_the_tokenizers_first() -> None:
    session = cast(Session, FakeSession())
    found = vocabulary()
    found.begin(session, [])
    found.observe(session, [800, 800, 801, 801, 801, 802])
    found.begin(session, [700])  # another text: only the counts are left

    def chosen(n: int) -> list[int]:
        return [t for t in found.tokens(len(ALWAYS) + n) if t not in ALWAYS]

    assert chosen(2) == [700, 801]
    assert chosen(3) == [700, 800, 801]
    assert chosen(6) == [3, 4, 700, 800, 801, 802]


def test_it_is_set_anew_only_when_enough_is_missing() -> None:
    session = FakeSession()
    found = vocabulary(size=300)
    found.begin(cast(Session, session), [5])
    assert len(session.given) == 1
    for token in range(600, 631):
        found.observe(cast(Session, session), [token])
    assert len(session.given) == 1
    found.observe(cast(Session, session), [5, 6, 7, 605])
    assert len(session.given) == 1
    found.observe(cast(Session, session), [631])
    assert len(session.given) == 2
    assert set(range(600, 632)) <= set(session.draft_vocabulary)


@pytest.mark.parametrize("size", [0, N_VOCAB, N_VOCAB + 1])
def test_all_tokens_need_no_vocabulary(size: int) -> None:
    session = FakeSession()
    found = vocabulary(size)
    found.begin(cast(Session, session), [5])
    found.observe(cast(Session, session), range(600, 700))
    assert session.given == [[]]
    assert found.coverage(size) == 1


@given(texts, st.lists(tokens, max_size=300))
def test_coverage_grows_with_the_size(prompt: list[int], text: list[int]) -> None:
    found = after(prompt, text, 300)
    shares = [found.coverage(size) for size in (1, 10, 100, 300, 600, 999)]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)


def test_coverage_is_what_would_have_been_held() -> None:
    found = vocabulary()
    session = cast(Session, FakeSession())
    prior = found.coverage(300)
    assert 0.8 < prior < 0.85  # log 300 / log 1000
    found.begin(session, [850])
    found.observe(session, [10, 850, 10] * 1000 + [700] + [10] * 7000)
    # 700 was the only one that nothing had announced.
    assert found.coverage(300) == pytest.approx((500 * prior + 10_000) / 10_501)
    assert found.coverage(800) > found.coverage(300)
    fresh = vocabulary()
    fresh.begin(session, [])
    fresh.observe(session, list(range(300, 800)))  # everything is new, and late in the order
    assert fresh.coverage(250) < 0.5


def test_many_counts_are_halved() -> None:
    found = vocabulary()
    session = cast(Session, FakeSession())
    found.begin(session, [])
    found.observe(session, [10] * 60_000 + [700] * 40_000 + [701])
    state = found.state()
    assert state["written"] == {"10": 30_000, "700": 20_000}
    assert 701 not in state["new"] and 700 in state["new"]


@given(texts, texts)
def test_what_was_learned_survives_json(prompt: list[int], text: list[int]) -> None:
    found = after(prompt, text, 200)
    other = vocabulary()
    other.resume(json.loads(json.dumps(found.state())))
    assert other.state() == found.state()
    assert [other.coverage(n) for n in (50, 400)] == [found.coverage(n) for n in (50, 400)]
    found.begin(cast(Session, FakeSession()), [])
    assert other.tokens(400) == found.tokens(400)


@pytest.mark.parametrize(
    "change",
    [
        {"size": None},
        {"size": -1},
        {"written": [3]},
        {"written": {"x": 1}},
        {"written": {"5": 0}},
        {"written": {str(N_VOCAB): 1}},
        {"new": 3},
        {"new": [7]},
    ],
)
def test_damaged_states_are_refused(change: dict[str, Any]) -> None:
    found = vocabulary()
    state = {"size": 100, "written": {"5": 2}, "new": [5]}
    found.resume(state)
    with pytest.raises(BadInput, match="cannot be used"):
        found.resume({**state, **change})
    assert found.state() == state
    with pytest.raises(BadInput):
        found.resume({})


class TimedSession(FakeSession):
    """Draft steps take a microsecond a token of the vocabulary, and now and then much longer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.drafts = 0

    def draft(self, mask: LayerMask, pending: Sequence[int], **named: Any) -> Draft:
        assert mask == LayerMask.layers({1, 2})
        full = named["full_vocabulary"] or not self.draft_vocabulary
        self.drafts += 1
        self.now += 1e-6 * (N_VOCAB if full else len(self.draft_vocabulary))
        self.now += 0.5 if self.drafts % 7 == 0 else 0
        return Draft((5,), (1.0,))


def test_savings_are_measured() -> None:
    session = TimedSession()
    found = measure_savings(
        cast(Session, session), vocabulary(), (400, 200, 5000), clock=lambda: session.now
    )
    assert found == pytest.approx({200: 0.0008, 400: 0.0006})
    assert session.draft_vocabulary == ()


class Unserved(TimedSession):
    def draft(self, mask: LayerMask, pending: Sequence[int], **named: Any) -> Draft:
        raise BadInput("cannot be served")


def test_a_model_that_cannot_be_served_saves_nothing() -> None:
    session = Unserved()
    assert measure_savings(cast(Session, session), vocabulary(), (200,)) == {}
    assert session.draft_vocabulary == ()


def choose(saved: dict[int, float], coverage: Callable[[int], float]) -> int:
    return best_size(
        saved,
        coverage,
        draft_seconds=0.6,
        t1_seconds=1.0,
        v=lambda n: 1 + 0.06 * (n - 1),
    )


def test_the_best_size_weighs_time_against_coverage() -> None:
    saved = {1000: 0.2, 8000: 0.18, 30000: 0.1}
    assert choose(saved, lambda size: 1.0) == 1000
    assert choose(saved, lambda size: {0: 1.0, 1000: 0.8, 8000: 0.99, 30000: 0.995}[size]) == 8000
    assert choose(saved, lambda size: 1.0 if size == 0 else 0.4) == 0
    assert choose({}, lambda size: 1.0) == 0
    assert choose({1000: -0.1}, lambda size: 1.0) == 0


class VocabularyDrafter:
    """Drafts under a mask, in a vocabulary that learns from the rounds."""

    def __init__(self, learned: DraftVocabulary) -> None:
        self.learned = learned
        self.accepted = 0

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        self.learned.begin(session, prompt)

    def draft(self, session: Session, pending: Sequence[int], limit: int) -> Draft:
        return session.draft(
            LayerMask.layers({2}), pending, limit=min(limit, 6), stop_probability=0.0
        )

    def learn(self, session: Session, round: Round) -> None:
        self.accepted += round.accepted
        accepted = (round.draft.tokens[i] for i in round.path)
        self.learned.observe(session, [*accepted, round.token])

    def report(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("arch", ["llama", "gemma2"])
def test_the_text_is_plain_decodings(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_vocab=4000, layer_gain=0.2, n_embd=128, quant="q8_0")
    prompt = random_tokens(model, 25)

    def write(drafter: VocabularyDrafter | None) -> list[int]:
        with open_session(model, n_ctx=512) as session:
            sampler = Sampler(model, SamplerSettings(temperature=0.7, seed=3))
            try:
                return list(generate(session, prompt, sampler, drafter=drafter, max_tokens=90))
            finally:
                sampler.close()

    drafter = VocabularyDrafter(DraftVocabulary(model, size=600))
    plain = write(None)
    assert write(drafter) == plain
    assert drafter.accepted > 0
    assert len(drafter.learned.state()["written"]) > 40


def test_savings_of_a_real_session(tiny: Tiny) -> None:
    model = tiny("llama", n_vocab=4000)
    learned = DraftVocabulary(model)
    with open_session(model, n_ctx=64) as session:
        session.read(random_tokens(model, 10))
        before = list(session.tokens)
        found = measure_savings(session, learned, (300, 1000, 9000), repeat=2)
        assert set(found) == {300, 1000}
        assert session.tokens == before and session.draft_vocabulary == ()
    with open_session(tiny("qwen2", output_bias=True, n_vocab=4000), n_ctx=64) as session:
        assert measure_savings(session, learned, (300,)) == {}
