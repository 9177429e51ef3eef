"""What was learned about a model on this machine, kept between uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.methods import Method
from edge_conflayers.next_state.head import NextStateHead
from edge_conflayers.profiles import ProfileKey, ProfileStore, model_fingerprint


class Learned:
    """What was learned about a model, for a number of threads.

    Nothing here fails: what cannot be read or written is logged in one line and done without.

    Args:
        model: stays open as long as this.
        threads: CPU threads that the model's steps take.
        store: where it is kept; None for the user's own.
    """

    def __init__(self, model: Model, threads: int, store: ProfileStore | None = None) -> None:
        self._model = model
        self._threads = threads
        self._store = store or ProfileStore()

    def load(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The state that was saved under these settings (``Method.settings``), if there is one."""
        return self._store.load(self._key(settings))

    def save(self, settings: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Keeps a state."""
        self._store.save(self._key(settings), state)

    def put_aside(self, settings: Mapping[str, Any], why: str) -> None:
        """Renames a state that cannot be used."""
        self._store.put_aside(self._key(settings), why)

    def resume(self, method: Method) -> None:
        """Lets a method go on from what it learned before, if it learned anything."""
        if method.state() is None:
            return
        state = self.load(method.settings())
        if state is None:
            return
        try:
            method.resume(state)
        except BadInput as error:
            self.put_aside(method.settings(), str(error))

    def keep(self, method: Method) -> None:
        """Saves what a method has learned, if it has learned anything."""
        state = method.state()
        if state is not None:
            self.save(method.settings(), state)

    def load_head(self) -> NextStateHead | None:
        """The model's next-state head, on whatever machine it was taught; None if there is none."""
        data = self._store.load_bytes(self.head_name)
        if data is None:
            return None
        try:
            return NextStateHead.from_bytes(data, self._model.n_embd, self._model.n_vocab)
        except BadInput as error:
            self._store.put_aside_bytes(self.head_name, str(error))
            return None

    def save_head(self, head: NextStateHead) -> None:
        """Replaces the model's next-state head."""
        self._store.save_bytes(self.head_name, head.to_bytes())

    @property
    def head_name(self) -> str:
        """The name of the head's file in the store."""
        return f"{model_fingerprint(self._model.path)[:32]}.next-state"

    def _key(self, settings: Mapping[str, Any]) -> ProfileKey:
        return ProfileKey.for_model(
            self._model.path, settings, self._threads, self._model.gpu_layers
        )
