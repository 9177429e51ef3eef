"""Remembers between runs how many tokens a step may take with exact logits, which each session
would have to try otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, MutableMapping

import msgspec

from edge_conflayers.engine.build import library_build
from edge_conflayers.engine.session import exact_batch
from edge_conflayers.engine.session.exact_batch import Setting
from edge_conflayers.profiles import ProfileStore, cpu_name

_NAME = "machine.exact-batches"
_MOST = 256  # answers that are kept; the newest
_Answers = dict[str, int]


class RememberedBatches(MutableMapping[Setting, int]):
    """Answers of this process and, in a store, of earlier ones on this machine and with this build
    of the library.

    Args:
        store: its file is read when an answer is first asked for.
        known: answers of this process so far.
    """

    def __init__(self, store: ProfileStore, known: MutableMapping[Setting, int]) -> None:
        self._store = store
        self._known = dict(known)
        self._saved: _Answers | None = None

    def __getitem__(self, setting: Setting) -> int:
        if setting in self._known:
            return self._known[setting]
        if self._saved is None:
            self._saved = self._load()
        return self._saved[_digest(setting)]

    def __setitem__(self, setting: Setting, answer: int) -> None:
        self._known[setting] = answer
        saved = {**self._load(), _digest(setting): answer}
        self._saved = dict(list(saved.items())[-_MOST:])
        self._store.save_bytes(_NAME, msgspec.json.encode(self._saved))

    def __delitem__(self, setting: Setting) -> None:
        del self._known[setting]

    def __iter__(self) -> Iterator[Setting]:
        """The settings that this process has asked for."""
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def _load(self) -> _Answers:
        data = self._store.load_bytes(_NAME)
        if data is None:
            return {}
        try:
            return msgspec.json.decode(data, type=_Answers)
        except (msgspec.DecodeError, RecursionError) as error:
            self._store.put_aside(_NAME, f"what was tried here cannot be used ({error})")
            return {}


def _digest(setting: Setting) -> str:
    what = repr((cpu_name(), library_build(), *setting))
    return hashlib.blake2b(what.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def remember_in(store: ProfileStore) -> None:
    """Has sessions keep their answers in a store from now on."""
    exact_batch.remembered = RememberedBatches(store, exact_batch.remembered)
