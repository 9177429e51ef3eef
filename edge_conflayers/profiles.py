"""What was learned for (model file, machine, settings), kept on disk between runs.

One JSON file per key. A file is replaced whole or not at all, so a reader never sees half a
profile, whoever else writes or dies meanwhile. Losing a profile only costs a new search:
whatever is wrong with the store is logged once, and the program goes on without it.
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
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from edge_conflayers.errors import BadInput
from edge_conflayers.folders import DATA_VARIABLE, data_folder

VERSION = 1
_SAMPLE_BYTES = 1 << 20
_ABANDONED_SECONDS = 3600.0

_log = logging.getLogger(__name__)


def default_root() -> Path:
    """The folder of profiles: in EDGE_CONFLAYERS_DATA if set, else in the user's data folder."""
    try:
        return data_folder() / "profiles"
    except BadInput:
        return Path(os.devnull) / "profiles"  # cannot be made, and saving says what to do


def model_fingerprint(path: Path) -> str:
    """SHA-256 over the file's size, first and last MiB: cheap however large the model is.

    Raises BadInput when the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256(str(size).encode())
            for start in (0, max(0, size - _SAMPLE_BYTES)):
                file.seek(start)
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError as error:
        raise BadInput(
            f"cannot read the model {path} ({error.strerror}): give the path of a GGUF file"
        ) from error
    return digest.hexdigest()


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


@dataclass(frozen=True)
class ProfileKey:
    """What a profile is valid for; two runs share a profile when all fields are equal."""

    model: str
    cpu: str
    cores: int
    platform: str
    threads: int
    gpu_layers: int
    settings: str

    @classmethod
    def for_model(
        cls, path: str | Path, settings: Mapping[str, Any], threads: int, gpu_layers: int
    ) -> ProfileKey:
        """The key of the model file at `path` on this machine.

        settings: JSON-able; its order does not matter. threads: CPU threads used.
        gpu_layers: layers offloaded to an accelerator. Raises BadInput for an unreadable file.
        """
        canonical = json.dumps(dict(settings), sort_keys=True, separators=(",", ":"))
        return cls(
            model=model_fingerprint(Path(path)),
            cpu=cpu_name(),
            cores=os.cpu_count() or 0,
            platform=f"{platform.system()}-{platform.machine()}",
            threads=threads,
            gpu_layers=gpu_layers,
            settings=hashlib.sha256(canonical.encode()).hexdigest(),
        )

    @property
    def file_name(self) -> str:
        """The name of the profile's file within the store."""
        canonical = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32] + ".json"


class ProfileStore:
    """Profiles in the folder `root` (`default_root` if None), created on the first save."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else root
        self._warned: set[str] = set()

    def path(self, key: ProfileKey) -> Path:
        """Where the profile of `key` is or would be."""
        return self.root / key.file_name

    def load(self, key: ProfileKey) -> dict[str, Any] | None:
        """The state last saved for `key`, or None.

        A file that is damaged or of another version is renamed to *.corrupt and logged once.
        """
        path = self.path(key)
        try:
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._warn_once(f"cannot read profiles in {self.root} ({error.strerror})")
            return None
        try:
            return _unpack(raw, key)
        except (ValueError, RecursionError) as error:
            self.put_aside(key, str(error))
            return None

    def put_aside(self, key: ProfileKey, why: str) -> None:
        """Rename the profile of `key` to *.corrupt, because its state cannot be used; logged
        once."""
        self._put_aside(self.path(key), why)

    def _put_aside(self, path: Path, why: str) -> None:
        with contextlib.suppress(OSError):
            os.replace(path, path.with_suffix(".corrupt"))
        self._warn_once(f"the profile {path} cannot be used ({why}); searching anew")

    def save(self, key: ProfileKey, state: Mapping[str, Any]) -> None:
        """Replace the profile of `key` by `state`, whole or not at all.

        A folder that cannot be written is logged once and otherwise ignored.
        Raises TypeError or ValueError for a state that is not JSON-able.
        """
        content = {"version": VERSION, "key": asdict(key), "state": dict(state)}
        text = json.dumps(content, indent=1, allow_nan=False)
        self._save(self.path(key), text.encode())

    def load_bytes(self, name: str) -> bytes | None:
        """The content of the file ``name``; None if there is none."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._warn_once(f"cannot read profiles in {self.root} ({error.strerror})")
            return None

    def save_bytes(self, name: str, content: bytes) -> None:
        """Replaces the file ``name``, as ``save`` does."""
        self._save(self.root / name, content)

    def put_aside_bytes(self, name: str, why: str) -> None:
        """Renames the file ``name`` to *.corrupt, as ``put_aside`` does."""
        self._put_aside(self.root / name, why)

    def _save(self, path: Path, content: bytes) -> None:
        try:
            self._replace(path, content)
        except OSError as error:
            self._warn_once(
                f"cannot keep what was learned in {self.root} ({error.strerror}); "
                f"set {DATA_VARIABLE} to a folder that can be written"
            )

    def _replace(self, path: Path, content: bytes) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._sweep(path)
        handle, name = tempfile.mkstemp(prefix=path.stem + ".", suffix=".tmp", dir=self.root)
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
        """Remove what killed writers left, but nothing a living one may still be writing."""
        for leftover in self.root.glob(path.stem + ".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                    leftover.unlink()

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            _log.warning("%s", message)


def _unpack(raw: bytes, key: ProfileKey) -> dict[str, Any]:
    content = json.loads(raw)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    if content.get("version") != VERSION:
        raise ValueError(f"version {content.get('version')!r}, not {VERSION}")
    if content.get("key") != asdict(key):
        raise ValueError("it was saved for another model, machine or setting")
    state = content.get("state")
    if not isinstance(state, dict):
        raise ValueError("it holds no state")
    return state
