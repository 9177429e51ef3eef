"""Threads and memory of machines and containers that are made up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from installed import PACKAGE

from edge_conflayers import machine
from edge_conflayers.machine import cgroup

V2 = "25 30 0:23 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = (
    "40 30 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "41 30 0:30 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def made_up(
    folder: Path, groups: str, mounts: str, files: dict[str, str], *, root: str = "/"
) -> Path:
    """A file system with ``/proc/self`` and the files of ``/sys/fs/cgroup``."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(groups)
    (folder / "proc/self/mountinfo").write_text(mounts.format(root=root))
    for name, content in files.items():
        file = folder / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/../..\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/host/path\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("", {}, None),
    ],
)
def test_time_on_processors(
    tmp_path: Path, groups: str, files: dict[str, str], limit: float | None
) -> None:
    assert cgroup.cpu_limit(made_up(tmp_path, groups, V2, files)) == limit


GROUPS_V1 = "4:memory:/docker/x\n1:cpu,cpuacct:/docker/x\n0::/\n"


@pytest.mark.parametrize("root", ["/", "/docker/x"])
def test_version_1(tmp_path: Path, root: str) -> None:
    inside = "docker/x/" if root == "/" else ""
    files = {
        f"cpu,cpuacct/{inside}cpu.cfs_quota_us": "250000\n",
        f"cpu,cpuacct/{inside}cpu.cfs_period_us": "100000\n",
        f"memory/{inside}memory.limit_in_bytes": "1000000\n",
        f"memory/{inside}memory.usage_in_bytes": "900000\n",
        f"memory/{inside}memory.stat": "cache 1\ntotal_inactive_file 300000\n",
    }
    made = made_up(tmp_path, GROUPS_V1, V1 + V2, files, root=root)
    assert cgroup.cpu_limit(made) == 2.5
    assert cgroup.free_memory(made) == 400_000


def test_version_1_without_limits(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/docker/x/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
        "memory/docker/x/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/docker/x/memory.usage_in_bytes": "900000\n",
    }
    made = made_up(tmp_path, GROUPS_V1, V1, files)
    assert cgroup.cpu_limit(made) is None
    assert cgroup.free_memory(made) is None


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"a/memory.max": "max\n", "a/memory.current": "5\n"}, None),
        ({"a/memory.max": "1000\n", "a/memory.current": "400\n"}, 600),
        ({"a/memory.max": "1000\n", "a/memory.high": "700\n", "a/memory.current": "400\n"}, 300),
        ({"a/memory.max": "1000\n", "a/memory.current": "1200\n"}, 0),
        (
            {
                "a/memory.max": "1000\n",
                "a/memory.current": "900\n",
                "a/memory.stat": "anon 1\ninactive_file 500\nactive_file 7\n",
            },
            600,
        ),
        (
            {
                "a/memory.max": "9000\n",
                "a/memory.current": "400\n",
                "memory.max": "2000\n",
                "memory.current": "1900\n",
            },
            100,
        ),
    ],
)
def test_memory(tmp_path: Path, files: dict[str, str], free: int | None) -> None:
    assert cgroup.free_memory(made_up(tmp_path, "0::/a\n", V2, files)) == free


@pytest.mark.parametrize(
    ("limit", "threads"), [(None, 8), (0.25, 1), (1.0, 1), (1.9, 1), (3.5, 3), (64.0, 8)]
)
def test_threads_keep_within_the_limit(
    monkeypatch: pytest.MonkeyPatch, limit: float | None, threads: int
) -> None:
    monkeypatch.setattr(machine, "_physical_cores", lambda: 8)
    monkeypatch.setattr(cgroup, "cpu_limit", lambda: limit)
    assert machine.default_threads() == threads
    assert machine.threads_to_use(None) == threads


@pytest.mark.parametrize(
    ("system", "group", "free"),
    [(100, None, 100), (100, 40, 40), (None, 40, 40), (None, None, None)],
)
def test_the_scarcer_memory_counts(
    monkeypatch: pytest.MonkeyPatch, system: int | None, group: int | None, free: int | None
) -> None:
    monkeypatch.setattr(machine, "_system_memory", lambda: system)
    monkeypatch.setattr(cgroup, "free_memory", lambda: group)
    assert machine.available_memory() == free


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_threads_keep_within_the_affinity() -> None:
    cpu = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{cpu}}})\n"
        "from edge_conflayers import machine; print(machine.default_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
