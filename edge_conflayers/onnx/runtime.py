"""ONNX Runtime: a graph loaded for one number of threads, and what can go wrong with that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from edge_conflayers.errors import BadInput, one_line
from edge_conflayers.onnx.opening import PROVIDERS

VERSION: str = onnxruntime.__version__

_NOTHING = 4
"""Of ONNX Runtime's log, no severity but fatal: what fails is an exception as well."""

_DEVICES = {"cuda": "cuda", "dml": "dml"}
"""Providers whose caches are in memory of their own, and what ONNX Runtime calls that."""


def check_provider(provider: str) -> None:
    """Refuses a provider that is not there.

    Raises:
        BadInput: there is none of that name, or this build of ONNX Runtime lacks it.
    """
    there = onnxruntime.get_available_providers()
    usable = [name for name, full in PROVIDERS.items() if full in there]
    if provider not in usable:
        known = "" if provider in PROVIDERS else f" (known are {', '.join(PROVIDERS)})"
        raise BadInput(
            f"onnxruntime {VERSION} has no provider '{provider}' here{known};"
            f" choose from {', '.join(usable)}, or install a build of it that has"
        )


def device_of(provider: str) -> str:
    """Where a provider keeps caches, as ONNX Runtime calls it."""
    return _DEVICES.get(provider, "cpu")


def load_graph(path: Path, provider: str, threads: int) -> Any:
    """An ``onnxruntime.InferenceSession`` of a graph and its weights.

    Args:
        path: the .onnx file.
        provider: a key of PROVIDERS that is there.
        threads: CPU threads.

    Raises:
        BadInput: the graph is damaged or needs another version of ONNX Runtime, or the provider
            cannot run it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _NOTHING
    # A step's shapes hardly ever come again, and a plan would be kept for each.
    options.enable_mem_pattern = False
    providers = list(dict.fromkeys((PROVIDERS[provider], PROVIDERS["cpu"])))
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's have no base class of their own
        raise BadInput(
            f"{path} cannot be run by onnxruntime {VERSION} ({_why(error)}); export the model"
            " again, or install another onnxruntime"
        ) from error
    if session.get_providers()[0] != PROVIDERS[provider]:
        raise BadInput(
            f"onnxruntime {VERSION} could not start its provider '{provider}'; see that its driver"
            " is installed, or leave out --provider"
        )
    return session


def _why(error: Exception) -> str:
    """What ONNX Runtime says, without the names of its files and functions."""
    text = one_line(str(error)).split(" : ", maxsplit=3)[-1]
    return text.rpartition(") ")[2][:200] if ".cc:" in text else text[:200]
