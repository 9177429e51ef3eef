"""How good a model and its early exits are on held-out texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from edge_conflayers.train.exit_loss import Places, chunks, divergence, last_states
from edge_conflayers.train.network import Network, Tensor


@dataclass(frozen=True)
class Quality:
    """Measured on held-out texts, without layer dropout.

    Attributes:
        losses: cross-entropy of the texts' tokens in nats, by exit; the last is the full model's.
        trained: the losses that training lowers, by exit: these, or divergences from a teacher.
        agreement: by early exit, the share of positions whose likeliest token is the full model's:
            the chance that a greedy draft's first token is accepted.
        tokens: that were predicted.
    """

    losses: Mapping[int, float]
    trained: Mapping[int, float]
    agreement: Mapping[int, float]
    tokens: int

    @property
    def full_loss(self) -> float:
        return self.losses[max(self.losses)]

    def objective(self, weights: Mapping[int, float]) -> float:
        """The losses that training lowers, by their weights."""
        return sum(weight * self.trained[exit] for exit, weight in weights.items())


@dataclass(frozen=True)
class HeldOut:
    """Texts to measure with.

    Attributes:
        batches: of them.
        teacher: whose distribution is to be learned, and its states after all layers for each
            batch; None where the texts' tokens are.
    """

    batches: Sequence[Places]
    teacher: tuple[Network, Sequence[Tensor]] | None = None

    @classmethod
    def of(cls, batches: Sequence[Places], teacher: Network | None) -> HeldOut:
        if teacher is None:
            return cls(batches)
        return cls(batches, (teacher, [last_states(teacher, each) for each in batches]))

    def target(self, batch: int, part: slice) -> Tensor | None:
        """Logarithms of the teacher's probabilities at some positions: float32 [n, n_vocab]."""
        if self.teacher is None:
            return None
        network, states = self.teacher
        return functional.log_softmax(network.logits(states[batch][part]), dim=-1)


def measure(network: Network, held_out: HeldOut, exits: Sequence[int]) -> Quality:
    """Runs the full model over held-out texts.

    Args:
        exits: early ones, ascending.
    """
    everything = [*exits, network.architecture.n_layer]
    losses, trained, matched = np.zeros((3, len(everything)))
    n = 0
    with torch.no_grad():
        for batch, places in enumerate(held_out.batches):
            streams = [each[places.at] for each in network.states(places.tokens, everything)]
            n += len(places)
            for part in chunks(network, len(places)):
                full = network.logits(streams[-1][part]).argmax(dim=-1)
                target, tokens = held_out.target(batch, part), places.target[part]
                for i, stream in enumerate(streams):
                    logits = network.logits(stream[part])
                    losses[i] += float(divergence(logits, None, tokens))
                    trained[i] += float(divergence(logits, target, tokens))
                    matched[i] += int((logits.argmax(dim=-1) == full).sum())
    n = max(1, n)
    return Quality(
        dict(zip(everything, (losses / n).tolist(), strict=True)),
        dict(zip(everything, (trained / n).tolist(), strict=True)),
        dict(zip(exits, (matched / n).tolist(), strict=False)),
        n,
    )
