"""The draft/verify loop: whatever is drafted, the text is plain decoding's."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from scripted import RandomSkipSetDrafter, Script, ScriptedDrafter, TreeDrafter, partly_right
from steps import Tiny, random_tokens

from edge_conflayers.decoding.drafter import BackOff, Drafter
from edge_conflayers.decoding.round import Round
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import ContextFull, Session
from edge_conflayers.engine.session.exact_batch import ON_CPU

PROMPT = 12
END = 2
NEVER = float("-inf")
SAMPLERS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "seed": 11, "logit_bias": {END: NEVER}},
    "penalties": {
        **{"temperature": 0.7, "seed": 3, "repeat_penalty": 1.3},
        **{"frequency_penalty": 0.2, "logit_bias": {END: NEVER}},
    },
    "ends": {"temperature": 1.0, "seed": 5, "logit_bias": {END: 2.0}},
    "grammar": {"temperature": 1.0, "seed": 2, "grammar": "root ::= [a-z]{3,30}"},
}


def scripts(text: Sequence[int], n_vocab: int) -> dict[str, Script]:
    """Drafts by someone who knows the text."""
    source = random.Random(1)

    def right(known: int, n: int) -> list[int]:
        return list(text[known : known + n])

    return {
        "right": lambda known, limit: right(known, min(limit, 5)),
        "as-long-as-may-be": right,
        "wrong": lambda known, limit: [3 + (t + 1) % 300 for t in right(known, min(limit, 4))],
        "wrong-at-the-end": lambda known, limit: [*right(known, 3), 7][:limit],
        "partly-right": partly_right(text, n_vocab),
        "random": lambda known, limit: [source.randrange(n_vocab) for _ in range(min(limit, 6))],
        "too-long": lambda known, limit: [*right(known, limit + 20), *[9] * 30],
        "end-inside": lambda known, limit: [*right(known, 2), END, 5, 6][:limit],
        "only-the-end": lambda known, limit: [END],
        "empty": lambda known, limit: [],
        "now-and-then": lambda known, limit: right(known, min(limit, 4)) if known % 3 else [],
    }


KINDS = tuple(scripts([], 3))

verifies_trees = pytest.mark.skipif(
    not binding.kernels()["enabled"], reason="this CPU or build has no kernels of ours"
)


def write(
    model: Model,
    kind: dict[str, Any],
    drafter: Drafter | None,
    *,
    max_tokens: int | None,
    n_ctx: int = 256,
) -> tuple[list[int], Stats, list[int]]:
    """The text, what was counted, and what the session holds afterwards."""
    stats = Stats()
    with Session(model, n_ctx=n_ctx, threads=1) as session:
        sampler = Sampler(model, SamplerSettings(**kind))
        text = list(
            generate(
                session,
                random_tokens(model, PROMPT),
                sampler,
                drafter=drafter,
                max_tokens=max_tokens,
                stats=stats,
            )
        )
        sampler.close()
        return text, stats, session.tokens[PROMPT:]


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Model:
    return tiny("llama", layer_gain=0.3)


@pytest.fixture(scope="module")
def plain(model: Model) -> Callable[..., tuple[list[int], Stats, list[int]]]:
    known: dict[Any, Any] = {}

    def text(sampler: str, max_tokens: int | None, n_ctx: int = 256) -> Any:
        key = (sampler, max_tokens, n_ctx)
        if key not in known:
            known[key] = write(model, SAMPLERS[sampler], None, max_tokens=max_tokens, n_ctx=n_ctx)
        return known[key]

    return text


def check(found: Any, expected: Any) -> None:
    text, stats, held = found
    plain_text, plain_stats, plain_held = expected
    assert text == plain_text
    assert stats.finish_reason == plain_stats.finish_reason
    assert held == plain_held == text[:-1]
    assert stats.tokens == len(text) and stats.prompt_tokens == PROMPT
    assert 0 <= stats.accepted <= stats.drafted
    assert sum(stats.accepted_at) == stats.accepted
    assert len(stats.drafted_at) == len(stats.accepted_at)
    assert all(a <= d for a, d in zip(stats.accepted_at, stats.drafted_at, strict=True))
    # Each round gives its accepted tokens and one more, unless the last accepted one ended the
    # text; the first token comes from the prompt.
    assert stats.tokens - 1 - (stats.rounds + stats.accepted) in (0, -1)
    parts = stats.draft_seconds + stats.verify_seconds + stats.search_seconds
    assert parts + stats.sample_seconds <= stats.seconds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_draft_gives_the_same_text(
    model: Model, plain: Callable[..., Any], sampler: str, kind: str
) -> None:
    expected = plain(sampler, 40)
    drafter = ScriptedDrafter(scripts(expected[0], model.n_vocab)[kind], PROMPT)
    found = write(model, SAMPLERS[sampler], drafter, max_tokens=40)
    check(found, expected)
    if kind in ("right", "as-long-as-may-be") and len(expected[0]) > 10:
        assert found[1].acceptance_rate == 1.0
        assert found[1].rounds <= len(expected[0]) // 4
    if kind == "wrong":
        assert found[1].accepted == 0
    if kind == "empty":
        assert found[1].acceptance_rate is None


@pytest.mark.parametrize("sampler", ["greedy", "ends"])
@pytest.mark.parametrize("kind", ["right", "partly-right", "too-long", "end-inside"])
def test_any_length(model: Model, plain: Callable[..., Any], sampler: str, kind: str) -> None:
    longest = plain(sampler, 20)[0]
    for n in range(1, 21):
        expected = plain(sampler, n)
        assert expected[0] == longest[:n]
        drafter = ScriptedDrafter(scripts(longest, model.n_vocab)[kind], PROMPT)
        check(write(model, SAMPLERS[sampler], drafter, max_tokens=n), expected)
        assert all(0 <= limit < n for limit in drafter.limits)


def test_no_step_is_larger_than_the_kernels_small_batches(
    model: Model, plain: Callable[..., Any]
) -> None:
    expected = plain("sampled", 100)
    drafter = ScriptedDrafter(scripts(expected[0], model.n_vocab)["too-long"], PROMPT)
    check(write(model, SAMPLERS["sampled"], drafter, max_tokens=100), expected)
    assert max(drafter.limits) == ON_CPU - 1
    assert [r.drafted for r in drafter.rounds[:3]] == [ON_CPU - 1] * 3


def test_no_step_is_larger_than_the_sessions_own_limit(
    model: Model, plain: Callable[..., Any]
) -> None:
    text = plain("greedy", 40)[0]
    drafter = ScriptedDrafter(scripts(text, model.n_vocab)["too-long"], PROMPT)
    with Session(model, n_ctx=256, threads=1, batch=16, max_outputs=6) as session:
        writing = generate(
            session,
            random_tokens(model, PROMPT),
            Sampler(model, SamplerSettings()),
            drafter=drafter,
            max_tokens=40,
        )
        assert list(writing) == text
    assert max(drafter.limits) == 5


@pytest.mark.parametrize("n", [0, -3])
def test_no_length(model: Model, n: int) -> None:
    text, stats, held = write(model, {}, None, max_tokens=n)
    assert (text, stats.finish_reason, held) == ([], "length", [])


def test_the_samplers_above_end_as_they_should(plain: Callable[..., Any]) -> None:
    assert plain("ends", 40)[1].finish_reason == "end"
    assert 3 < len(plain("ends", 40)[0]) < 40
    assert plain("grammar", 40)[1].finish_reason == "end"
    assert plain("greedy", 40)[1].finish_reason == "length"


@pytest.mark.parametrize("n_ctx", [PROMPT, PROMPT + 1, PROMPT + 2, 33, 64])
@pytest.mark.parametrize("kind", ["right", "as-long-as-may-be", "too-long", "empty"])
def test_until_the_context_is_full(
    model: Model, plain: Callable[..., Any], n_ctx: int, kind: str
) -> None:
    expected = plain("sampled", None, n_ctx)
    assert expected[1].finish_reason == "context"
    assert len(expected[0]) == n_ctx - PROMPT + 1
    drafter = ScriptedDrafter(scripts(expected[0], model.n_vocab)[kind], PROMPT)
    check(write(model, SAMPLERS["sampled"], drafter, max_tokens=None, n_ctx=n_ctx), expected)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("n_ctx", [40, 256])
def test_random_skip_sets(
    model: Model, plain: Callable[..., Any], sampler: str, n_ctx: int
) -> None:
    for seed in range(4):
        drafter = RandomSkipSetDrafter(seed)
        found = write(model, SAMPLERS[sampler], drafter, max_tokens=50, n_ctx=n_ctx)
        check(found, plain(sampler, 50, n_ctx))


def test_what_a_drafter_learns(model: Model, plain: Callable[..., Any]) -> None:
    text = plain("sampled", 40)[0]
    drafter = ScriptedDrafter(partly_right(text, model.n_vocab), PROMPT)
    _, stats, _ = write(model, SAMPLERS["sampled"], drafter, max_tokens=40)
    assert len(drafter.rounds) == stats.rounds
    assert sum(r.drafted for r in drafter.rounds) == stats.drafted
    assert sum(r.accepted for r in drafter.rounds) == stats.accepted
    generated = 1
    for each in drafter.rounds:
        generated += each.accepted + 1
        assert each.generated == generated
    assert stats.drafter == {"rounds": stats.rounds}
    assert stats.to_json()["tokens_per_round"] == stats.tokens / stats.rounds


@pytest.mark.parametrize("taken", [1, 2, 5, 6, 7, 13])
def test_stopping_early_leaves_a_session_that_can_go_on(
    model: Model, plain: Callable[..., Any], taken: int
) -> None:
    """Between any two tokens, also in the middle of a round."""
    text = plain("greedy", 40)[0]
    drafter = ScriptedDrafter(lambda known, limit: text[known : known + 6], PROMPT)
    with Session(model, n_ctx=256, threads=1) as session:
        prompt = random_tokens(model, PROMPT)
        stats = Stats()
        sampler = Sampler(model, SamplerSettings())
        writing = generate(session, prompt, sampler, drafter=drafter, max_tokens=40, stats=stats)
        found = [next(writing) for _ in range(taken)]
        writing.close()
        assert found == text[:taken]
        assert session.tokens == [*prompt, *text[: taken - 1]]
        assert (stats.finish_reason, stats.tokens) == ("interrupted", taken)
        # What was taken is the next prompt.
        rest = list(generate(session, found[-1:], sampler, drafter=drafter, max_tokens=40 - taken))
        assert rest == text[taken:]


class BacksOff(ScriptedDrafter):
    """Backs off for some rounds between its drafts."""

    def __init__(self, script: Script, prompt: int, seed: int) -> None:
        super().__init__(script, prompt)
        self.random = random.Random(seed)
        self.left = 0
        self.passed_by = 0

    def back_off(self) -> BackOff | None:
        return BackOff(self.left) if self.left > 0 else None

    def skipped(self, session: Session, rounds: Sequence[Round], woken: bool) -> None:
        assert 1 <= len(rounds) <= self.left and not woken
        assert not any(each.drafted or each.path for each in rounds)
        self.rounds += rounds
        self.left -= len(rounds)
        self.passed_by += len(rounds)

    def draft(self, session: Session, pending: Sequence[int], limit: int) -> Draft:
        assert self.left == 0
        return super().draft(session, pending, limit)

    def learn(self, session: Session, round: Round) -> None:
        super().learn(session, round)
        self.left = self.random.choice([0, 1, 2, 5, 40])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_backing_off_gives_the_same_text(
    model: Model, plain: Callable[..., Any], sampler: str
) -> None:
    expected = plain(sampler, 60)
    for seed in range(6):
        script = scripts(expected[0], model.n_vocab)[("right", "partly-right", "wrong")[seed % 3]]
        drafter = BacksOff(script, PROMPT, seed)
        found = write(model, SAMPLERS[sampler], drafter, max_tokens=60)
        check(found, expected)
        stats = found[1]
        assert len(drafter.rounds) == len(stats.record)
        assert stats.rounds - len(stats.record) in (0, 1)  # the end came within a draft
        generated, last = 1, expected[0][:1]
        for each in drafter.rounds:
            assert each.pending[-1:] == tuple(last)
            generated += len(each.drawn)
            assert each.generated == generated
            last = expected[0][generated - 1 : generated]
            assert [each.token] == last


@verifies_trees
def test_backing_off_after_branches(model: Model, plain: Callable[..., Any]) -> None:
    """Skipped rounds may begin with several tokens that are not in the cache."""

    class BacksOffInTrees(BacksOff):
        def draft(self, session: Session, pending: Sequence[int], limit: int) -> Draft:
            return self.trees.draft(session, pending, limit)

    text = plain("sampled", 60)[0]
    began_with_several = 0
    for seed in range(8):
        drafter = BacksOffInTrees(lambda known, limit: (), PROMPT, seed)
        drafter.trees = TreeDrafter(text, PROMPT, seed, most=8)  # type: ignore[attr-defined]
        check(write(model, SAMPLERS["sampled"], drafter, max_tokens=60), plain("sampled", 60))
        began_with_several += sum(len(r.pending) > 1 and not r.drafted for r in drafter.rounds)
    assert began_with_several > 5


@pytest.mark.parametrize("taken", range(1, 25))
def test_stopping_early_in_plain_decoding(
    model: Model, plain: Callable[..., Any], taken: int
) -> None:
    """Also between tokens that were decoded in one call."""
    text = plain("greedy", 40)[0]
    with Session(model, n_ctx=256, threads=1) as session:
        prompt, stats = random_tokens(model, PROMPT), Stats()
        sampler = Sampler(model, SamplerSettings())
        writing = generate(session, prompt, sampler, max_tokens=40, stats=stats)
        found = [next(writing) for _ in range(taken)]
        writing.close()
        assert found == text[:taken]
        assert session.tokens == [*prompt, *text[: taken - 1]]
        assert (stats.finish_reason, stats.tokens) == ("interrupted", taken)
        assert len(stats.sources) == taken and len(stats.record) == stats.rounds == taken - 1
        rest = list(generate(session, found[-1:], sampler, max_tokens=40 - taken))
        assert rest == text[taken:]


def check_interrupted(
    session: Session,
    sampler: Sampler,
    drafter: Drafter | None,
    text: Sequence[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is patched interrupts the text; without it, the text goes on from there."""
    prompt = random_tokens(session.model, PROMPT)
    found: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        for token in generate(session, prompt, sampler, drafter=drafter, max_tokens=40):
            found.append(token)
    assert found and found == text[: len(found)]
    assert session.tokens == [*prompt, *found[:-1]]
    monkeypatch.undo()
    rest = list(generate(session, found[-1:], sampler, max_tokens=40 - len(found)))
    assert rest == text[len(found) :]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("backs_off", [False, True])
def test_an_interrupt_in_plain_decoding_loses_nothing(
    model: Model,
    plain: Callable[..., Any],
    when: str,
    backs_off: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = plain("greedy", 40)[0]
    with Session(model, n_ctx=256, threads=1) as session:
        sampler = Sampler(model, SamplerSettings())
        drafter = (
            BacksOff(lambda known, n: text[known : known + 4], PROMPT, 5) if backs_off else None
        )
        write, calls = session.write, 0

        def interrupted(*arguments: Any, **rest: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2 and when == "before":
                raise KeyboardInterrupt
            stretch = write(*arguments, **rest)
            if calls == 2:
                raise KeyboardInterrupt
            return stretch

        monkeypatch.setattr(session, "write", interrupted)
        check_interrupted(session, sampler, drafter, text, monkeypatch)


@pytest.mark.parametrize("where", ["before", "after", "first draw"])
@pytest.mark.parametrize("tree", [False, True])
def test_an_interrupt_in_a_round_loses_nothing(
    model: Model, plain: Callable[..., Any], where: str, tree: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = plain("greedy", 40)[0]
    with Session(model, n_ctx=256, threads=1) as session:
        drafter: Drafter = ScriptedDrafter(lambda known, n: text[known : known + 4], PROMPT)
        if tree:
            drafter = TreeDrafter(text, PROMPT, seed=3)
        sampler = Sampler(model, SamplerSettings())
        verify, sample = session.verify, sampler.sample
        rounds = 0

        def interrupted_verify(*arguments: Any) -> None:
            nonlocal rounds
            rounds += 1
            if rounds == 4 and where == "before":
                raise KeyboardInterrupt
            verify(*arguments)
            if rounds == 4 and where == "after":
                raise KeyboardInterrupt

        def interrupted_sample(*arguments: Any) -> int:
            if rounds == 4 and where == "first draw":
                raise KeyboardInterrupt
            return sample(*arguments)

        monkeypatch.setattr(session, "verify", interrupted_verify)
        monkeypatch.setattr(sampler, "sample", interrupted_sample)
        check_interrupted(session, sampler, drafter, text, monkeypatch)


def test_a_second_turn(model: Model) -> None:
    """A session that was drafted on answers the next prompt as one that was not."""
    second = random_tokens(model, 9, seed=4)
    turns = []
    for drafter in (None, RandomSkipSetDrafter(2)):
        with Session(model, n_ctx=256, threads=1) as session:
            sampler = Sampler(model, SamplerSettings(temperature=0.9, seed=1))
            turns.append(
                [
                    list(generate(session, prompt, sampler, drafter=drafter, max_tokens=25))
                    for prompt in (random_tokens(model, PROMPT), second)
                ]
            )
    assert turns[0] == turns[1]


def test_a_prompt_that_does_not_fit(model: Model) -> None:
    with Session(model, n_ctx=16, threads=1) as session:
        sampler = Sampler(model, SamplerSettings())
        with pytest.raises(ContextFull, match="17 tokens"):
            list(generate(session, random_tokens(model, 17), sampler))
        assert len(session) == 0


@verifies_trees
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_tree_gives_the_same_text(
    model: Model, plain: Callable[..., Any], sampler: str
) -> None:
    text = plain(sampler, 60)[0]
    rounds: list[Round] = []
    for seed in range(9):
        drafter = TreeDrafter(text, PROMPT, seed, most=(3, 8, 31)[seed % 3])
        found = write(model, SAMPLERS[sampler], drafter, max_tokens=60)
        check(found, plain(sampler, 60))
        rounds.extend(drafter.rounds)
    # Some of what was accepted was in the first row, some was not and was verified once more.
    assert any(r.path[:2] == (0, 1) and not r.draft.is_chain for r in rounds)
    assert sum(len(r.pending) > 1 for r in rounds) > 5


@verifies_trees
@pytest.mark.parametrize("sampler", ["greedy", "ends"])
def test_any_length_with_trees(model: Model, plain: Callable[..., Any], sampler: str) -> None:
    text = plain(sampler, 20)[0]
    for n in range(1, 21):
        drafter = TreeDrafter([*text, 9, 8, 7], PROMPT, seed=n)
        check(write(model, SAMPLERS[sampler], drafter, max_tokens=n), plain(sampler, n))
        assert all(0 <= limit < n for limit in drafter.limits)


@verifies_trees
@pytest.mark.parametrize("n_ctx", [PROMPT, PROMPT + 1, PROMPT + 2, 33, 64])
def test_trees_until_the_context_is_full(
    model: Model, plain: Callable[..., Any], n_ctx: int
) -> None:
    expected = plain("sampled", None, n_ctx)
    for seed in range(4):
        drafter = TreeDrafter(expected[0], PROMPT, seed)
        check(write(model, SAMPLERS["sampled"], drafter, max_tokens=None, n_ctx=n_ctx), expected)


@verifies_trees
@pytest.mark.parametrize("taken", range(1, 14))
def test_stopping_early_with_trees(model: Model, plain: Callable[..., Any], taken: int) -> None:
    text = plain("greedy", 40)[0]
    with Session(model, n_ctx=256, threads=1) as session:
        prompt = random_tokens(model, PROMPT)
        sampler = Sampler(model, SamplerSettings())
        drafter = TreeDrafter(text, PROMPT, seed=taken)
        writing = generate(session, prompt, sampler, drafter=drafter, max_tokens=40)
        found = [next(writing) for _ in range(taken)]
        writing.close()
        assert found == text[:taken]
        assert session.tokens == [*prompt, *text[: taken - 1]]
        rest = list(generate(session, found[-1:], sampler, drafter=drafter, max_tokens=40 - taken))
        assert rest == text[taken:]


@verifies_trees
def test_trees_beyond_a_sliding_window(tiny: Tiny) -> None:
    """A ring of 256 cells, gone around."""
    model = tiny("gemma3", layer_gain=0.3)
    texts = []
    for drafter in (None, TreeDrafter([], 290), TreeDrafter([], 290, seed=1)):
        with Session(model, n_ctx=512, threads=1, batch=64) as session:
            sampler = Sampler(model, SamplerSettings(**SAMPLERS["sampled"]))
            if drafter is not None:
                drafter.text = texts[0]
            prompt = random_tokens(model, 290)
            texts.append(list(generate(session, prompt, sampler, drafter=drafter, max_tokens=200)))
        if drafter is not None:
            assert sum(len(r.pending) > 1 for r in drafter.rounds) > 10
    assert texts[0] == texts[1] == texts[2]
