"""The unfinished file of a pull: what of it can be relied on after an interruption, and how it gets
its final name.

The bytes are in ``NAME.part``. ``NAME.part.json`` says how many of them are safe, with their
SHA-256, and which file they belong to, so that a later pull goes on there, by whatever route. The
final name is given only to a file that has the size and the SHA-256 that were wanted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_conflayers.hub.progress import Reporter

_CHUNK = 1 << 20
# Bytes after which a download is noted as safe: what a killed pull has to fetch again. Not tuned.
_CHECKPOINT = 32 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file that is wanted.

    Attributes:
        path: where it goes in the end.
        label: what people call it.
        size: in bytes, if known beforehand.
        sha256: in lower-case hexadecimal, if known beforehand.
    """

    path: Path
    label: str
    size: int | None = None
    sha256: str | None = None


class WrongFile(Exception):
    """What was downloaded is not the file that was wanted."""


class Partial:
    """An unfinished file. Use it in a ``with`` statement.

    Args:
        file: what it is to become.

    Attributes:
        identity: what tells the file's content from another's: its SHA-256, or what a server says
            of it. Only bytes with the same identity are gone on with.
        length: bytes that are there.
        parts: how many wheels of the package index are in it.
    """

    def __init__(self, file: RemoteFile) -> None:
        self._wanted = file
        self.file = file  # with what the server says of it besides
        self.path = file.path.with_name(f"{file.path.name}.part")
        self._state_path = file.path.with_name(f"{file.path.name}.part.json")
        self._new_state_path = file.path.with_name(f"{file.path.name}.part.json.new")
        self.work_folder = file.path.with_name(f".{file.path.name}.tmp")
        self.identity = file.sha256
        self.source = ""
        self.parts = 0
        self.length = 0
        self._hash = hashlib.sha256()
        self._safe = 0
        self._out: FileIO | None = None

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the file; after a failure without what is not safe, which takes room."""
        self.close()
        if error is not None and self.length > self._safe:
            self._new_state_path.unlink(missing_ok=True)
            if self._safe:
                os.truncate(self.path, self._safe)
            else:
                self.path.unlink(missing_ok=True)

    @property
    def complete(self) -> bool:
        """Whether all bytes are there, as far as the size is known."""
        return self.length == self.file.size

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes that are there."""
        return self._hash.hexdigest()

    def resume(self, report: Reporter) -> None:
        """Takes up what an earlier pull of the same file left; else starts with nothing.

        Where the identity is not known yet, it is then that of what was left.
        """
        self._start()
        try:
            state = json.loads(self._state_path.read_text(encoding="utf-8"))
            identity = str(state["identity"])
            if self.identity not in (None, identity):
                return
            hashed = sha256_of(self.path, report, state["length"])
            if hashed.hexdigest() != state["digest"]:
                return
            length, parts, source = int(state["length"]), int(state["parts"]), str(state["source"])
        except (OSError, ValueError, TypeError, KeyError):
            return
        self._hash, self.length, self._safe = hashed, length, length
        self.identity, self.parts, self.source = identity, parts, source

    def expect(self, size: int | None, sha256: str | None) -> None:
        """Takes over what a server says of the file, as far as it was not known.

        Raises:
            WrongFile: it says another size than what is wanted.
        """
        wanted = self.file
        if None not in (size, wanted.size) and size != wanted.size:
            raise WrongFile(self._unlike(f"{size} bytes"))
        self.file = replace(wanted, size=wanted.size or size, sha256=wanted.sha256 or sha256)

    def restart(self) -> None:
        """Drops the bytes that are there, and what a server said of them."""
        self.close()
        self._start()

    def _start(self) -> None:
        self.file, self.identity = self._wanted, self._wanted.sha256
        self._hash, self.length, self._safe = hashlib.sha256(), 0, 0
        self.parts, self.source = 0, ""

    def append(self, chunks: Iterable[bytes], report: Reporter | None = None) -> None:
        """Adds bytes. They are safe only after ``checkpoint``, which is done now and then here.

        Raises:
            WrongFile: the file gets longer than it should be.
            OSError: it cannot be written.
        """
        out = self._open()
        for chunk in chunks:
            if self.file.size is not None and self.length + len(chunk) > self.file.size:
                raise WrongFile(self._unlike("too long"))
            rest = memoryview(chunk)
            while rest:
                rest = rest[out.write(rest) :]
            self._hash.update(chunk)
            self.length += len(chunk)
            if report is not None:
                report("downloading", self.length)
            if not self.parts and self.length - self._safe >= _CHECKPOINT:
                self.checkpoint()

    def take_back(self, length: int, hashed: Any) -> None:
        """Back to an earlier ``length`` and what ``snapshot`` gave there."""
        self.close()
        self.length, self._hash = length, hashed

    def snapshot(self) -> tuple[int, Any]:
        """What ``take_back`` needs."""
        return self.length, self._hash.copy()

    def _open(self) -> FileIO:
        if self._out is None:
            # Without a buffer, which a full disk would make fail again when it is closed.
            self._out = self.path.open("r+b" if self.length else "wb", buffering=0)
            self._out.truncate(self.length)  # drops what an interrupted pull left
            self._out.seek(self.length)
        return self._out

    def checkpoint(self, source: str = "", parts: int = 0) -> None:
        """Notes that all bytes that are there are safe.

        Args:
            source: the wheels that they came from, if they did.
            parts: how many of those.
        """
        out = self._open()
        os.fsync(out.fileno())
        self.source, self.parts = source, parts
        state = {
            "identity": self.identity,
            "source": source,
            "parts": parts,
            "length": self.length,
            "digest": self.digest,
        }
        self._new_state_path.write_text(json.dumps(state), encoding="utf-8")
        os.replace(self._new_state_path, self._state_path)
        self._safe = self.length

    def finish(self) -> None:
        """Gives the complete file its final name.

        Raises:
            WrongFile: it is not the file that was wanted; it is deleted.
        """
        wanted = self.file
        if wanted.size not in (None, self.length) or wanted.sha256 not in (None, self.digest):
            unlike = self._unlike(f"{self.length} bytes with SHA-256 {self.digest}")
            self.discard()
            raise WrongFile(unlike)
        out = self._open()
        os.fsync(out.fileno())
        self.close()
        os.replace(self.path, wanted.path)
        if os.name == "posix":
            # Without this the rename itself may be lost when the power goes.
            folder = os.open(wanted.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self.discard()

    def _unlike(self, what: str) -> str:
        size = "" if self.file.size is None else f"{self.file.size} bytes"
        digest = "" if self.file.sha256 is None else f"SHA-256 {self.file.sha256}"
        return f"it has another file ({what}; wanted {' with '.join(filter(None, (size, digest)))})"

    def files(self) -> tuple[Path, ...]:
        """The files that an unfinished pull may have left."""
        return self.path, self._state_path, self._new_state_path

    def close(self) -> None:
        """Closes the file; it stays where it is."""
        out, self._out = self._out, None
        if out is not None:
            out.close()

    def discard(self) -> None:
        """Deletes the unfinished file."""
        self.close()
        for file in self.files():
            file.unlink(missing_ok=True)
        self._start()


def file_sha256(path: Path, report: Reporter) -> str:
    """The SHA-256 of a whole file, in hexadecimal."""
    return str(sha256_of(path, report, path.stat().st_size).hexdigest())


def sha256_of(path: Path, report: Reporter, length: int) -> Any:
    """A ``hashlib`` object over the first ``length`` bytes of a file, or over fewer if it is
    shorter."""
    hashed = hashlib.sha256()
    done = 0
    with path.open("rb") as stream:
        while done < length and (chunk := stream.read(min(_CHUNK, length - done))):
            hashed.update(chunk)
            done += len(chunk)
            report("verifying", done)
    return hashed
