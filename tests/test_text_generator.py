"""Texts from a model's file in one call, and what is learned from them from use to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from steps import TinyPath, random_tokens

from edge_conflayers import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.text_generator import TextGenerator, context_for


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(tmp_path / "profiles")


@pytest.fixture(scope="module")
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", n_layer=6, layer_gain=0.2)


def opened(path: Path, store: ProfileStore, method: str = "auto", **more: Any) -> TextGenerator:
    return TextGenerator(path, method=method, threads=1, profiles=store, **more)


def profiles(store: ProfileStore) -> list[Path]:
    return sorted(store.root.glob("*.json")) if store.root.exists() else []


def test_a_text_is_that_of_plain_decoding(path: Path, store: ProfileStore) -> None:
    with opened(path, store, "plain") as plain, opened(path, store, "lookup") as lookup:
        prompt = [*random_tokens(plain.model, 30), *random_tokens(plain.model, 30)]
        expected = list(plain.generate(prompt, max_tokens=60))
        assert len(expected) == 60
        for _ in range(2):  # a second text starts from nothing but its prompt
            stats = Stats()
            assert list(lookup.generate(prompt, max_tokens=60, stats=stats)) == expected
            assert stats.tokens == 60 and stats.accepted > 0


def test_what_a_use_learns_the_next_one_knows(path: Path, store: ProfileStore) -> None:
    with opened(path, store) as first:
        list(first.generate(random_tokens(first.model, 30), max_tokens=40))
        assert not profiles(store)
    assert len(profiles(store)) == 1
    with opened(path, store) as second:
        session = second.open(30, 40)
        second._method.prepare(session)
        assert session.graph_stats().built == 0  # nothing is measured anew


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_it_is_kept_whatever_ends_the_text(
    path: Path, store: ProfileStore, error: type[BaseException]
) -> None:
    with pytest.raises(error), opened(path, store) as writer:
        for _ in writer.generate(random_tokens(writer.model, 30), max_tokens=40):
            raise error
    assert len(profiles(store)) == 1


def test_a_fresh_one_neither_reads_nor_writes(path: Path, store: ProfileStore) -> None:
    with opened(path, store, fresh=True) as writer:
        list(writer.generate(random_tokens(writer.model, 30), max_tokens=20))
    assert not profiles(store)
    with opened(path, store) as writer:
        list(writer.generate(random_tokens(writer.model, 30), max_tokens=20))
    (kept,) = profiles(store)
    before = kept.read_bytes()
    with opened(path, store, fresh=True) as writer:
        list(writer.generate(random_tokens(writer.model, 30), max_tokens=20))
    assert kept.read_bytes() == before


def test_text_comes_in_whole_characters(path: Path, store: ProfileStore) -> None:
    with opened(path, store, "lookup") as writer:
        prompt = "the the the"
        tokens = list(writer.generate(writer.model.tokenize(prompt), max_tokens=40))
        assert generate(writer, prompt, max_tokens=40) == writer.model.text(tokens)


def test_the_context_grows_with_the_texts_unless_it_is_given(
    path: Path, store: ProfileStore
) -> None:
    with opened(path, store) as writer:
        model = writer.model
        model.n_ctx_train = 16384  # a tiny model was trained for less than the least
        assert context_for(model, 10, 10) == 4096
        assert context_for(model, 4483, None) == 16384  # as many as fit
        assert context_for(model, 5000, 1000) == 6000
        assert context_for(model, 16384, None) == 16384
        first = writer.open(10, 10)
        assert writer.open(10, 20) is first
        larger = writer.open(4200, 10)
        assert larger is not first and larger.n_ctx >= 4210
        assert len(list(writer.generate(random_tokens(model, 10), max_tokens=5))) == 5
    with opened(path, store, n_ctx=64) as writer:
        assert writer.open(10, 10).n_ctx == 64
        with pytest.raises(BadInput, match="holds 64"):
            list(writer.generate(random_tokens(writer.model, 100), max_tokens=5))


def test_what_cannot_be_made_is_refused_at_once(path: Path, store: ProfileStore) -> None:
    for more, why in (
        ({"method": "nonsense"}, "there is no method"),
        ({"method": "draft-model"}, "needs a second model"),
        ({"draft_model": path}, "of use to the methods"),
    ):
        with pytest.raises(BadInput, match=why):
            opened(path, store, **more)
    with opened(path, store, "plain") as writer, pytest.raises(BadInput):
        next(writer.generate([1, 2], SamplerSettings(grammar="nonsense")))


def test_a_closed_one_says_so(path: Path, store: ProfileStore) -> None:
    writer = opened(path, store)
    writer.close()
    writer.close()
    with pytest.raises(EdgeConflayersError, match="closed"):
        next(writer.generate([1, 2]))


def test_where_drafts_cannot_be_verified_it_decodes_plainly(
    path: Path, store: ProfileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "exact_batch", 1)
    with opened(path, store) as writer:
        assert len(list(writer.generate([1, 2, 3], max_tokens=8))) == 8
        assert writer.method_name == "plain"


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_a_text_never_goes_on_from_another(
    tiny_path: TinyPath, store: ProfileStore, architecture: str
) -> None:
    with opened(tiny_path(architecture, n_layer=2), store) as generator:
        first, second = (random_tokens(generator.model, n) for n in (20, 30))
        expected = list(generator.generate(first, max_tokens=30))
        left = generator.generate(second, max_tokens=30)
        assert len([next(left) for _ in range(5)]) == 5
        assert list(generator.generate(first, max_tokens=30)) == expected
        with pytest.raises(EdgeConflayersError, match="another text was begun before"):
            next(left)
        given_up = generator.generate(second, max_tokens=30)
        next(given_up)
        given_up.close()
        assert list(generator.generate(first, max_tokens=30)) == expected


@pytest.mark.parametrize("most", [-1, 1.5, float("nan")])
def test_a_number_of_tokens_that_is_none(path: Path, store: ProfileStore, most: Any) -> None:
    with opened(path, store) as generator, pytest.raises(BadInput, match="max_tokens"):
        next(generator.generate([1, 2], max_tokens=most))


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_text_that_goes_on_from_a_kept_prefix_is_a_fresh_ones(
    tiny_path: TinyPath, store: ProfileStore, architecture: str
) -> None:
    path = tiny_path(architecture, n_layer=4, layer_gain=0.2)
    sampling = SamplerSettings(temperature=0.7, seed=11)
    kept = accepted = 0
    with opened(path, store, "lookup", n_ctx=4096) as generator:
        prompt = random_tokens(generator.model, 300) * 2
        for turn in range(6):
            stats = Stats()
            settings = sampling if turn % 2 else None
            text = list(generator.generate(prompt, settings, max_tokens=40, stats=stats))
            kept += stats.cached_tokens
            accepted += stats.accepted
            with opened(path, store, "lookup", n_ctx=4096) as fresh:
                assert list(fresh.generate(prompt, settings, max_tokens=40)) == text
            prompt = [*prompt, *text, *random_tokens(generator.model, 60, seed=turn)]
    assert kept > 512 and accepted > 0


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_conversation_may_keep_all_and_drafts_change_nothing(
    tiny_path: TinyPath, store: ProfileStore, architecture: str
) -> None:
    path = tiny_path(architecture, n_layer=4, layer_gain=0.2)
    settings = SamplerSettings(temperature=0.7, seed=11)
    texts: dict[str, list[list[int]]] = {"plain": [], "lookup": []}
    accepted = 0
    for method, written in texts.items():
        with opened(path, store, method, n_ctx=4096, exact_reuse=False) as generator:
            prompt = random_tokens(generator.model, 50) * 2
            for turn in range(5):
                stats = Stats()
                text = list(generator.generate(prompt, settings, max_tokens=40, stats=stats))
                written.append(text)
                accepted += stats.accepted
                if turn:  # the answer before, less its last token, was not read again
                    assert stats.cached_tokens == len(prompt) - 61
                prompt = [*prompt, *text, *random_tokens(generator.model, 60, seed=turn)]
    assert texts["plain"] == texts["lookup"] and accepted > 0


def test_the_last_prompt_again_is_read_only_where_it_must_be(
    path: Path, store: ProfileStore
) -> None:
    with opened(path, store, "plain", n_ctx=2048) as generator:
        prompt = random_tokens(generator.model, 1024)
        assert generator.held(prompt) == 0
        first = list(generator.generate(prompt, max_tokens=5))
        stats = Stats()
        assert list(generator.generate(prompt, max_tokens=5, stats=stats)) == first
        assert stats.cached_tokens == 512 == generator.held(prompt)
        assert stats.prompt_tokens == 1024
        assert generator.held([*prompt, 3]) == 1024
