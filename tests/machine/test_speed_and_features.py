"""How fast memory is read, and what the CPU has."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_conflayers import machine
from edge_conflayers.machine.cpu_features import cpu_features
from edge_conflayers.machine.memory_speed import MemoryReading


def test_all_of_the_memory_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 4 * (128 << 20))
    reading = MemoryReading(3)
    assert reading.n_bytes == 128 << 20
    assert reading.median is None and reading.fastest is None
    reading.read()
    reading.read_for(0.0)
    assert len(reading.rates) == 2
    assert 0 < (reading.median or 0) <= (reading.fastest or 0) == max(reading.rates)


def test_too_little_memory_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 64 << 20)
    reading = MemoryReading(2)
    reading.read_for(10.0)
    assert (reading.n_bytes, reading.rates, reading.fastest) == (0, [], None)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "processor : 0\nflags : fpu avx2 sse avx fma avx512_vnni\nflags : x",
            "avx avx2 fma avx512_vnni",
        ),
        ("Features\t: fp asimd i8mm asimddp\n", "asimd asimddp i8mm"),
        ("nothing of it\n", ""),
    ],
)
def test_features_of_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: str
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert cpu_features(file) == tuple(found.split())
    assert cpu_features(tmp_path / "absent") == ()
