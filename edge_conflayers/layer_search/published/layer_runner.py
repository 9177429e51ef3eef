"""Runs hidden states through single layers of a model, beside a session's text.

CLaSp and KnapSpec follow their paths with it, DEL draws its shadow tokens.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.session import LayerMask, Session, TextSession
from edge_conflayers.engine.session.branches import branches
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.published.similar_paths import Kind, States

_MOST_BRANCHES = 128  # llama.cpp has 255 sequences besides the text's; not tuned


class NoRoom(Exception):
    """The KV cache has no room for the paths."""


class LayerRunner:
    """Runs the last tokens of a session's text layer by layer, after the text before them.

    Args:
        session: its text stays as it is.
        n_tokens: how many of the last tokens; fewer than the text has.
    """

    def __init__(self, session: TextSession, n_tokens: int) -> None:
        if not isinstance(session, Session):
            raise BadInput("this model shows no hidden states; use another method")
        self._session = session
        self._begin = len(session) - n_tokens
        self._tokens = session.tokens[self._begin :]
        self._layers = frozenset(range(session.model.n_layer))
        self._everything = LayerMask(self._layers, self._layers)

    def embeddings(self) -> States:
        """What enters the first layer: float32 [tokens, n_embd].

        Raises:
            NoRoom: the cache has no room.
            BadInput: the model's architecture cannot be served.
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
        return self._or_no_room(found)[: n_layer + 1, 0]

    def run(self, states: States, layer: int, kind: Kind) -> States:
        """Runs the states of several paths through a layer or one of its sub-layers.

        Args:
            states: float32 [paths, tokens, n_embd].
            layer: 0-based.
            kind: the whole layer, or one of its sub-layers.

        Returns:
            float32 [paths, tokens, n_embd].

        Raises:
            NoRoom: the cache has no room for so many paths.
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
                self._or_no_room(
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
        """The most likely token by the model's own norm and head, and its probability, for each
        token of each path.

        Args:
            states: float32 [paths, tokens, n_embd].

        Raises:
            as ``run`` does.
        """
        found: list[tuple[int, float]] = []
        for part in self._split(states, self._session.max_outputs):
            self._or_no_room(
                branches(
                    self._session,
                    self._tokens,
                    self._begin,
                    mask=self._everything,
                    states=part,
                    outputs="all",
                )
            )
            found += [self._session.best(i) for i in range(part.shape[0] * part.shape[1])]
        n = len(self._tokens)
        return [found[i : i + n] for i in range(0, len(found), n)]

    def _split(self, states: States, most_tokens: int) -> list[States]:
        tokens = min(most_tokens, self._session.batch)
        size = min(_MOST_BRANCHES, max(1, tokens // len(self._tokens)))
        return [states[i : i + size] for i in range(0, len(states), size)]

    def _or_no_room(self, found: npt.NDArray[np.float32] | None) -> States:
        if found is None:
            raise NoRoom
        return found
