"""Fetches the pinned llama.cpp source, verifies it, unpacks it and applies our patches.

CMake runs this. The archive comes through the user's own pip, so mirrors, proxies and offline
`--find-links` folders work as they do for any package. ECL_UPSTREAM_DIR names an unpacked
llama-cpp-python source tree to use instead.

What must hold: no code of an archive runs, and none of it is unpacked, before its SHA-256 is the
pinned one. pip reads a source archive's metadata with the archive's own build back end, so pip
itself is told the hash and checks it first. The destination appears complete or not at all, and is
left alone while pin and patches stay the same.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NATIVE = Path(__file__).resolve().parent

_ITSELF = "llama_cpp = sys.modules[__package__]"
_RELATIVE_IMPORTS = (
    (r"^( *)import llama_cpp\.(\w+) as (\w+)$", r"\1from . import \2 as \3"),
    (r"^( *)from llama_cpp\.(\w+) import", r"\1from .\2 import"),
    (r"^import llama_cpp\.(\w+)$", rf"import sys\nfrom . import \1\n{_ITSELF}"),
    (r"^import llama_cpp$", rf"import sys\n{_ITSELF}"),
)


class UpstreamError(Exception):
    """Why the source cannot be prepared, in one line."""


def download(pin: dict[str, Any], folder: Path) -> Path:
    """Fetches the pinned source archive into `folder` with pip.

    Raises:
        UpstreamError: no network, no such archive, or one with another SHA-256.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{pin['package']}=={pin['version']} --hash=sha256:{pin['sha256']}\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--no-binary", pin["package"], "--dest", str(folder)]
    if importlib.util.find_spec("scikit_build_core") is not None:
        command += ["--no-build-isolation"]  # pip reads the archive's metadata with what is here
    command += ["--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True)
    archive = folder / pin["archive"]
    if done.returncode != 0 and "DO NOT MATCH THE HASHES" in done.stderr:
        raise UpstreamError(
            f"the {pin['archive']} that pip found does not have the SHA-256 that"
            f" native/upstream.toml pins ({pin['sha256']}); it is damaged or not the pinned one,"
            " nothing of it was unpacked or run"
        )
    if done.returncode != 0 or not archive.exists():
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise UpstreamError(
            f"could not fetch {pin['package']} {pin['version']} with pip"
            f" ({said[-1].removeprefix('ERROR: ') if said else 'no such archive'});"
            " check the network or pip's settings, or set ECL_UPSTREAM_DIR to an unpacked copy"
        )
    return archive


def check_sha256(archive: Path, expected: str) -> None:
    """Checks what pip left in the folder once more.

    Raises:
        UpstreamError: another hash.
    """
    with archive.open("rb") as stream:
        found = hashlib.sha256()
        while block := stream.read(1 << 20):
            found.update(block)
    if found.hexdigest() != expected:
        raise UpstreamError(
            f"{archive.name} has SHA-256 {found.hexdigest()}, but native/upstream.toml pins"
            f" {expected}; the archive is damaged or not the pinned one, nothing was unpacked"
        )


def unpack(archive: Path, wanted: dict[str, str], target: Path) -> None:
    """Extracts the wanted parts of the archive, dropping its leading folder."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, name = member.name.partition("/")
            for source, place in wanted.items():
                if name == source or name.startswith(source + "/"):
                    path = target / (place + name[len(source) :])
                    stream = tar.extractfile(member) if member.isfile() else None
                    if stream is not None:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        with stream, path.open("wb") as out:
                            shutil.copyfileobj(stream, out)


def copy_tree(tree: Path, wanted: dict[str, str], target: Path) -> None:
    """Copies the wanted parts of an unpacked source tree."""
    for source, place in wanted.items():
        if not (tree / source).exists():
            raise UpstreamError(
                f"ECL_UPSTREAM_DIR={tree} has no {source};"
                " it must be an unpacked llama-cpp-python source archive"
            )
        if (tree / source).is_dir():
            shutil.copytree(tree / source, target / place)
        else:
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / source, target / place)


def apply_patches(patches: list[Path], tree: Path) -> None:
    """Applies patches in order.

    Raises:
        UpstreamError: one does not apply exactly.
    """
    import patch_ng

    logging.getLogger("patch_ng").setLevel(logging.CRITICAL)
    for path in patches:
        patch = patch_ng.fromfile(str(path))
        if not patch or not patch.apply(root=str(tree), fuzz=False):
            raise UpstreamError(
                f"native/patches/{path.name} does not apply to this llama.cpp;"
                " mend it (see native/upstream.toml) or use the pinned version"
            )


def use_relative_imports(package: Path) -> None:
    """Has the binding import itself by whatever name it is loaded: by its full name, it would find
    an installed llama_cpp.

    Raises:
        UpstreamError: it imports itself in a way that is not known here.
    """
    for path in package.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for absolute, relative in _RELATIVE_IMPORTS:
            text = re.sub(absolute, relative, text, flags=re.MULTILINE)
        if left := re.search(r"^\s*(?:import|from) llama_cpp\b.*", text, flags=re.MULTILINE):
            raise UpstreamError(
                f"{path.name} of the binding has `{left[0].strip()}`, which"
                " native/fetch_upstream.py cannot make relative; teach it"
            )
        path.write_text(text, encoding="utf-8")


def stamp(pin_file: Path, patches: list[Path], local: str) -> str:
    """A hash of all that the prepared source depends on."""
    digest = hashlib.sha256(local.encode())
    for path in [pin_file, Path(__file__), *patches]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def prepare(destination: Path, *, patched: bool) -> None:
    """Makes `destination` hold the pinned source, patched unless told otherwise.

    Raises:
        UpstreamError: no network, a wrong hash, or a patch that does not apply.
    """
    pin_file = NATIVE / "upstream.toml"
    pin = tomllib.loads(pin_file.read_text(encoding="utf-8"))
    patches = sorted((NATIVE / "patches").glob("*.patch" if patched else "fix-*.patch"))
    local = os.environ.get("ECL_UPSTREAM_DIR", "")
    wanted = stamp(pin_file, patches, local)
    stamp_file = destination / ".stamp"
    if stamp_file.exists() and stamp_file.read_text() == wanted:
        return

    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix="upstream-") as temporary:
        tree = Path(temporary) / "tree"
        tree.mkdir()
        if local:
            copy_tree(Path(local), pin["unpack"], tree)
        else:
            archive = download(pin, Path(temporary))
            check_sha256(archive, pin["sha256"])
            unpack(archive, pin["unpack"], tree)
        apply_patches(patches, tree / "llama.cpp")
        use_relative_imports(tree / "llama_cpp")
        keep_unchanged_times(tree, destination)
        (tree / ".stamp").write_text(wanted)
        if destination.exists():
            shutil.rmtree(destination)
        tree.rename(destination)


def keep_unchanged_times(new: Path, old: Path) -> None:
    """Files that are the same as before keep their time, so that only changed ones are rebuilt."""
    for path in new.rglob("*"):
        before = old / path.relative_to(new)
        if path.is_file() and before.is_file() and path.read_bytes() == before.read_bytes():
            status = before.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--unpatched", action="store_true", help="upstream with its fixes only")
    options = parser.parse_args()
    try:
        prepare(options.destination, patched=not options.unpatched)
    except UpstreamError as error:
        print(f"edge-conflayers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
