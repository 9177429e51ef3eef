"""Ctrl-C that arrives in a callback from C."""

from __future__ import annotations

import ctypes
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge_conflayers.cli.interrupts import delivered


@pytest.fixture(autouse=True)
def handled() -> Iterator[None]:
    """As in a terminal; what runs in the background may ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def called_back(error: type[BaseException]) -> None:
    """By C, which swallows what is raised."""

    @ctypes.CFUNCTYPE(None)
    def callback() -> None:
        raise error

    callback()


def test_what_a_callback_swallows_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    with delivered():
        for _ in range(2):
            called_back(KeyboardInterrupt)  # returns
            with pytest.raises(KeyboardInterrupt):
                time.sleep(30)
    assert capsys.readouterr().err == ""


def test_other_errors_are_shown_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: shown.append(unraisable.exc_type))
    with delivered():
        called_back(ValueError)
    called_back(KeyboardInterrupt)
    time.sleep(0.1)
    assert shown == [ValueError, KeyboardInterrupt]
