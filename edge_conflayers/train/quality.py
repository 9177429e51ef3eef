"""How good a model and its early exits are on held-out texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from edge_conflayers.train.exit_loss import Places, chunks
from edge_conflayers.train.network import Network


@dataclass(frozen=True)
class Quality:
    """Measured on held-out texts, without layer dropout.

    Attributes:
        losses: cross-entropy of the texts' tokens in nats, by exit; the last is the full model's.
        agreement: by early exit, the share of positions whose likeliest token is the full model's:
            the chance that a greedy draft's first token is accepted.
        tokens: that were predicted.
    """

    losses: Mapping[int, float]
    agreement: Mapping[int, float]
    tokens: int

    @property
    def full_loss(self) -> float:
        return self.losses[max(self.losses)]

    def objective(self, weights: Mapping[int, float]) -> float:
        """The exits' losses by their weights."""
        return sum(weight * self.losses[exit] for exit, weight in weights.items())


def measure(network: Network, batches: Sequence[Places], exits: Sequence[int]) -> Quality:
    """Runs the full model over held-out texts.

    Args:
        exits: early ones, ascending.
    """
    everything = [*exits, network.architecture.n_layer]
    losses, matched, n = np.zeros(len(everything)), np.zeros(len(everything)), 0
    with torch.no_grad():
        for places in batches:
            streams = [each[places.at] for each in network.states(places.tokens, everything)]
            n += len(places)
            for part in chunks(network, len(places)):
                full = network.logits(streams[-1][part]).argmax(dim=-1)
                for i, stream in enumerate(streams):
                    logits = network.logits(stream[part])
                    tokens = places.target[part]
                    losses[i] += float(functional.cross_entropy(logits, tokens, reduction="sum"))
                    matched[i] += int((logits.argmax(dim=-1) == full).sum())
    n = max(1, n)
    return Quality(
        dict(zip(everything, (losses / n).tolist(), strict=True)),
        dict(zip(exits, (matched / n).tolist(), strict=False)),
        n,
    )
