"""Prompts as llama-cpp-python's methods take them."""

from __future__ import annotations

from collections.abc import Sequence

from edge_conflayers.engine.native import llama
from edge_conflayers.engine.vocabulary import Vocabulary
from edge_conflayers.llama.errors import BadValue


def prompt_tokens(model: Vocabulary, prompt: str | Sequence[int]) -> list[int]:
    """Tokens of a prompt: as they are, or of a text in which names of special tokens stand for
    these, with the tokens that the model wants at a text's begin and end.

    Raises:
        BadValue: there are none.
    """
    if not isinstance(prompt, str):
        tokens = list(prompt)
    else:
        text = model.tokenize(prompt, add_special=False, parse_special=True) if prompt else []
        begin, end = _wanted(model)
        tokens = [*begin, *text, *end]
        if not tokens:  # nothing to begin with
            bos = llama.llama_vocab_bos(model.vocab)
            tokens = [bos] if bos >= 0 else []
    if not tokens:
        raise BadValue("the prompt is empty; give at least one token")
    return tokens


def infill_tokens(
    model: Vocabulary, prefix: str, suffix: str, *, suffix_first: bool = False
) -> list[int]:
    """Tokens that ask for what goes between two texts.

    Args:
        suffix_first: whether the suffix comes first, as some models prefer it.

    Raises:
        BadValue: the model has no tokens for that.
    """
    vocab = model.vocab
    pre, suf, middle = (
        llama.llama_vocab_fim_pre(vocab),
        llama.llama_vocab_fim_suf(vocab),
        llama.llama_vocab_fim_mid(vocab),
    )
    if min(pre, suf, middle) < 0:
        raise BadValue(
            "a suffix needs tokens for filling in the middle, which this model does not have; leave"
            " it out, or use a model that has"
        )
    before = [pre, *model.tokenize(prefix, add_special=False)]
    after = [suf, *model.tokenize(suffix, add_special=False)]
    begin, _ = _wanted(model)
    return [*begin, *(after + before if suffix_first else before + after), middle]


def _wanted(model: Vocabulary) -> tuple[list[int], list[int]]:
    """The tokens that the model wants at a text's begin and end."""
    bos, eos = llama.llama_vocab_bos(model.vocab), llama.llama_vocab_eos(model.vocab)
    adds_bos = bos >= 0 and llama.llama_vocab_get_add_bos(model.vocab)
    adds_eos = eos >= 0 and llama.llama_vocab_get_add_eos(model.vocab)
    return [bos] if adds_bos else [], [eos] if adds_eos else []
