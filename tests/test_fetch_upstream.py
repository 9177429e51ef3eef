"""The pinned source: nothing of an archive with another hash is unpacked or run."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

_FETCH = Path(__file__).parent.parent / "native" / "fetch_upstream.py"

# A build back end that says it has run.
_BACK_END = """
from pathlib import Path
Path({marker!r}).touch()

def prepare_metadata_for_build_wheel(folder, settings=None):
    info = Path(folder) / "pinned-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: pinned\\nVersion: 1.0\\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\n")
    return info.name

def build_wheel(folder, settings=None, metadata=None):
    raise NotImplementedError
"""


def write_archive(path: Path, files: dict[str, str]) -> str:
    """Writes a source archive; returns its SHA-256."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"pinned-1.0/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a pin, a package index and no patches of its own."""
    native = tmp_path / "native"
    native.mkdir()
    shutil.copy(_FETCH, native)
    spec = importlib.util.spec_from_file_location("fetch", native / "fetch_upstream.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.delenv("ECL_UPSTREAM_DIR", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    # The back end needs nothing, so pip is not to make an environment for it.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "back_end"\n'
        'backend-path = ["."]\n',
        "back_end.py": _BACK_END.format(marker=str(tmp_path / "ran")),
        "PKG-INFO": "Metadata-Version: 2.1\nName: pinned\nVersion: 1.0\n",
        "src/code.cpp": "int main() {}\n",
    }
    digest = write_archive(index / "pinned-1.0.tar.gz", files)
    pin(tmp_path, digest)
    return module


def pin(tmp_path: Path, sha256: str) -> None:
    (tmp_path / "native" / "upstream.toml").write_text(
        f'package = "pinned"\nversion = "1.0"\narchive = "pinned-1.0.tar.gz"\nsha256 = "{sha256}"\n'
        '[unpack]\n"src" = "llama.cpp/src"\n'
    )


def test_the_pinned_archive_is_unpacked(fetch: ModuleType, tmp_path: Path) -> None:
    fetch.prepare(tmp_path / "source", patched=True)
    assert (tmp_path / "source/llama.cpp/src/code.cpp").read_text() == "int main() {}\n"
    assert (tmp_path / "ran").exists()  # what the next test is about does happen


def test_nothing_of_another_archive_runs(fetch: ModuleType, tmp_path: Path) -> None:
    pin(tmp_path, "0" * 64)
    with pytest.raises(fetch.UpstreamError, match=r"pinned-1\.0\.tar\.gz .* not the pinned one"):
        fetch.prepare(tmp_path / "source", patched=True)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "source").exists()


def test_an_archive_that_is_not_there(fetch: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "index" / "pinned-1.0.tar.gz").unlink()
    with pytest.raises(fetch.UpstreamError, match=r"could not fetch pinned 1\.0 with pip"):
        fetch.prepare(tmp_path / "source", patched=True)
    assert not (tmp_path / "source").exists()


def test_the_binding_imports_itself_by_any_name(fetch: ModuleType, tmp_path: Path) -> None:
    package = tmp_path / "another_name"
    package.mkdir()
    (package / "__init__.py").write_text("from .low import *\nfrom .high import *\n")
    (package / "low.py").write_text("number = 5\n")
    (package / "high.py").write_text(
        "import llama_cpp.low as low\nfrom llama_cpp.low import number\nimport llama_cpp\n"
        "import llama_cpp.other\n"
        "def later():\n    import llama_cpp.low as again\n    return again\n"
        "assert low.number == number == llama_cpp.number and later() is low\n"
        '"""\n    >>> import llama_cpp\n"""\n'
    )
    (package / "other.py").write_text("import llama_cpp.high\nhigh = llama_cpp.__name__\n")
    fetch.use_relative_imports(package)
    code = (
        "import sys, another_name\n"
        "print(another_name.llama_cpp.other.high, 'llama_cpp' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "another_name False\n", done.stderr
    (package / "new.py").write_text("import llama_cpp.low, llama_cpp.high\n")
    with pytest.raises(fetch.UpstreamError, match=r"new\.py of the binding has `import llama_cpp"):
        fetch.use_relative_imports(package)
