"""Running hidden states through single parts of a model, beside a session's text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.states import branches
from edge_conflayers.layer_search.paths import Kind, States

_MOST_BRANCHES = 128  # of the 255 sequences that llama.cpp has besides the text's


class NoRoom(Exception):
    """The cache has no cells left for another path."""


class StateRunner:
    """The last tokens of a session's text, to be run part by part after the text before them.

    Args:
        session: its text stays as it is.
        n_tokens: how many; fewer than the text has.
    """

    def __init__(self, session: Session, n_tokens: int) -> None:
        self._session = session
        self._begin = len(session) - n_tokens
        self._tokens = session.tokens[self._begin :]
        self._layers = frozenset(range(session.model.n_layer))
        self._everything = LayerMask(self._layers, self._layers)

    def embeddings(self) -> States:
        """What enters the first layer: float32 [tokens, n_embd].

        Raises:
            NoRoom: the cache is full.
            BadInput: the architecture cannot be served.
        """
        start: States = self.streams(0)[0]
        return start

    def streams(self, n_layer: int) -> States:
        """The full model's residual stream as it enters each layer up to ``n_layer``: float32
        [n_layer + 1, tokens, n_embd].

        Raises:
            as ``embeddings`` does.
        """
        mask = LayerMask.layers(range(n_layer, len(self._layers)))
        found = branches(self._session, self._tokens, self._begin, mask=mask, stream="all")
        return self._there(found)[: n_layer + 1, 0]

    def run(self, states: States, layer: int, kind: Kind) -> States:
        """Runs each of several paths through a layer or one of its sub-layers: float32 [paths,
        tokens, n_embd].

        Raises:
            NoRoom: the cache has no room for as many paths.
        """
        only = frozenset({layer})
        mask = LayerMask(
            attention=self._layers if kind == "mlp" else self._layers - only,
            mlp=self._layers if kind == "attention" else self._layers - only,
        )
        last = layer == len(self._layers) - 1  # its stream is there for tokens with logits only
        most = self._session.max_outputs if last else self._session.batch
        return np.concatenate(
            [
                self._there(
                    branches(
                        self._session,
                        self._tokens,
                        self._begin,
                        mask=mask,
                        states=part,
                        stream=layer,
                        outputs="all" if last else "none",
                    )
                )
                for part in self._split(states, most)
            ]
        )

    def tokens(self, states: States) -> list[list[tuple[int, float]]]:
        """The token that the model's head gives each state, and its probability: for each path,
        for each of its tokens.

        Raises:
            as ``run`` does.
        """
        rows: list[tuple[int, float]] = []
        for part in self._split(states, self._session.max_outputs):
            self._there(
                branches(
                    self._session,
                    self._tokens,
                    self._begin,
                    mask=self._everything,
                    states=part,
                    outputs="all",
                )
            )
            rows += [self._session.best(i) for i in range(part.shape[0] * part.shape[1])]
        n = len(self._tokens)
        return [rows[i : i + n] for i in range(0, len(rows), n)]

    def _split(self, states: States, most_rows: int) -> list[States]:
        rows = min(most_rows, self._session.batch)
        size = min(_MOST_BRANCHES, max(1, rows // len(self._tokens)))
        return [states[i : i + size] for i in range(0, len(states), size)]

    def _there(self, found: npt.NDArray[np.float32] | None) -> States:
        if found is None:
            raise NoRoom
        return found
