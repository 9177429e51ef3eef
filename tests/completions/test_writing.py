"""Texts as typed results."""

from __future__ import annotations

import codecs
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from steps import TinyPath, random_tokens

from edge_conflayers.completions.logprobs import prompt_logprobs, token_logprobs
from edge_conflayers.completions.request import Piece, TextRequest
from edge_conflayers.completions.slots import Slots
from edge_conflayers.completions.writing import write
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.errors import BadInput
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.text_generator import TextGenerator


@pytest.fixture(scope="module")
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", n_layer=6, layer_gain=0.2)


@pytest.fixture
def generator(path: Path, tmp_path: Path) -> Iterator[TextGenerator]:
    store = ProfileStore(tmp_path / "profiles")
    with TextGenerator(path, method="lookup", threads=1, profiles=store) as found:
        yield found


def repeating(generator: TextGenerator, n: int = 30) -> list[int]:
    """A prompt whose text lookups draft."""
    return random_tokens(generator.model, n) * 2


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_each_token_is_a_result_with_who_drafted_it(generator: TextGenerator) -> None:
    prompt = repeating(generator)
    tokens = list(generator.generate(prompt, max_tokens=60))
    pieces = list(write(generator, TextRequest(prompt, max_tokens=60)))
    assert [piece.token for piece in pieces] == [*tokens, None]
    assert text_of(pieces) == generator.model.text(tokens)
    assert {piece.source for piece in pieces} == {"full", "lookup"}
    assert [piece.finish_reason for piece in pieces] == [None] * 60 + ["length"]
    assert pieces[0].stats.tokens == 60 and pieces[0].stats.accepted > 0


def drafted_by(generator: TextGenerator, pieces: list[Piece]) -> list[str]:
    """Who drafted the token that completed each character."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    tokens = [(piece.token, piece.source) for piece in pieces if piece.token is not None]
    found = [
        source for token, source in tokens for _ in decoder.decode(generator.model.piece(token))
    ]
    return found + [tokens[-1][1] for _ in decoder.decode(b"", final=True)]


def test_parts_say_who_drafted_each_character(generator: TextGenerator) -> None:
    prompt = repeating(generator)
    whole = text_of(list(write(generator, TextRequest(prompt, max_tokens=60))))
    held_back = 0
    for begin in range(0, len(whole) - 12, 7):  # strings that begin as the text goes on
        stop = whole[begin : begin + 12] + "?"
        pieces = list(write(generator, TextRequest(prompt, max_tokens=60, stop=[stop])))
        parts = [part for piece in pieces for part in piece.parts]
        assert "".join(text for text, _ in parts) == whole
        assert [source for text, source in parts for _ in text] == drafted_by(generator, pieces)
        assert all(piece.text == "".join(text for text, _ in piece.parts) for piece in pieces)
        held_back += sum(len({source for _, source in piece.parts}) > 1 for piece in pieces)
    assert held_back > 0


def test_a_stop_string_ends_the_text_and_is_no_part_of_it(generator: TextGenerator) -> None:
    prompt = repeating(generator)
    whole = text_of(list(write(generator, TextRequest(prompt, max_tokens=60))))
    rng = random.Random(1)
    for _ in range(10):
        begin = rng.randrange(len(whole) - 3)
        stop = whole[begin : begin + rng.randint(1, 3)]
        pieces = list(write(generator, TextRequest(prompt, max_tokens=60, stop=[stop])))
        assert text_of(pieces) == whole[: whole.index(stop)]
        assert (pieces[-1].finish_reason, pieces[-1].stop) == ("stop", stop)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "seed": 4}])
def test_logprobs_are_the_full_models_own(
    generator: TextGenerator, sampling: dict[str, float]
) -> None:
    prompt = repeating(generator)
    settings = SamplerSettings(**sampling)  # type: ignore[arg-type]
    plain = [p.token for p in write(generator, TextRequest(prompt, settings, max_tokens=40))]
    request = TextRequest(prompt, settings, max_tokens=40, logprobs=3)
    pieces = list(write(generator, request))
    assert [piece.token for piece in pieces] == plain
    assert pieces[-1].stats.accepted > 0 or sampling
    with generator.model.open_session(n_ctx=512, threads=1) as session:
        session.read(prompt)
        for piece in pieces[:-1]:
            assert piece.token is not None
            assert piece.logprobs == token_logprobs(session.logits(), piece.token, 3)
            session.step([piece.token])


def test_logprobs_add_up() -> None:
    logits = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    found = token_logprobs(logits, 7, 50)
    assert found.top[0][0] == int(logits.argmax())
    assert np.isclose(sum(np.exp(each) for _, each in found.top), 1.0)
    assert dict(found.top)[7] == found.logprob
    assert token_logprobs(logits, 7, 0).top == ()


def test_logprobs_of_a_prompt(generator: TextGenerator) -> None:
    prompt = random_tokens(generator.model, 70)
    found = prompt_logprobs(generator.model, prompt, 2, 1)
    assert [each.token for each in found] == prompt[1:]
    with generator.model.open_session(n_ctx=128, threads=1) as session:
        for i, each in enumerate(found):
            session.step(prompt[i : i + 1])
            assert each == token_logprobs(session.logits(), prompt[i + 1], 2)


def test_a_watcher_may_change_what_is_drawn(generator: TextGenerator) -> None:
    class Never:
        def __init__(self, token: int) -> None:
            self.token = token
            self.drawn: list[int] = []

        def see(self, logits: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            logits = logits.copy()
            logits[self.token] = -np.inf
            return logits

        def drew(self, token: int) -> None:
            self.drawn.append(token)

    prompt = repeating(generator)
    for sampling in (SamplerSettings(), SamplerSettings(repeat_penalty=1.3)):
        first = next(write(generator, TextRequest(prompt, sampling, max_tokens=1))).token
        assert first is not None
        never = Never(first)
        request = TextRequest(prompt, sampling, max_tokens=20, watchers=[never])
        tokens = [piece.token for piece in write(generator, request)][:-1]
        assert first not in tokens and never.drawn[: len(tokens)] == tokens


def test_what_a_watcher_raises_ends_the_text(generator: TextGenerator) -> None:
    class Failing:
        def see(self, logits: object) -> None:
            raise RuntimeError("seen")

        def drew(self, token: int) -> None: ...

    request = TextRequest(repeating(generator), max_tokens=20, watchers=[Failing()])
    with pytest.raises(RuntimeError, match="seen"):
        list(write(generator, request))


def test_slots_find_the_one_that_holds_the_prompt(path: Path, tmp_path: Path) -> None:
    store = ProfileStore(tmp_path / "profiles")
    first = TextGenerator(path, method="plain", n_ctx=2048, threads=1, profiles=store)
    with Slots(first, 2) as slots:
        prompts = [random_tokens(slots.model, 600, seed=seed) for seed in (1, 2)]
        used = []
        for prompt in (*prompts, prompts[0] + [5], prompts[1] + [5]):
            with slots.take(prompt) as generator:
                assert generator is not None
                pieces = list(write(generator, TextRequest(prompt, max_tokens=2)))
                used.append((id(generator), pieces[-1].stats.cached_tokens))
        (a, none), (b, no), (again, some), (also, much) = used
        assert a != b and (again, also) == (a, b)
        assert (none, no, some, much) == (0, 0, 512, 512)
        with slots.take([1]), slots.take([2]):
            with slots.take([3], timeout=0.01) as nobody:
                assert nobody is None
            assert slots.free == 0
        assert slots.free == 2
        with pytest.raises(BadInput, match="at least one"):
            Slots(first, 0)


def test_slots_write_at_the_same_time_what_they_write_alone(path: Path, tmp_path: Path) -> None:
    store = ProfileStore(tmp_path / "profiles")
    with Slots(TextGenerator(path, method="lookup", threads=1, profiles=store), 3) as slots:
        prompts = [random_tokens(slots.model, 40, seed=seed) * 2 for seed in range(6)]
        with slots.take([]) as one:
            assert one is not None
            alone = [list(one.generate(prompt, max_tokens=30)) for prompt in prompts]
        found: dict[int, list[int]] = {}

        def run(i: int) -> None:
            with slots.take(prompts[i]) as generator:
                assert generator is not None
                found[i] = list(generator.generate(prompts[i], max_tokens=30))

        threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[i] for i in range(6)] == alone


@pytest.mark.parametrize("mirostat", [1, 2])
def test_drafts_leave_mirostats_text_as_it_is(
    generator: TextGenerator, path: Path, tmp_path: Path, mirostat: int
) -> None:
    settings = SamplerSettings(
        temperature=0.6, seed=2, mirostat=mirostat, mirostat_tau=1.0, mirostat_eta=0.3
    )
    prompt = repeating(generator)
    pieces = list(write(generator, TextRequest(prompt, settings, max_tokens=60)))
    assert pieces[-1].stats.accepted > 0
    store = ProfileStore(tmp_path / "other")
    with TextGenerator(path, method="plain", threads=1, profiles=store) as plain:
        other = list(write(plain, TextRequest(prompt, settings, max_tokens=60)))
        assert text_of(other) == text_of(pieces)
        usual = SamplerSettings(temperature=0.6, seed=2)
        assert text_of(list(write(plain, TextRequest(prompt, usual, max_tokens=60)))) != text_of(
            pieces
        )


def test_penalties_may_leave_the_prompt_out(generator: TextGenerator) -> None:
    prompt = repeating(generator)
    texts = [
        text_of(
            list(
                write(
                    generator,
                    TextRequest(
                        prompt,
                        SamplerSettings(repeat_penalty=2.0, penalize_prompt=penalized),
                        max_tokens=20,
                    ),
                )
            )
        )
        for penalized in (True, False)
    ]
    plain = text_of(list(write(generator, TextRequest(prompt, max_tokens=1))))
    assert texts[0] != texts[1] and texts[1].startswith(plain)
