"""Numbers out of range are refused in one line that names the option and its range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from steps import Tiny, TinyPath

from edge_conflayers import machine
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput
from edge_conflayers.limits import check_number

REFUSED: dict[str, list[Any]] = {
    "threads": [0, -1, 512, 100_000, 2**40, 1.5],
    "n_ctx": [-1, 2**31, 2**40, 64.0],
    "batch": [0, -1, 2**31],
    "max_outputs": [0, -1, 2**31],
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_sessions_numbers(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(machine, "most_threads", lambda: 4)
    for value in REFUSED[name]:
        with pytest.raises(BadInput, match=r" is .*; it must be a whole number from ") as error:
            Session(tiny("llama"), **{"n_ctx": 64, "threads": 1, name: value})
        assert str(value) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("layers", [-2, -5, 2**31, 2**40])
def test_layers_on_the_gpu(tiny_path: TinyPath, layers: int) -> None:
    with pytest.raises(BadInput, match=r"gpu-layers .-ngl. is .* whole number from -1 to "):
        Model(tiny_path("llama"), gpu_layers=layers)


def test_threads_are_at_most_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert machine.threads_to_use(6) == 6 and machine.threads_to_use(1) == 1
    assert machine.threads_to_use(None) >= 1
    with pytest.raises(BadInput, match=r"^threads \(-t\) is 7; .* from 1 to 6$"):
        machine.threads_to_use(7)
    monkeypatch.setattr("os.cpu_count", lambda: 4096)
    with pytest.raises(BadInput, match=r"from 1 to 512$"):
        machine.threads_to_use(513)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_number("x", 2.5, 0, 2), "x is 2.5; it must be from 0 to 2"),
        (lambda: check_number("x", 2.0, 0, 2, whole=True), "a whole number from 0 to 2"),
        (lambda: check_number("x", float("nan"), 1, 2, or_zero=True), "0, or from 1 to 2"),
        (lambda: check_number("x", True, 0, 2), "x is True"),
    ],
)
def test_check_number(call: Callable[[], None], message: str) -> None:
    with pytest.raises(BadInput) as error:
        call()
    assert message in str(error.value)
    check_number("x", 0, 0, 2, whole=True)
    check_number("x", 2, 0, 2)
