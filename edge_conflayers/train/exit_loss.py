"""LayerSkip's early-exit loss: of the model's own head after chosen layers, each exit's by its
weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from edge_conflayers.train.network import Network, Tensor
from edge_conflayers.train.texts import Batch

Targets = Literal["model", "text"]

_CHUNK_ELEMENTS = 1 << 24
"""Logits at a time: 64 MB as float32. Not tuned."""


@dataclass(frozen=True)
class Places:
    """A batch on the device that trains.

    Attributes:
        tokens: int64 [texts, length].
        at: text and position of each token that predicts another, int64 [n] each.
        target: int64 [n], the tokens that are predicted.
    """

    tokens: Tensor
    at: tuple[Tensor, Tensor]
    target: Tensor

    @classmethod
    def of(cls, batch: Batch, device: str) -> Places:
        tokens, text, position, target = (
            torch.from_numpy(each).to(device)
            for each in (batch.tokens, batch.text, batch.position, batch.target)
        )
        return cls(tokens, (text, position), target)

    def __len__(self) -> int:
        return len(self.target)


def chunks(network: Network, n: int) -> Iterator[slice]:
    """Positions whose logits fit in memory together."""
    step = max(1, _CHUNK_ELEMENTS // network.architecture.n_vocab)
    return (slice(begin, min(n, begin + step)) for begin in range(0, n, step))


def backward(
    network: Network,
    places: Places,
    weights: Mapping[int, float],
    *,
    teacher: Network | None,
    dropped: Sequence[Tensor] | None = None,
) -> float:
    """Adds the gradients of one batch's loss, and returns the loss.

    Every exit's head is run back on its own, so that few logits are in memory at once.

    Args:
        weights: of the exits' losses, by exit, ascending.
        teacher: its distribution is to be learned (Kullback-Leibler divergence from it); None for
            the text's tokens (cross-entropy, as in the paper).
        dropped: see ``Network.states``.
    """
    streams = [each[places.at] for each in network.states(places.tokens, list(weights), dropped)]
    leaves = [each.detach().requires_grad_() for each in streams]
    wanted = None if teacher is None else last_states(teacher, places)
    total = 0.0
    for part in chunks(network, len(places)):
        target = None
        if teacher is not None and wanted is not None:
            with torch.no_grad():
                target = functional.log_softmax(teacher.logits(wanted[part]), dim=-1)
        for leaf, weight in zip(leaves, weights.values(), strict=True):
            logits = network.logits(leaf[part])
            loss = divergence(logits, target, places.target[part])
            loss = loss * (weight / len(places))
            loss.backward()
            total += float(loss.detach())
    torch.autograd.backward(streams, [leaf.grad for leaf in leaves])
    return total


def last_states(network: Network, places: Places) -> Tensor:
    """The residual stream after all layers where tokens are predicted from: float32 [n, n_embd]."""
    with torch.no_grad():
        (states,) = network.states(places.tokens, [network.architecture.n_layer])
        return states[places.at]


def divergence(logits: Tensor, target: Tensor | None, tokens: Tensor) -> Tensor:
    """Summed over positions: the Kullback-Leibler divergence from a target distribution (logarithms
    of it), or the cross-entropy of the tokens where there is none."""
    if target is None:
        return functional.cross_entropy(logits, tokens, reduction="sum")
    guessed = functional.log_softmax(logits, dim=-1)
    return functional.kl_div(guessed, target, reduction="sum", log_target=True)
