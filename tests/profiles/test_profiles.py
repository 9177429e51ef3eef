"""Profiles on disk: whole or absent, whatever happens to the writer or the file."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_conflayers import profiles
from edge_conflayers.errors import BadInput
from edge_conflayers.profiles import ProfileKey, ProfileStore, default_root, model_fingerprint

MIB = 1 << 20
KEY = ProfileKey("m", "a cpu", 2, "Linux-x86_64", 2, 0, "k", "l", "s")
STATE = {"skip_set": [1, 3], "lambda": -0.05, "scores": [0.5, 1.0], "finished": False}


def files(root: Path | None) -> list[str]:
    """What is in a store, its lock left out."""
    assert root is not None
    return sorted(path.name for path in root.iterdir() if path.name != ".lock")


def run_writer(root: Path, before_save: str, save: str = "store.save(key, {'new': 1})") -> int:
    """Run `save` in a process of its own, with `before_save` breaking something first."""
    program = f"""
import os, signal, sys
from pathlib import Path
from edge_conflayers.profiles import ProfileKey, ProfileStore
def die(*_): os._exit(99)
{before_save}
key = ProfileKey("m", "a cpu", 2, "Linux-x86_64", 2, 0, "k", "l", "s")
store = ProfileStore(Path(sys.argv[1]))
{save}
"""
    package = Path(profiles.__file__).parents[2]
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)], env=environment, timeout=60, check=False
    )
    return done.returncode


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path / "deep" / "folder")
    assert store.load(KEY) is None
    store.save(KEY, STATE)
    assert ProfileStore(tmp_path / "deep" / "folder").load(KEY) == STATE
    store.save(KEY, {"other": 1})
    assert store.load(KEY) == {"other": 1}
    assert files(store.root) == [KEY.file_name]


def test_the_file_says_its_version_and_what_it_is_for(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    store.save(KEY, STATE)
    content = json.loads(store.path(KEY).read_text())
    assert content["version"] == 2
    assert content["key"]["cpu"] == "a cpu"


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"cpu": "b cpu"},
        {"cores": 4},
        {"platform": "Darwin-arm64"},
        {"threads": 1},
        {"gpu_layers": 3},
        {"kernels": "upstream"},
        {"library": "0.2.0"},
        {"settings": "t"},
    ],
)
def test_every_part_of_the_key_counts(tmp_path: Path, other: dict[str, Any]) -> None:
    store = ProfileStore(tmp_path)
    store.save(KEY, STATE)
    assert store.load(msgspec.structs.replace(KEY, **other)) is None
    assert store.load(KEY) == STATE


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    )
)
def test_any_json_state_round_trips(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]
) -> None:
    store = ProfileStore(tmp_path_factory.getbasetemp() / "round-trip")
    store.save(KEY, state)
    assert store.load(KEY) == state


@pytest.mark.parametrize("state", [{"x": float("nan")}, {"x": {1, 2}}])
def test_a_state_that_is_no_json_leaves_the_old_profile(
    tmp_path: Path, state: dict[str, Any]
) -> None:
    store = ProfileStore(tmp_path)
    store.save(KEY, STATE)
    with pytest.raises((TypeError, ValueError)):
        store.save(KEY, state)
    assert store.load(KEY) == STATE
    assert files(tmp_path) == [KEY.file_name]


@pytest.mark.parametrize(
    "crash",
    [
        "os.replace = die",  # written, not yet in place
        "os.fsync = die",  # written, not yet on the disk
        "import tempfile; real = tempfile.mkstemp\n"
        "def half(**k):\n"
        '    handle, name = real(**k); os.write(handle, b\'{"version": 1, "sta\'); die()\n'
        "tempfile.mkstemp = half",  # in the middle of writing
    ],
)
@pytest.mark.parametrize("had_one", [True, False])
def test_a_writer_killed_on_the_way_leaves_the_old_profile(
    tmp_path: Path, crash: str, had_one: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = ProfileStore(tmp_path)
    if had_one:
        store.save(KEY, STATE)
    assert run_writer(tmp_path, crash) == 99
    assert any(path.suffix == ".tmp" for path in tmp_path.iterdir())  # it did get that far
    assert store.load(KEY) == (STATE if had_one else None)
    store.save(KEY, {"next": 2})
    assert store.load(KEY) == {"next": 2}
    assert not caplog.records


def test_leftovers_of_killed_writers_go_but_not_those_of_living_ones(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    stem = store.path(KEY).stem
    old, fresh = tmp_path / f"{stem}.old.tmp", tmp_path / f"{stem}.fresh.tmp"
    for path in (old, fresh):
        path.write_text("{")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    store.save(KEY, STATE)
    assert not old.exists() and fresh.exists()


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = ProfileStore(tmp_path)
    store.save(KEY, STATE)

    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    store.save(KEY, {"new": 1})
    assert store.load(KEY) == STATE
    assert files(tmp_path) == [KEY.file_name]
    assert "No space left" in caplog.text


def saved_bytes(tmp_path: Path) -> bytes:
    store = ProfileStore(tmp_path)
    store.save(KEY, STATE)
    return store.path(KEY).read_bytes()


def damaged(raw: bytes) -> dict[str, bytes]:
    content = json.loads(raw)
    return {
        "empty": b"",
        "garbage": bytes(range(256)),
        "zeros": b"\0" * len(raw),
        "half": raw[: len(raw) // 2],
        "all but the last brace": raw.rstrip()[:-1],
        "a list": b"[1, 2]",
        "deep": b"[" * 100_000,
        "no version": json.dumps({"key": content["key"], "state": {}}).encode(),
        "version 1": json.dumps(content | {"version": 1}).encode(),
        "version 0": json.dumps(content | {"version": 0}).encode(),
        "version 3": json.dumps(content | {"version": 3}).encode(),
        "another key": json.dumps(content | {"key": content["key"] | {"threads": 9}}).encode(),
        "no state": json.dumps({"version": 2, "key": content["key"]}).encode(),
        "state a list": json.dumps(content | {"state": []}).encode(),
    }


@pytest.mark.parametrize("kind", sorted(damaged(b'{"key": {}}')))
def test_a_damaged_profile_is_put_aside_with_one_warning(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = damaged(saved_bytes(tmp_path))[kind]
    store = ProfileStore(tmp_path)
    store.path(KEY).write_bytes(wrong)
    with caplog.at_level(logging.WARNING):
        assert store.load(KEY) is None
        assert store.load(KEY) is None
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()
    aside = store.path(KEY).with_suffix(".corrupt")
    assert aside.read_bytes() == wrong
    assert not store.path(KEY).exists()
    store.save(KEY, STATE)
    assert store.load(KEY) == STATE and aside.exists()


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    raw = saved_bytes(tmp_path)
    store = ProfileStore(tmp_path)
    for length in range(len(raw)):
        store.path(KEY).write_bytes(raw[:length])
        assert store.load(KEY) is None
    store.path(KEY).write_bytes(raw)
    assert store.load(KEY) == STATE


def test_writers_at_the_same_time_never_mix(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    store.save(KEY, {"writer": "first", "body": []})
    loop = "for i in range(150): store.save(key, {'writer': NAME, 'body': [NAME] * (i * 20)})"
    package = Path(profiles.__file__).parents[2]
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from edge_conflayers.profiles import ProfileKey, ProfileStore\n"
        "key = ProfileKey('m', 'a cpu', 2, 'Linux-x86_64', 2, 0, 'k', 'l', 's')\n"
        "store, NAME = ProfileStore(Path(sys.argv[1])), sys.argv[2]\n" + loop
    )
    environment = os.environ | {"PYTHONPATH": str(package)}
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name], env=environment)
        for name in ("left", "right")
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        state = store.load(KEY)
        assert state is not None
        assert set(state["body"]) <= {state["writer"]}
        seen.add(state["writer"])
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen & {"left", "right"}
    assert files(tmp_path) == [KEY.file_name]


def test_a_folder_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    store = ProfileStore(blocker / "profiles")
    for _ in range(3):
        store.save(KEY, STATE)
        assert store.load(KEY) is None
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "EDGE_CONFLAYERS_DATA" in message and "\n" not in message
    assert blocker.read_text() == "in the way"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_read_only_folder_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ProfileStore(tmp_path)
    store.save(KEY, STATE)
    tmp_path.chmod(0o500)
    try:
        store.save(KEY, {"new": 1})
        store.save(KEY, {"new": 2})
    finally:
        tmp_path.chmod(0o700)
    assert len(caplog.records) == 1
    assert store.load(KEY) == STATE


def test_the_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path))
    assert default_root() == ProfileStore().root == tmp_path / "profiles"
    monkeypatch.delenv("EDGE_CONFLAYERS_DATA")
    assert default_root().parts[-2:] == ("edge-conflayers", "profiles")


@pytest.mark.parametrize("size", [0, 10, MIB, MIB + 5, 3 * MIB + 7])
def test_the_fingerprint_sees_size_start_and_end(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.gguf"
    content = bytearray(os.urandom(size))
    path.write_bytes(content)
    first = model_fingerprint(path)
    assert model_fingerprint(path) == first
    path.write_bytes(content + b"\0")
    assert model_fingerprint(path) != first
    for position in {0, min(size, MIB) - 1, size - MIB, size - 1} & set(range(size)):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        assert model_fingerprint(path) != first


def test_the_fingerprint_of_a_huge_file_is_cheap(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with open(path, "wb") as file:
        file.truncate(64 << 30)  # sparse
    started = time.perf_counter()
    model_fingerprint(path)
    assert time.perf_counter() - started < 5


def test_a_missing_model_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file") as caught:
        ProfileKey.for_model(tmp_path / "none.gguf", {}, threads=2, gpu_layers=0)
    assert "\n" not in str(caught.value)


def test_the_key_of_a_model(tmp_path: Path) -> None:
    path, copy = tmp_path / "model.gguf", tmp_path / "moved.gguf"
    for file in (path, copy):
        file.write_bytes(b"GGUF and so on")

    def key(model: Path = path, threads: int = 2, gpu: int = 0, **settings: Any) -> ProfileKey:
        return ProfileKey.for_model(model, settings, threads=threads, gpu_layers=gpu)

    assert key(a=1, b=0.4) == key(b=0.4, a=1) == key(copy, a=1, b=0.4)
    others = [key(a=2, b=0.4), key(a=1, b=0.4, threads=3), key(a=1, b=0.4, gpu=1)]
    assert len({k.file_name for k in [key(a=1, b=0.4), *others]}) == 4
    assert key().cpu and key().cores >= 1 and "-" in key().platform


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel name\t: Fast CPU\n\nprocessor\t: 1\nmodel name\t: B", "Fast CPU"),
        (
            "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nModel\t: Raspberry Pi 5",
            "Raspberry Pi 5 0x41 0xd0b",
        ),
        ("", ""),
    ],
)
def test_the_cpu_name_from_linux(cpuinfo: str, name: str) -> None:
    assert profiles._first_processor(cpuinfo) == name


def test_two_writers_who_add_to_what_is_there_lose_nothing(tmp_path: Path) -> None:
    add = "for i in range(60): store.update(key, lambda s: {**(s or {}), f'{os.getpid()} {i}': i})"
    program = (
        "import os, sys\nfrom pathlib import Path\n"
        "from edge_conflayers.profiles import ProfileKey, ProfileStore\n"
        "key = ProfileKey('m', 'a cpu', 2, 'Linux-x86_64', 2, 0, 'k', 'l', 's')\n"
        "store = ProfileStore(Path(sys.argv[1]))\n" + add
    )
    environment = os.environ | {"PYTHONPATH": str(Path(profiles.__file__).parents[2])}
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environment)
        for _ in range(3)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    state = ProfileStore(tmp_path).load(KEY)
    assert state is not None and len(state) == 3 * 60


def test_a_lock_that_is_stuck_is_told_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(profiles, "_LOCK_SECONDS", 0.1)
    store = ProfileStore(tmp_path)
    program = (
        "import filelock as f, sys; a = f.FileLock(sys.argv[1]); a.acquire(); print(flush=True)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-uc", program + "; sys.stdin.read()", str(tmp_path / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline()
        store.save(KEY, STATE)
    finally:
        holder.communicate()
    assert store.load(KEY) == STATE
    assert len(caplog.records) == 1 and "holds" in caplog.text


def test_without_a_home_folder_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = """
import os
for name in ("HOME", "XDG_DATA_HOME", "EDGE_CONFLAYERS_DATA"):
    os.environ.pop(name, None)
from edge_conflayers.profiles import ProfileKey, ProfileStore
if os.geteuid() == 0:
    os.setuid(54321)  # of no user
store, key = ProfileStore(), ProfileKey("m", "a cpu", 2, "Linux-x86_64", 2, 0, "k", "l", "s")
store.save(key, {"new": 1})
store.save_bytes("head", b"1")
store.remove("head")
print(store.load(key), store.load_bytes("head"))
"""
    if os.geteuid() != 0:
        pytest.skip("only root can become a user that the system lacks")
    environment = os.environ | {"PYTHONPATH": str(Path(profiles.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "None None\n"
    (line,) = done.stderr.splitlines()
    assert "no home folder" in line and "EDGE_CONFLAYERS_DATA" in line
