"""A loop of one's own over ``Llama``, and what else code for ``llama_cpp.Llama`` reaches for."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from steps import TinyPath, random_tokens

from edge_conflayers import BadInput, Llama
from edge_conflayers.engine.native import binding_module

OPTIONS: dict[str, Any] = {"verbose": False, "fresh": True, "n_threads": 1, "seed": 5}


@pytest.fixture(scope="module")
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", n_layer=4, layer_gain=0.2)


@pytest.fixture
def llm(path: Path) -> Iterator[Llama]:
    with Llama(path, n_ctx=512, logits_all=True, method="lookup", **OPTIONS) as found:
        yield found


def test_a_loop_of_eval_and_sample_writes_what_generate_writes(llm: Llama) -> None:
    prompt = random_tokens(llm._generator.model, 40)
    expected = [token for token, _ in zip(llm.generate(prompt, temp=0.0), range(12), strict=False)]
    assert len(expected) == 12
    llm.reset()
    llm.eval(prompt)
    found = []
    for _ in expected:
        found.append(llm.sample(temp=0.0))
        llm.eval(found[-1:])
    assert found == expected
    assert list(llm.eval_tokens) == llm.input_ids.tolist() == [*prompt, *expected]
    # and what is in the cache is gone on from
    more = next(llm.generate([], reset=False, temp=0.0))
    assert more == llm.generate([*prompt, *expected], temp=0.0).__next__()


def test_scores_are_the_logits_after_each_token(llm: Llama, path: Path) -> None:
    tokens = random_tokens(llm._generator.model, 70)
    llm.eval(tokens[:50])
    llm.eval(tokens[50:])
    assert llm.scores.shape == (70, llm.n_vocab()) and len(llm.eval_logits) == 70
    with Llama(path, n_ctx=512, **OPTIONS) as last:
        last.eval(tokens)
        (row,) = last.eval_logits
        assert np.allclose(row, llm.scores[69], atol=1e-3)
        with pytest.raises(ValueError, match="logits_all=True"):
            last.scores.sum()
    logprobs = Llama.logits_to_logprobs(llm.scores)
    assert np.allclose(np.exp(logprobs).sum(axis=-1), 1, atol=1e-4)
    kept = llm.scores[:30].copy()
    llm.n_tokens = 30
    assert np.array_equal(llm.scores, kept)
    llm.eval(tokens[30:])
    assert np.allclose(llm.scores[69], row, atol=1e-3)


def test_logits_that_are_gone_are_not_made_up(llm: Llama) -> None:
    with pytest.raises(ValueError, match="eval"):
        llm.sample()
    llm.eval([5, 6, 7])
    state = llm.save_state()
    assert 0 <= llm.sample(temp=1.0) < llm.n_vocab()
    llm("a", max_tokens=3)
    for ask in (llm.sample, lambda: llm.scores, lambda: llm.eval_logits):
        with pytest.raises(ValueError, match="eval"):
            ask()
    llm.load_state(state)
    with pytest.raises(ValueError, match="eval"):
        llm.sample()
    with pytest.raises(ValueError, match="context"):
        llm.eval([5] * 600)


def test_processors_and_grammars_hold_for_a_single_draw(llm: Llama) -> None:
    llm.eval(random_tokens(llm._generator.model, 20))
    likeliest = llm.sample(temp=0.0)

    def never(tokens: Any, logits: Any) -> Any:
        assert len(tokens) == 20
        logits[likeliest] = -np.inf
        return logits

    assert llm.sample(temp=0.0, logits_processor=[never]) != likeliest
    letter = llm.sample(temp=0.0, grammar='root ::= "a"')
    assert llm.detokenize([letter]) == b"a"


def test_seeds_of_generate_are_the_models_own(llm: Llama) -> None:
    prompt = random_tokens(llm._generator.model, 20)

    def written() -> list[int]:
        return [token for token, _ in zip(llm.generate(prompt, temp=1.5), range(9), strict=False)]

    first = written()
    assert written() == first
    llm.set_seed(6)
    assert written() != first


def test_tokens_that_are_sent_are_refused(llm: Llama) -> None:
    tokens = llm.generate([5, 6, 7], temp=0.0)
    next(tokens)
    with pytest.raises(ValueError, match="takes no tokens while it writes"):
        tokens.send([8])


def test_a_pickled_one_is_made_anew(path: Path) -> None:
    with Llama(path, n_ctx=300, n_batch=8, type_k="bf16", **OPTIONS) as llm:
        llm.set_seed(17)
        copy = pickle.loads(pickle.dumps(llm))
        expected = llm("a b", max_tokens=9, temperature=1.2)["choices"]  # type: ignore[index]
    with copy:
        assert copy.n_ctx() == 300 and copy._generator.model.options.type_k == "bf16"
        assert copy("a b", max_tokens=9, temperature=1.2)["choices"] == expected


def test_the_tokenizer_is_the_models(llm: Llama) -> None:
    tokenizer = llm.tokenizer()
    assert isinstance(tokenizer, binding_module("llama_tokenizer").LlamaTokenizer)
    tokens = tokenizer.encode("hello there", special=False)
    assert tokens == llm.tokenize(b"hello there")
    assert tokenizer.decode(tokens).strip() == "hello there"
    assert llm.tokenizer_.tokenize(b"hello", False, False) == llm.tokenize(b"hello", add_bos=False)
    low_level = binding_module("llama_cpp")
    vocab = low_level.llama_model_get_vocab(llm.model)  # as outlines asks
    assert low_level.llama_vocab_n_tokens(vocab) == llm.n_vocab() == llm._model.n_vocab()
    assert llm._model.token_get_text(llm.token_eos())


def test_what_is_not_there_says_why(llm: Llama) -> None:
    for name in ("_ctx", "ctx", "_batch", "draft_model"):
        assert not hasattr(llm, name)
        with pytest.raises(AttributeError, match=f"'{name}' here: "):
            getattr(llm, name)
    with pytest.raises(AttributeError, match=r"Llama has no 'nonsense'$"):
        llm.nonsense  # noqa: B018
    assert llm.context_params.n_ctx == 512 and llm.model_params.n_gpu_layers == 0
    assert Llama.longest_token_prefix([1, 2, 3], [1, 2, 4]) == 2


def test_echo_and_logprobs_of_a_stream_begin_after_the_prompt(llm: Llama) -> None:
    asked: dict[str, Any] = {"max_tokens": 5, "temperature": 0.0, "logprobs": 2}
    chunks = [each["choices"][0] for each in llm("hello", stream=True, echo=True, **asked)]  # type: ignore[index]
    offsets = [each["logprobs"]["text_offset"][0] for each in chunks if each["logprobs"]]
    whole: Any = llm("hello", **asked)
    assert offsets == whole["choices"][0]["logprobs"]["text_offset"] and offsets[0] == 5
    echoed: Any = llm("hello", echo=True, **asked)
    table = echoed["choices"][0]["logprobs"]
    assert table["token_logprobs"][0] is None and table["top_logprobs"][0] is None
    assert table["token_logprobs"][-5:] == whole["choices"][0]["logprobs"]["token_logprobs"]
    assert "".join(table["tokens"]).endswith(whole["choices"][0]["text"])


def test_an_unknown_sampling_argument_is_refused(llm: Llama) -> None:
    llm.eval([5])
    with pytest.raises(TypeError):
        llm.sample(temperature=0.0, nonsense=1)
    with pytest.raises(BadInput):
        llm.sample(top_p=7.0)
