"""A device that is not the CPU: a GPU if the library was built for the one at hand, else
llama.cpp's RPC backend, served by a process of its own. Its memory is as far away as a GPU's, and
layers get there the same way.
"""

from __future__ import annotations

import ctypes
import functools
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edge_conflayers.engine.native import llama

_PATIENCE = 60.0  # seconds
# ggml-backend.h's GGML_BACKEND_DEVICE_TYPE_CPU, _GPU and _IGPU
_CPU = 0
_GPUS = (1, 2)


class NoDevice(Exception):
    """The library has no RPC backend, or its server does not start."""


@functools.cache
def has_gpu() -> bool:
    """Whether the library can put layers on a GPU of this machine. To be asked before
    ``remote_device``, which is one to the library."""
    by_type = _ggml("ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int)
    return any(by_type(kind) for kind in _GPUS)


@contextmanager
def remote_device() -> Iterator[None]:
    """Registers the device with the library, for all models that are loaded from then on.

    Raises:
        NoDevice: as it says.
    """
    add_server = _rpc_function("ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    endpoint = f"127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, __file__, endpoint]) as server:
        try:
            _wait_for(port, server)
            _ggml("ggml_backend_register", None, ctypes.c_void_p)(add_server(endpoint.encode()))
            yield
        finally:
            server.kill()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise NoDevice(f"the RPC server at port {port} does not answer")


def _ggml(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(llama._lib, name)
    function.restype, function.argtypes = result, arguments
    return function


def _rpc_function(name: str, result: Any, *arguments: Any) -> Any:
    backend = _ggml("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p)(b"RPC")
    if not backend:
        raise NoDevice("the library was built without -DGGML_RPC=ON")
    address = _ggml(
        "ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p
    )(backend, name.encode())
    return ctypes.CFUNCTYPE(result, *arguments)(address)


def _serve(endpoint: str) -> None:
    """Does not return."""
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    cpu = pointer(_ggml("ggml_backend_dev_by_type", pointer, ctypes.c_int)(_CPU))
    start = _rpc_function(
        "ggml_backend_rpc_start_server",
        *(None, ctypes.c_char_p, ctypes.c_char_p, size, size, ctypes.POINTER(pointer)),
    )
    start(endpoint.encode(), None, 1, 1, ctypes.byref(cpu))


if __name__ == "__main__":
    _serve(sys.argv[1])
