"""What was learned about (model file, machine, settings), kept on disk between runs.

One JSON file for each key, and files of bytes by name. A file is replaced whole or not at all, so
a reader never sees half a profile, whoever else writes or dies meanwhile; who replaces what it has
read holds the store's lock. Losing a profile only costs learning anew: whatever is wrong with the
store is logged once, in one line, and the program goes on without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import filelock
import msgspec

from edge_conflayers.errors import BadInput, one_line
from edge_conflayers.machine.folders import DATA_VARIABLE, data_folder
from edge_conflayers.profiles.fingerprint import model_fingerprint as model_fingerprint

VERSION = 2
_ABANDONED_SECONDS = 3600.0  # no save takes that long
_LOCK_SECONDS = 10.0  # a save takes milliseconds, so a lock held for longer is stuck

_log = logging.getLogger(__name__)


def default_root() -> Path | None:
    """The folder of profiles in the user's data folder; None if there is no such folder."""
    try:
        return data_folder() / "profiles"
    except BadInput:
        return None


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor's model name as the system gives it, or its architecture."""
    system = platform.system()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if system == "Linux":
            text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
            found = _first_processor(text)
            if found:
                return found
        elif system == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
            if done.stdout.strip():
                return done.stdout.strip()
    return platform.processor() or platform.machine() or "unknown"


def _first_processor(cpuinfo: str) -> str:
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    if fields.get("model name"):
        return fields["model name"]
    # Arm kernels give numbers instead of a name; together they identify the core.
    arm = [fields[name] for name in ("Model", "CPU implementer", "CPU part") if fields.get(name)]
    return " ".join(arm)


class ProfileKey(msgspec.Struct, frozen=True):
    """What a profile is valid for; two runs share a profile when all fields are equal.

    Attributes:
        model: fingerprint of the model file, and of what changes it.
        cpu, cores, platform: the machine.
        threads: CPU threads that steps take.
        gpu_layers: layers offloaded to an accelerator.
        kernels: the CPU kernels in use.
        library: the build of the library.
        settings: digest of the method's settings.
    """

    model: str
    cpu: str
    cores: int
    platform: str
    threads: int
    gpu_layers: int
    kernels: str
    library: str
    settings: str

    @classmethod
    def for_model(
        cls,
        path: str | Path,
        settings: Mapping[str, Any],
        *,
        threads: int,
        gpu_layers: int,
        kernels: str = "",
        library: str = "",
        changes: str = "",
    ) -> ProfileKey:
        """The key of the model file at ``path`` on this machine.

        Args:
            settings: JSON-able; their order does not matter.
            threads, gpu_layers, kernels, library: as the attributes.
            changes: as for ``model_fingerprint``.

        Raises:
            BadInput: the file cannot be read.
        """
        canonical = json.dumps(dict(settings), sort_keys=True, separators=(",", ":"))
        return cls(
            model=model_fingerprint(Path(path), changes),
            cpu=cpu_name(),
            cores=os.cpu_count() or 0,
            platform=f"{platform.system()}-{platform.machine()}",
            threads=threads,
            gpu_layers=gpu_layers,
            kernels=kernels,
            library=library,
            settings=hashlib.sha256(canonical.encode()).hexdigest(),
        )

    @property
    def file_name(self) -> str:
        """The name of the profile's file within the store."""
        canonical = json.dumps(msgspec.structs.asdict(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32] + ".json"


class _File(msgspec.Struct):
    """A profile as it is on disk."""

    version: int
    key: ProfileKey
    state: dict[str, Any]


class _Version(msgspec.Struct):
    version: int


class ProfileStore:
    """Profiles in a folder, which is created on the first save.

    Args:
        root: the folder; None for the user's own (``default_root``).
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()
        self._warned: set[str] = set()
        if self.root is None:
            self._warn_once(
                f"there is no home folder to keep what is learned in; set {DATA_VARIABLE} to a"
                " folder"
            )

    def path(self, key: ProfileKey) -> Path:
        """Where the profile of ``key`` is or would be."""
        return (self.root or Path()) / key.file_name

    def load(self, key: ProfileKey) -> dict[str, Any] | None:
        """The state last saved for ``key``, or None. A file that is damaged or of another version
        is put aside."""
        raw = self.load_bytes(key.file_name)
        if raw is None:
            return None
        try:
            return _unpack(raw, key)
        except (ValueError, RecursionError) as error:
            self.put_aside(key.file_name, f"what was learned cannot be used ({one_line(error)})")
            return None

    def save(self, key: ProfileKey, state: Mapping[str, Any]) -> None:
        """Replaces the profile of ``key`` by ``state``, whatever is there.

        Raises:
            TypeError, ValueError: the state is not JSON-able.
        """
        self.update(key, lambda stored: dict(state))

    def update(
        self, key: ProfileKey, change: Callable[[dict[str, Any] | None], dict[str, Any]]
    ) -> dict[str, Any]:
        """Replaces the profile of ``key`` by what ``change`` makes of it, and returns that.

        Nobody else saves in between. A folder that cannot be written is logged once and otherwise
        ignored.

        Args:
            change: called with the state as ``load`` returns it.

        Raises:
            TypeError, ValueError: the new state is not JSON-able.
        """
        with self._locked():
            state = change(self.load(key))
            json.dumps(state, allow_nan=False)  # msgspec writes null for what is no number
            self._save(key.file_name, msgspec.json.encode(_File(VERSION, key, state)))
            return state

    def load_bytes(self, name: str) -> bytes | None:
        """The content of the file ``name``; None if there is none."""
        if self.root is None:
            return None
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._warn_once(f"cannot read profiles in {self.root} ({error.strerror})")
            return None

    def save_bytes(self, name: str, content: bytes) -> None:
        """Replaces the file ``name``; errors are treated as by ``update``."""
        with self._locked():
            self._save(name, content)

    def remove(self, name: str) -> None:
        """Removes the file ``name``, if there is one."""
        if self.root is None:
            return
        with self._locked():
            try:
                (self.root / name).unlink(missing_ok=True)
            except NotADirectoryError:
                pass
            except OSError as error:
                self._warn_once(f"cannot remove {self.root / name} ({error.strerror})")

    def profiles_of(self, model: str) -> list[str]:
        """Names of the profiles of a model file, by its fingerprint, whatever else they are for."""
        names = []
        for path in self.root.glob("*.json") if self.root is not None else ():
            with contextlib.suppress(OSError, ValueError, RecursionError):
                if msgspec.json.decode(path.read_bytes(), type=_File).key.model == model:
                    names.append(path.name)
        return names

    def put_aside(self, name: str, why: str) -> None:
        """Renames the file ``name`` to *.corrupt, since it cannot be used; logged once."""
        if self.root is None:
            return
        path = self.root / name
        aside = path.with_suffix(".corrupt")
        with contextlib.suppress(OSError):
            os.replace(path, aside)
        self._warn_once(f"{one_line(why)}; it is put aside as {aside} and learned anew")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the lock of the store; without one where there can be none (``_save`` says so if
        the folder cannot be written either)."""
        if self.root is None:
            yield
            return
        lock = filelock.FileLock(self.root / ".lock", timeout=_LOCK_SECONDS)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:
            self._warn_once(f"another program holds {self.root / '.lock'}; saving without it")
        except (OSError, NotImplementedError):  # not writable, or a file system without locks
            pass
        try:
            yield
        finally:
            lock.release()

    def _save(self, name: str, content: bytes) -> None:
        if self.root is None:
            return
        try:
            self._replace(self.root / name, content)
        except OSError as error:
            self._warn_once(
                f"cannot keep what was learned in {self.root} ({error.strerror}); "
                f"set {DATA_VARIABLE} to a folder that can be written"
            )

    def _replace(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._sweep(path)
        handle, name = tempfile.mkstemp(prefix=path.stem + ".", suffix=".tmp", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

    def _sweep(self, path: Path) -> None:
        """Removes what killed writers left, but nothing that a living one may still be writing."""
        for leftover in path.parent.glob(path.stem + ".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                    leftover.unlink()

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            _log.warning("%s", message)


def _unpack(raw: bytes, key: ProfileKey) -> dict[str, Any]:
    version = msgspec.json.decode(raw, type=_Version).version
    if version != VERSION:
        raise ValueError(f"version {version}, not {VERSION}")
    file = msgspec.json.decode(raw, type=_File)
    if file.key != key:
        raise ValueError("it was saved for another model, machine or setting")
    return file.state
