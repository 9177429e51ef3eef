"""A second model as drafter: its session follows the text, and its vocabulary must fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steps import Tiny, TinyPath, random_tokens

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.auto import AutoDrafter
from edge_conflayers.controller.draft_model_arm import DraftModelArm
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.drafter import Drafter
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.drafters.draft_model import DraftModelDrafter
from edge_conflayers.drafters.second_model import check_vocabulary, follow
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput
from edge_conflayers.methods import DRAFT_MODEL_METHODS, MethodOptions, make_method


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Model:
    return tiny("llama", n_layer=4, layer_gain=0.2)


@pytest.fixture(scope="module")
def smaller(tiny: Tiny) -> Model:
    """Another random model with the same vocabulary."""
    return tiny("qwen2", n_layer=2)


def greedy(model: Model, text: Sequence[int], n: int) -> list[int]:
    with Session(model, n_ctx=256, threads=1) as session:
        sampler = Sampler(model, SamplerSettings())
        found = list(generate(session, text, sampler, max_tokens=n))
        sampler.close()
    return found


def write(
    model: Model, prompt: Sequence[int], drafter: Drafter | None, **settings: int
) -> tuple[list[int], Stats]:
    stats = Stats()
    with Session(model, **{"n_ctx": 256, "threads": 1, **settings}) as session:
        sampler = Sampler(model, SamplerSettings(temperature=0.8, seed=3))
        text = list(generate(session, prompt, sampler, drafter=drafter, stats=stats))
        sampler.close()
    return text, stats


@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_the_text_is_plain_decodings(model: Model, smaller: Model, same: bool) -> None:
    prompt = random_tokens(model, 9)
    drafter = DraftModelDrafter(model if same else smaller, stop_probability=0.0, max_draft=4)
    plain, _ = write(model, prompt, None)
    for n_ctx in (256, 300):  # one drafter for several sessions, the later ones larger
        text, stats = write(model, prompt, drafter, n_ctx=n_ctx)
        assert text[: len(plain) - 1] == plain[:-1]
        assert stats.drafted > stats.accepted > 0 or not same
        assert set(stats.sources) <= {"full", "draft-model"}
    drafter.close()


def test_a_draft_is_the_models_own_greedy_text(model: Model, smaller: Model) -> None:
    text = random_tokens(model, 12)
    drafter = DraftModelDrafter(smaller, stop_probability=0.0, max_draft=6)
    with Session(model, n_ctx=128, threads=1) as session:
        session.read(text[:-2])
        draft = drafter.draft(session, text[-2:], 6)
        expected = greedy(smaller, text, 6)
        assert list(draft.tokens) == expected
        assert draft.sources == ("draft-model",) * len(draft.tokens)
        assert drafter.draft(session, text[-2:], 3).tokens == draft.tokens[:3]
        assert drafter.draft(session, text[-2:], 0) == Draft()
        assert session.tokens == text[:-2]
        drafter.stop_probability = min(draft.probabilities) + 1e-6
        short = drafter.draft(session, text[-2:], 6)
        assert len(short.tokens) == draft.probabilities.index(min(draft.probabilities))
    drafter.close()


@pytest.fixture(scope="module")
def following(smaller: Model) -> Iterator[Session]:
    with Session(smaller, n_ctx=64, threads=1, max_outputs=1) as session:
        yield session


@given(st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=12), min_size=1, max_size=5))
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_following_any_text(smaller: Model, following: Session, texts: list[list[int]]) -> None:
    for text in texts:
        assert follow(following, text)
        assert following.tokens == text
    choice = following.best()[0]
    with Session(smaller, n_ctx=64, threads=1) as session:
        session.read(texts[-1])
        assert session.best()[0] == choice


def test_tokens_that_the_draft_model_does_not_have(model: Model) -> None:
    text = random_tokens(model, 5)
    with Session(model, n_ctx=64, threads=1) as session:
        assert not follow(session, [*text, model.n_vocab])
        assert session.tokens == []


def test_a_full_context_ends_drafting(model: Model, smaller: Model) -> None:
    drafter = DraftModelDrafter(smaller, stop_probability=0.0)
    with Session(model, n_ctx=256, threads=1) as session:
        text = random_tokens(model, 256)
        session.read(text[:254])
        assert len(drafter.draft(session, text[254:255], 8).tokens) <= 2
        assert len(drafter.draft(session, text[254:], 8).tokens) <= 1
    drafter.close()


def patched(path: Path, target: Path, old: bytes, new: bytes) -> Path:
    """A copy of a file with a few bytes changed."""
    data = path.read_bytes()
    assert len(old) == len(new) and data.count(old) == 1
    target.write_bytes(data.replace(old, new))
    return target


def test_other_vocabularies_are_refused(tiny_path: TinyPath, model: Model, tmp_path: Path) -> None:
    key = b"tokenizer.ggml.add_bos_token" + (7).to_bytes(4, "little")  # a boolean
    last = model.piece(model.n_vocab - 1)
    length = len(last).to_bytes(8, "little")
    cases = [
        (tiny_path("llama", n_vocab=500), "it has 500 tokens, not 320"),
        (
            patched(model.path, tmp_path / "bos.gguf", key + b"\1", key + b"\0"),
            "its texts begin with another token",
        ),
        (
            patched(model.path, tmp_path / "piece.gguf", length + last, length + last.upper()),
            f"its token {model.n_vocab - 1} is another",
        ),
    ]
    for path, why in cases:
        with Model(path) as other, pytest.raises(BadInput) as caught:
            make_method("draft-model", model, MethodOptions(draft_model=other))
        assert f"{path.name} cannot draft for {model.path.name}: {why};" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_longer_vocabulary_drafts_only_what_the_model_has(
    tiny_path: TinyPath, model: Model
) -> None:
    with Model(tiny_path("llama", n_vocab=400)) as padded:
        check_vocabulary(model, padded)
        check_vocabulary(padded, model)
        drafter = DraftModelDrafter(padded, stop_probability=0.0, max_draft=8)
        prompts = [random_tokens(model, 8, seed) for seed in range(8)]
        choices = [greedy(padded, prompt, 1)[0] for prompt in prompts]
        assert any(choice >= model.n_vocab for choice in choices), "the case to be tested"
        with Session(model, n_ctx=64, threads=1) as session:
            for prompt, choice in zip(prompts, choices, strict=True):
                draft = drafter.draft(session, prompt, 8)
                assert all(token < model.n_vocab for token in draft.tokens)
                assert bool(draft.tokens) == (choice < model.n_vocab)
        drafter.close()


def test_without_a_second_model_there_is_nothing_to_draft_with(model: Model) -> None:
    for name in DRAFT_MODEL_METHODS:
        with pytest.raises(BadInput, match=f"'{name}' needs a second model; .*--draft-model"):
            make_method(name, model)


TIMES = StepTimes(1.0, {2: 1.01, 8: 1.02})


def arm_drafts(arm: DraftModelArm, session: Session, pending: list[int], limit: int) -> list[int]:
    return list(arm.draft(session, pending, limit, TIMES, 0.0).tokens)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(3, 5), min_size=2, max_size=30), st.integers(1, 6)),
        min_size=1,
        max_size=5,
    )
)
def test_the_arm_drafts_its_models_greedy_text_wherever_the_text_goes(
    model: Model, smaller: Model, texts: list[tuple[list[int], int]]
) -> None:
    arm = DraftModelArm(smaller, AcceptanceRates())
    with Session(model, n_ctx=64, threads=1) as session:
        session.read(texts[0][0][:-1])
        arm.begin(session, texts[0][0][:-1])
        for text, limit in texts:
            session.clear()
            session.read(text[:-1])
            assert arm_drafts(arm, session, text[-1:], limit) == greedy(smaller, text, limit)
            assert session.tokens == text[:-1]
    arm.close()


def test_the_arm_drafts_only_what_the_model_has(tiny_path: TinyPath, model: Model) -> None:
    with Model(tiny_path("llama", n_vocab=400)) as padded:
        arm = DraftModelArm(padded, AcceptanceRates())
        prompts = [random_tokens(model, 8, seed) for seed in range(8)]
        choices = [greedy(padded, prompt, 1)[0] for prompt in prompts]
        assert any(choice >= model.n_vocab for choice in choices), "the case to be tested"
        with Session(model, n_ctx=64, threads=1) as session:
            for prompt, choice in zip(prompts, choices, strict=True):
                session.clear()
                session.read(prompt[:-1])
                arm.begin(session, prompt[:-1])
                found = arm_drafts(arm, session, prompt[-1:], 6)
                assert all(token < model.n_vocab for token in found)
                assert bool(found) == (choice < model.n_vocab)
        arm.close()


def test_the_arm_near_the_end_of_the_context(model: Model, smaller: Model) -> None:
    arm = DraftModelArm(smaller, AcceptanceRates())
    with Session(model, n_ctx=256, threads=1) as session:
        text = random_tokens(model, 256)
        session.read(text[:254])
        arm.begin(session, text[:254])
        assert len(arm_drafts(arm, session, text[254:255], 8)) <= 2
        assert len(arm_drafts(arm, session, text[254:], 8)) <= 1
    arm.close()


@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_under_the_controller_the_text_is_plain_decodings(
    model: Model, smaller: Model, same: bool
) -> None:
    method = make_method(
        "auto-draft-model", model, MethodOptions(draft_model=model if same else smaller)
    )
    for seed in range(2):
        prompt = random_tokens(model, 9, seed)
        plain, _ = write(model, prompt, None)
        with Session(model, n_ctx=256, threads=1) as session:
            method.prepare(session)
        assert isinstance(method.drafter, AutoDrafter)
        text, stats = write(model, prompt, method.drafter)
        assert text[: len(plain) - 1] == plain[:-1]
        assert stats.drafter["draft_model"] == (model if same else smaller).path.name
    state = method.state()
    assert state is not None and state["others"].keys() == {"auto"}
    method.close()
    method.close()
