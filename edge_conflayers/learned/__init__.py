"""What was learned about a model on this machine, kept between uses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from edge_conflayers.bridges.bridge import Bridges
from edge_conflayers.engine.build import library_build
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.errors import BadInput
from edge_conflayers.exits.taught_exits import TaughtExits
from edge_conflayers.layer_search.skip_sets import SKIP_SETS_PROFILE, SkipSets, merge_skip_sets
from edge_conflayers.learned.exact_batches import remember_in
from edge_conflayers.methods import Method
from edge_conflayers.next_state.head import NextStateHead
from edge_conflayers.profiles import ProfileKey, ProfileStore, model_fingerprint

_State = dict[str, Any]
_Taught = TypeVar("_Taught")


class Learned:
    """What was learned about a model, for a number of threads, its kernels and this build
    of the library. A next-state head and taught exits are the model's, wherever they were taught.

    Two programs may learn at the same time: each adds what it has changed to what is on disk.
    Nothing here fails: what cannot be read or written is logged in one line and done without.

    Args:
        model: stays open as long as this.
        threads: CPU threads that the model's steps take.
        store: where it is kept; None for the user's own.
    """

    def __init__(
        self, model: LanguageModel, threads: int, store: ProfileStore | None = None
    ) -> None:
        self._model = model
        self._threads = threads
        self._store = store or ProfileStore()
        remember_in(self._store)
        # By file: what this process had and what was on disk when they were last brought together.
        self._synced: dict[str, tuple[_State | None, _State | None]] = {}
        self._keys: dict[str, ProfileKey] = {}  # so that the file is read once, and may go

    def resume(self, method: Method) -> None:
        """Lets a method go on from what was learned before, if it learns anything."""
        state = method.state()
        if state is None:
            return
        key = self.key(method.settings())
        stored = self._store.load(key)
        if stored is not None:
            try:
                method.resume(stored)
            except BadInput as error:
                self._store.put_aside(key.file_name, str(error))
                stored = None
        # What a method resumed from is its state: states are restored exactly.
        self._synced[key.file_name] = (stored or state, stored)

    def keep(self, method: Method) -> None:
        """Saves what a method has learned. What `tune` has found meanwhile stays."""
        state = method.state()
        if state is not None:
            self._keep(method.settings(), state, tuned=False)

    def skip_sets(self) -> SkipSets:
        """The skip sets found so far, and what steps cost; empty if there are none that can be
        used."""
        key = self.key(SKIP_SETS_PROFILE)
        stored = self._store.load(key)
        sets = SkipSets(self._model.n_layer)
        if stored is not None:
            try:
                sets = SkipSets.from_json(stored, self._model.n_layer)
            except BadInput as error:
                self._store.put_aside(key.file_name, str(error))
                stored = None
        self._synced[key.file_name] = (stored or sets.to_json(), stored)
        return sets

    def keep_skip_sets(self, sets: SkipSets) -> None:
        """Saves what `tune` has found, in place of what was found for the same kinds."""
        self._keep(SKIP_SETS_PROFILE, sets.to_json(), tuned=True)

    def load_head(self) -> NextStateHead | None:
        """The model's next-state head; None if there is none that can be used."""
        model = self._model
        return self._load(
            self.head_name,
            lambda data: NextStateHead.from_bytes(data, model.n_embd, model.n_vocab),
        )

    def save_head(self, head: NextStateHead) -> None:
        """Replaces the model's next-state head."""
        self._store.save_bytes(self.head_name, head.to_bytes())

    def load_exits(self) -> TaughtExits | None:
        """The model's taught exits; None if there are none that can be used."""
        model = self._model
        return self._load(
            self.exits_name,
            lambda data: TaughtExits.from_bytes(data, model.n_layer, model.n_embd, model.n_vocab),
        )

    def save_exits(self, exits: TaughtExits) -> None:
        """Replaces the model's taught exits."""
        self._store.save_bytes(self.exits_name, exits.to_bytes())

    def load_bridges(self) -> Bridges | None:
        """The model's bridges over dropped layers; None if there are none that can be used."""
        model = self._model
        return self._load(
            self.bridges_name,
            lambda data: Bridges.from_bytes(data, model.n_embd, model.n_layer, model.n_vocab),
        )

    def save_bridges(self, bridges: Bridges) -> None:
        """Replaces the model's bridges."""
        self._store.save_bytes(self.bridges_name, bridges.to_bytes())

    def forget(self) -> None:
        """Removes skip sets, costs and what methods have learned, for any number of threads and
        any kernels, the next-state head, the taught exits and the bridges."""
        for name in self._store.profiles_of(self.key(SKIP_SETS_PROFILE).model):
            self._store.remove(name)
        self._store.remove(self.head_name)
        self._store.remove(self.exits_name)
        self._store.remove(self.bridges_name)

    @property
    def store(self) -> ProfileStore:
        """Where it is kept."""
        return self._store

    @property
    def head_name(self) -> str:
        """The name of the head's file in the store."""
        return f"{self._model_name}.next-state"

    @property
    def exits_name(self) -> str:
        """The name of the exits' file in the store."""
        return f"{self._model_name}.exits"

    @property
    def bridges_name(self) -> str:
        """The name of the bridges' file in the store."""
        return f"{self._model_name}.bridges"

    @functools.cached_property
    def _model_name(self) -> str:
        return model_fingerprint(self._model.path, self._model.changes)[:32]

    def _load(self, name: str, restore: Callable[[bytes], _Taught]) -> _Taught | None:
        """What was taught by hidden states, from a file of the store; one that cannot be used is
        put aside."""
        if not self._model.shows_states:
            return None
        data = self._store.load_bytes(name)
        if data is None:
            return None
        try:
            return restore(data)
        except BadInput as error:
            self._store.put_aside(name, str(error))
            return None

    def key(self, settings: Mapping[str, Any]) -> ProfileKey:
        """The key of what was learned under these settings (``Method.settings``)."""
        name = repr(sorted(settings.items()))
        if name not in self._keys:
            self._keys[name] = ProfileKey.for_model(
                self._model.path,
                settings,
                threads=self._threads,
                gpu_layers=self._model.gpu_layers,
                kernels=self._model.arithmetic,
                library=library_build(),
                changes=self._model.changes,
            )
        return self._keys[name]

    def _keep(self, settings: Mapping[str, Any], state: _State, *, tuned: bool) -> None:
        key = self.key(settings)
        before, stored_before = self._synced.get(key.file_name, (None, None))
        if state == before and stored_before is not None:
            return  # it has learned nothing since

        def merge(stored: _State | None) -> _State:
            if settings != SKIP_SETS_PROFILE:
                return state  # of one search, which makes sense as a whole only
            return merge_skip_sets(state, before, stored, stored_before, tuned=tuned)

        self._synced[key.file_name] = (state, self._store.update(key, merge))
