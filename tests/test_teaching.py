"""Texts side by side, and what they teach."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from steps import RealModel, Tiny, open_session, random_tokens

from edge_conflayers import teaching
from edge_conflayers.methods import MethodOptions, make_method
from edge_conflayers.model import Model
from edge_conflayers.parallel_texts import FinishedText, ParallelTexts, Written
from edge_conflayers.sampling import Sampler, SamplerSettings
from edge_conflayers.session import Session
from edge_conflayers.session.next_state import output_state
from edge_conflayers.speculate import Stats, generate


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
@pytest.mark.parametrize("most", [1, 3, 5])
def test_texts_are_those_of_their_prompts(tiny: Tiny, arch: str, most: int) -> None:
    """Their states are those of a text alone, but for rounding; every one ends."""
    model = tiny(arch, n_layer=3, quant="f32")
    prompts = [random_tokens(model, 4 + 3 * i, i) for i in range(7)]
    written: dict[int, list[Written]] = {}
    finished: dict[int, list[int]] = {}
    with ParallelTexts(model, most=most, room=128, threads=1) as texts:
        for each in texts.write(iter(prompts), 12):
            if isinstance(each, FinishedText):
                finished[each.number] = each.tokens
            else:
                written.setdefault(each.text, []).append(each)
    assert set(finished) == set(range(7))
    for number, tokens in finished.items():
        if not tokens:
            continue
        assert len(tokens) <= 12
        read = [each.token for each in written[number]]
        assert read == tokens[: len(read)] and len(tokens) - len(read) <= 1
        with open_session(model) as session:
            session.read(prompts[number])
            for each in written[number]:
                before = output_state(session.context, -1, model.n_embd)
                assert each.state == pytest.approx(before, abs=2e-2)
                session.step([each.token])
                after = output_state(session.context, -1, model.n_embd)
                assert each.next_state == pytest.approx(after, abs=2e-2)


def test_the_same_seed_writes_the_same(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3)
    prompts = [random_tokens(model, 6, i) for i in range(4)]

    def tokens(seed: int) -> list[list[int]]:
        with ParallelTexts(model, most=2, room=64, threads=1, seed=seed) as texts:
            written = texts.write(iter(prompts), 10)
            return [each.tokens for each in written if isinstance(each, FinishedText)]

    assert tokens(1) == tokens(1) != tokens(2)


def test_prompts_without_room_for_a_text_are_left_out(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3)
    prompts = [random_tokens(model, 60), [], random_tokens(model, 5)]
    with ParallelTexts(model, most=2, room=64, threads=1) as texts:
        ends = [each for each in texts.write(iter(prompts), 4) if isinstance(each, FinishedText)]
    assert len(ends) == 1


def test_without_prompts_there_is_no_text(tiny: Tiny) -> None:
    with ParallelTexts(tiny("llama", n_layer=3), most=2, room=64, threads=1) as texts:
        assert list(texts.write(iter([]), 4)) == []


def test_without_a_usable_prompt_nothing_is_taught(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama", n_layer=3)
    monkeypatch.setattr(teaching, "make_up_prompts", lambda texts, deadline: [])
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
    assert taught is not None and taught.interrupted and taught.tokens >= 1500
    limit = 10
    with pytest.raises(KeyboardInterrupt):
        teaching.teach(
            model, [random_tokens(model, 5)], seconds=60, threads=1, on_progress=interrupting
        )


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
    useless = teaching.NextStateHead(np.zeros_like(first.head.weights))
    assert teach(useless).head is not useless
    assert 0 <= first.foreseen[0] <= first.foreseen[1] <= 1


@pytest.mark.model
def test_a_real_model_teaches_itself(
    real_model: RealModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It foresees a good part of what it writes, and the text stays plain decoding's."""
    monkeypatch.setattr("edge_conflayers.drafters.auto.PAYS_FROM", 0.0)
    model = real_model("smollm2-135m")
    stop = 3000

    def enough(progress: teaching.Progress) -> None:
        if progress.tokens >= stop:
            raise KeyboardInterrupt

    chat = model.format_chat([{"role": "user", "content": "Tell me about the sea."}])
    prompt = model.tokenize(chat, parse_special=True)
    taught = teaching.teach(model, [prompt], seconds=300, threads=2, on_progress=enough)
    assert taught is not None
    assert taught.foreseen[0] > 0.1 and taught.foreseen[1] > 0.25
    plain, stats = write(model, prompt, "plain", MethodOptions())
    drafted, stats = write(model, prompt, "auto", MethodOptions(next_state=taught.head))
    assert drafted == plain
    assert "next-state" in stats.sources


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


@pytest.mark.model
def test_made_up_prompts_are_in_the_models_template(real_model: RealModel) -> None:
    model = real_model("smollm2-135m")
    with ParallelTexts(model, threads=2) as texts:
        prompts = teaching.make_up_prompts(texts, deadline=math.inf)
    before, _, after = model.format_chat([{"role": "user", "content": "x y"}]).partition("x y")
    opening, ending = (model.tokenize(part, parse_special=True) for part in (before, after))
    assert len(prompts) > 8 and len({tuple(prompt) for prompt in prompts}) > 8
    for prompt in prompts:
        assert prompt[: len(opening)] == opening and prompt[-len(ending) :] == ending
        assert len(prompt) > len(opening) + len(ending)


def test_without_a_template_texts_begin_anew(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", n_layer=3)
    monkeypatch.delitem(model.metadata, "tokenizer.chat_template", raising=False)
    with ParallelTexts(model, most=2, room=64, threads=1) as texts:
        (beginning,) = teaching.make_up_prompts(texts, deadline=math.inf)
    assert beginning
