"""Serves until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import uvicorn

from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.server.app import make_app
from edge_conflayers.server.serving import Service

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AFTER_GRACE = 2.0  # seconds for what is cut off to be told; not tuned
log = logging.getLogger("edge_conflayers.server")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        port: 0 for any that is free.

    Raises:
        EdgeConflayersError: the address cannot be had.
    """
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = error.strerror or str(error)
        raise EdgeConflayersError(
            f"cannot listen on {host}:{port} ({why}); choose another --host or --port"
        ) from None


def address(listening: socket.socket) -> str:
    """What clients reach a socket by."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    service: Service,
    listening: socket.socket,
    started: Callable[[], None],
    ending: Callable[[int], None] = lambda texts: None,
) -> None:
    """Serves until Ctrl-C or SIGTERM; a second one ends the process at once.

    Texts may then still end for the grace that the options give, and are cut off after it.

    Args:
        started: called once requests are taken.
        ending: called when that ends, with the number of texts that are still to be written, if
            there are any.
    """
    config = uvicorn.Config(
        make_app(service),
        log_level="error" if log.isEnabledFor(logging.DEBUG) else "critical",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=int(service.options.grace + _AFTER_GRACE + 0.999),
    )
    _Server(config, service, started, ending).run([listening])
    for each in service.models.values():
        if not each.join(_AFTER_GRACE):  # a long prompt is being read, which nothing can end
            sys.stderr.write("edge-conflayers: a text does not end; what it learned is lost\n")
            sys.stderr.flush()
            os._exit(0)


class _Server(uvicorn.Server):
    """uvicorn's server, which does not raise the signal that ended it once more: the models are to
    be closed."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        started: Callable[[], None],
        ending: Callable[[int], None],
    ) -> None:
        super().__init__(config)
        self._service = service
        self._tell = started
        self._tell_end = ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for each in self._service.models.values():
            each.refuse()
        if texts := sum(sum(each.load[1:]) for each in self._service.models.values()):
            self._tell_end(texts)
        ending = asyncio.create_task(self._stop_after_grace())
        await super().shutdown(sockets)
        ending.cancel()
        self._stop()

    async def _stop_after_grace(self) -> None:
        await asyncio.sleep(self._service.options.grace)
        self._stop()

    def _stop(self) -> None:
        for each in self._service.models.values():
            each.stop()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        before: dict[signal.Signals, Any] = {
            each: signal.signal(each, self.handle_exit) for each in _SIGNALS
        }
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True
