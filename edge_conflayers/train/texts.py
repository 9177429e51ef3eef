"""Texts to train on, as tokens, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]

_POOL = 256  # texts among which those of one length are put together; not tuned
_HELD_OUT = 16  # one text of so many tests the model; not tuned


@dataclass(frozen=True)
class TrainingText:
    """A text to train on.

    Attributes:
        tokens: of all of it.
        begin: index of the first token that is to be predicted, at least 1; those before it are
            context.
    """

    tokens: list[int]
    begin: int = 1


@dataclass(frozen=True)
class Batch:
    """Texts of about one length.

    Attributes:
        tokens: int64 [texts, length], padded with zeros at the end.
        text, position: int64 [n], where a token is to be predicted from.
        target: int64 [n], that token.
    """

    tokens: Tokens
    text: Tokens
    position: Tokens
    target: Tokens


def make_batch(texts: Sequence[TrainingText]) -> Batch:
    """One batch of some texts."""
    tokens = np.zeros((len(texts), max(len(each.tokens) for each in texts)), dtype=np.int64)
    places = []
    for i, each in enumerate(texts):
        tokens[i, : len(each.tokens)] = each.tokens
        places += [(i, at - 1, each.tokens[at]) for at in range(each.begin, len(each.tokens))]
    text, position, target = np.array(places, dtype=np.int64).reshape(-1, 3).T
    return Batch(tokens, text, position, target)


def one_pass(
    texts: Sequence[TrainingText], size: int, random: np.random.Generator
) -> Iterator[Batch]:
    """Batches of all texts once, in random order.

    Args:
        size: most tokens of a batch, padding included; a longer text is a batch of its own.
    """
    order = [texts[i] for i in random.permutation(len(texts))]
    for begin in range(0, len(order), _POOL):
        batches = by_length(order[begin : begin + _POOL], size)
        for i in random.permutation(len(batches)):
            yield make_batch(batches[i])


def by_length(texts: Sequence[TrainingText], size: int) -> list[list[TrainingText]]:
    """Texts in groups of about one length.

    Args:
        size: most tokens of a group, padding included; a longer text is a group of its own.
    """
    groups: list[list[TrainingText]] = []
    for text in sorted(texts, key=lambda each: len(each.tokens)):
        if not groups or (len(groups[-1]) + 1) * len(text.tokens) > size:
            groups.append([])
        groups[-1].append(text)
    return groups


def split(
    texts: Sequence[TrainingText], most_tokens: int
) -> tuple[list[TrainingText], list[TrainingText]]:
    """Texts to train on, and others to test with: one of every sixteen, up to some tokens.

    Args:
        texts: at least two.
        most_tokens: to test with, about.
    """
    every = min(_HELD_OUT, len(texts))
    trained: list[TrainingText] = []
    tests: list[TrainingText] = []
    left = most_tokens
    for i, text in enumerate(texts):
        if i % every == every - 1 and left > 0:
            tests.append(text)
            left -= len(text.tokens)
        else:
            trained.append(text)
    return trained, tests
