"""Texts side by side, and what they teach."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from steps import RealModel, Tiny, open_session, random_tokens

from edge_conflayers.chat import chat_tokens
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.engine.session.next_state_head import drawn_from, keep_inner_state
from edge_conflayers.methods import MethodOptions, make_method
from edge_conflayers.tune import teaching
from edge_conflayers.tune.lessons import Lessons
from edge_conflayers.tune.parallel_texts import FinishedText, ParallelTexts, Request, TrainingToken


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
@pytest.mark.parametrize("most", [1, 3, 5])
def test_texts_are_those_of_their_prompts(tiny: Tiny, arch: str, most: int) -> None:
    """Their states are those of a text alone, but for rounding; every one ends. Of prompts, tokens
    count from ``train_from`` on."""
    model = tiny(arch, n_layer=5, quant="f32")
    lengths, train_from = (4, 5, 7, 40, 50, 90, 9), (9, 0, 4, 0, 3, 20, 8)
    asked = [
        Request(random_tokens(model, length, length), 12, told)
        for length, told in zip(lengths, train_from, strict=True)
    ]
    told: dict[Request, list[TrainingToken]] = {each: [] for each in asked}
    finished: dict[Request, list[int]] = {}
    with ParallelTexts(model, n_parallel=most, n_ctx=256, threads=1) as texts:
        for each in texts.write(iter(asked)):
            if isinstance(each, FinishedText):
                finished[each.request] = each.tokens
            else:
                told[each.request].append(each)
    assert set(finished) == set(asked)
    for each, tokens in finished.items():
        assert len(tokens) <= 12
        heard = [token.token for token in told[each] if token.generated]
        assert heard == tokens[: len(heard)] and len(tokens) - len(heard) <= 1
        of_prompt = [token.token for token in told[each] if not token.generated]
        assert of_prompt == each.prompt[each.train_from + 1 :]
        check_states(model, each.prompt[: len(each.prompt) - len(of_prompt)], told[each])


def check_states(model: Model, before: list[int], told: list[TrainingToken]) -> None:
    """Told tokens are those of a text that begins so."""
    with open_session(model) as session:
        keep_inner_state(session.context, 4)
        session.read(before[:-1])
        session.step(before[-1:])
        for token in told:
            state = drawn_from(session.context, -1, model.n_embd)
            assert token.state == pytest.approx(state, abs=2e-2)
            session.step([token.token])
            after = drawn_from(session.context, -1, model.n_embd)
            assert token.next_state == pytest.approx(after, abs=2e-2)


def test_the_same_seed_writes_the_same(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3)
    asked = [Request(random_tokens(model, 6, i), 10) for i in range(4)]

    def tokens(seed: int) -> list[list[int]]:
        with ParallelTexts(model, n_parallel=2, n_ctx=64, threads=1, seed=seed) as texts:
            written = texts.write(iter(asked))
            return [each.tokens for each in written if isinstance(each, FinishedText)]

    assert tokens(1) == tokens(1) != tokens(2)


def test_prompts_without_room_for_a_text_are_left_out(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3)
    asked = [Request(random_tokens(model, n), 4) for n in (60, 0, 5)]
    with ParallelTexts(model, n_parallel=2, n_ctx=64, threads=1) as texts:
        ends = [each for each in texts.write(iter(asked)) if isinstance(each, FinishedText)]
    assert len(ends) == 1


def test_without_prompts_there_is_no_text(tiny: Tiny) -> None:
    with ParallelTexts(tiny("llama", n_layer=3), n_parallel=2, n_ctx=64, threads=1) as texts:
        assert list(texts.write(iter([]))) == []


def test_without_a_usable_prompt_nothing_is_taught(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama", n_layer=3)
    monkeypatch.delitem(model.metadata, "tokenizer.chat_template", raising=False)
    monkeypatch.setattr(model, "tokenize", lambda text, **options: [])
    assert teaching.teach(model, [random_tokens(model, 400), []], seconds=60, threads=1) is None


def test_an_interrupt_keeps_what_was_taught(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", n_layer=3, layer_gain=0.1)

    def interrupting(progress: teaching.Progress) -> None:
        if progress.tokens >= limit:
            raise KeyboardInterrupt

    limit = 1500
    taught = teaching.teach(
        model, [random_tokens(model, 5)], seconds=60, threads=1, on_progress=interrupting
    )
    assert taught is not None and taught.interrupted and 1024 <= taught.tokens <= 1500
    limit = 10
    with pytest.raises(KeyboardInterrupt):
        teaching.teach(
            model, [random_tokens(model, 5)], seconds=60, threads=1, on_progress=interrupting
        )


def test_an_interrupt_while_learning_keeps_the_best_so_far(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3, layer_gain=0.1)
    learned = 0

    def interrupting(progress: teaching.Progress) -> None:
        nonlocal learned
        learned += progress.doing == "learning"
        if learned == 4:
            raise KeyboardInterrupt

    taught = teaching.teach(
        model, [random_tokens(model, 5)], seconds=8, threads=1, on_progress=interrupting
    )
    assert taught is not None and taught.interrupted and learned == 4
    assert np.isfinite(taught.head.weights).all()
    assert taught.head.chances


def test_texts_of_the_users_are_read(tiny: Tiny) -> None:
    """All of their tokens but the first of each part count. Tasks do not fit here."""
    model = tiny("llama", n_layer=3, layer_gain=0.1)
    text = random_tokens(model, 700)
    with ParallelTexts(model, n_parallel=2, n_ctx=64, threads=1) as texts:
        lessons = Lessons(texts, [], [text])
        for each in texts.write(lessons.requests()):
            lessons.take(each)
        lessons.finish()
        written = lessons.learned.written
        assert written.total() == 700 - 22  # parts of 32
        assert not written - Counter(text)


def test_prompts_that_are_held_out_teach_nothing(tiny: Tiny) -> None:
    """Nor do other answers to them."""
    model = tiny("llama", n_layer=3, layer_gain=0.1)
    prompts = [random_tokens(model, 4 + i) for i in range(20)]
    with ParallelTexts(model, n_parallel=4, n_ctx=64, threads=1) as texts:
        lessons = Lessons(texts, prompts)
        requests = list(lessons.requests())  # tasks do not fit here
        assert [each.prompt for each in requests] == prompts * 4
        for each in texts.write(iter(requests)):
            lessons.take(each)
            if isinstance(each, FinishedText):
                tested = each.request.prompt == prompts[15]
                assert len(lessons.held_out if tested else lessons.learned) > 0
    assert len(lessons.held_out) < len(lessons.learned) / 8


def test_the_better_head_is_kept(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3, layer_gain=0.05)

    def teach(known: Any) -> teaching.Taught:
        stop = 1500 if known is None else 1100

        def enough(progress: teaching.Progress) -> None:
            if progress.tokens >= stop:
                raise KeyboardInterrupt

        taught = teaching.teach(
            model, [random_tokens(model, 5)], seconds=60, known=known, threads=1, on_progress=enough
        )
        assert taught is not None
        return taught

    first = teach(None)
    written = Counter({7: 1000, 9: 3})
    useless = teaching.NextStateHead(np.zeros_like(first.head.weights), written)
    better = teach(useless).head
    assert better is not useless
    assert better.written[7] >= 1000 and better.written.total() > 2000  # what it knew and learned
    assert 0 <= first.foreseen[0] <= first.foreseen[1] <= 1


@pytest.mark.model
def test_a_real_model_teaches_itself(
    real_model: RealModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It foresees a good part of what it writes, and the text stays plain decoding's."""
    monkeypatch.setattr("edge_conflayers.drafters.next_state.PAYS_FROM", 0.0)
    model = real_model("smollm2-135m")
    stop = 3000

    def enough(progress: teaching.Progress) -> None:
        if progress.tokens >= stop:
            raise KeyboardInterrupt

    prompt = chat_tokens(model, [{"role": "user", "content": "Tell me about the sea."}])
    taught = teaching.teach(model, [prompt], seconds=300, threads=2, on_progress=enough)
    assert taught is not None
    assert taught.foreseen[0] > 0.1 and taught.foreseen[1] > 0.25
    sources: set[str] = set()
    for subject in ("sea", "sun", "wind", "moon"):  # on a busy machine one text may have no drafts
        prompt = chat_tokens(model, [{"role": "user", "content": f"Tell me about the {subject}."}])
        plain, _ = write(model, prompt, "plain", MethodOptions())
        drafted, stats = write(model, prompt, "auto", MethodOptions(next_state=taught.head))
        assert drafted == plain
        sources.update(stats.sources)
    assert "next-state" in sources


def write(
    model: Model, prompt: list[int], name: str, options: MethodOptions
) -> tuple[list[int], Stats]:
    method, stats = make_method(name, model, options), Stats()
    with Session(model, n_ctx=512, threads=2) as session:
        method.prepare(session)
        sampler = Sampler(model, SamplerSettings())
        text = list(
            generate(session, prompt, sampler, drafter=method.drafter, max_tokens=96, stats=stats)
        )
        sampler.close()
    method.close()
    return text, stats
