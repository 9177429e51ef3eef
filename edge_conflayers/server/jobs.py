"""Work in threads, whose results come to the event loop as they are made."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor, Future
from typing import Any, Generic, TypeVar

from starlette.requests import Request

T = TypeVar("T")


class Stopped(Exception):
    """Nobody wants the results of a job any longer."""


class ClientGone(Exception):
    """The client has closed its connection."""


class Job(Generic[T]):
    """A generator that runs in a thread; its results come to the event loop as they are made.

    Results that nobody takes yet are kept, so that a slow client does not hold up a slot.

    Args:
        make: makes the generator, in that thread. It is given an event that is set when the work
            should end early, and then raises ``Stopped``.
        done: called when the work is over, however it ended.
    """

    def __init__(
        self,
        make: Callable[[threading.Event], Generator[T, None, None]],
        done: Callable[[Job[T]], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._results: asyncio.Queue[tuple[T | None, BaseException | None]] = asyncio.Queue()
        self._stopped = threading.Event()
        self._make = make
        self._done = done
        self._future: Future[None] | None = None

    def start(self, executor: Executor) -> None:
        """Begins the work as soon as there is a thread for it."""
        self._future = executor.submit(self._run)

    def stop(self, why: BaseException | None = None) -> None:
        """Ends the work as soon as it can be, at once if it waits for a thread, and tells whoever
        waits for a result why. To be called on the event loop."""
        self._stopped.set()
        future = self._future
        if future is not None and not future.cancelled() and future.cancel():
            self._done(self)
        if why is not None:
            self._results.put_nowait((None, why))

    async def next(self) -> T | None:
        """The next result; None after the last one.

        Raises:
            as the generator does.
        """
        result, error = await self._results.get()
        if error is not None:
            raise error
        return result

    def _run(self) -> None:
        try:
            if not self._stopped.is_set():
                with contextlib.closing(self._make(self._stopped)) as results:
                    for result in results:
                        self._put(result, None)
            self._put(None, None)
        except Stopped:
            self._put(None, None)
        except BaseException as error:
            self._put(None, error)
        finally:
            self._done(self)

    def _put(self, result: T | None, error: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server ends
            self._loop.call_soon_threadsafe(self._results.put_nowait, (result, error))


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work for a client.

    Raises:
        ClientGone: the client closes its connection before; the work is cancelled.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for each in (working, gone):
            each.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
