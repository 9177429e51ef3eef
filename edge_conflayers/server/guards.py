"""What requests pass before they are served: their key and size are checked, faults are caught."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_conflayers.server import failures
from edge_conflayers.server.failures import BodyTooLarge, BodyTooSlow, WrongHost, WrongKey

# To anybody: what watches a server needs no key, and the page asks for it.
_OPEN = ("/health", "/")
_OPEN_FOLDER = "/page/"


class KeyGuard:
    """Refuses requests without one of the API keys.

    Keys are compared by their hashes, all of them each time, so that the time it takes says nothing
    about them.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._hashes = [_hash(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "http" and not _is_open(scope["path"])
        if not guarded or self._has_key(Headers(scope=scope)):
            return await self._app(scope, receive, send)
        error = WrongKey("the API key is missing or wrong; send Authorization: Bearer KEY")
        await failures.response(error)(scope, receive, send)

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = _hash(key.strip().encode("latin-1"))
        equal = [hmac.compare_digest(given, each) for each in self._hashes]
        return scheme.lower() == "bearer" and any(equal)


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_FOLDER)


class HostGuard:
    """Refuses requests for other hosts: a page elsewhere could let its own name lead here (DNS
    rebinding), and so use a server that only this machine reaches."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else ""
        name = host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        if not host or name.lower() in self._hosts:
            return await self._app(scope, receive, send)
        error = WrongHost(
            f"this server is for {self._hosts[0]} and not {name}; start it with an API key or"
            " another --host to use it by other names"
        )
        await failures.response(error)(scope, receive, send)


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class BodyGuard:
    """Takes a request's body before anything else is done, and refuses one that is too large or too
    slow.

    Args:
        most: bytes.
        seconds: in which all of it must have come.
    """

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self._app = app
        self._most = most
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            body = await asyncio.wait_for(
                self._body(Headers(scope=scope), receive), timeout=self._seconds
            )
        except BodyTooLarge as error:
            return await _refuse(error, scope, receive, send)
        except asyncio.TimeoutError:
            why = f"the body did not come within {self._seconds:g} seconds; send it faster"
            return await _refuse(BodyTooSlow(why), scope, receive, send)
        if body is None:  # the client has gone
            return None
        unread = [body]

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await receive()

        await self._app(scope, replay, send)

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        stated = headers.get("content-length", "")
        if stated.isdecimal() and int(stated[:20]) > self._most:
            raise self._too_large()
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._most:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body has more than {self._most} bytes; send less")


async def _refuse(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuses a request whose body is not read to its end, so that the connection cannot go on."""
    found = failures.response(error)
    found.headers["Connection"] = "close"
    await found(scope, receive, send)


class FaultGuard:
    """Answers with an error object where the program fails, and logs the fault."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if scope["type"] != "http":
                raise
            failures.report(error)
            if not begun:
                await failures.response(error)(scope, receive, send)
