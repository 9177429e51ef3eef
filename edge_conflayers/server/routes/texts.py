"""Answers and completions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from edge_conflayers.server import failures
from edge_conflayers.server.asking import Asked, ask_chat, ask_completion
from edge_conflayers.server.bodies import ChatBody, CompletionBody
from edge_conflayers.server.jobs import ClientGone, Job, unless_gone
from edge_conflayers.server.serving import ServedModel, Service

router = APIRouter()
_CLIENT_GONE = 499  # as nginx has it; nobody sees it
_NO_BUFFER = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@router.post("/v1/chat/completions")
async def chat_completions(body: ChatBody, request: Request) -> Response:
    """Writes an answer to messages."""
    service: Service = request.app.state.service
    model = service.model(body.model)
    return await _reply(
        request, model, lambda: ask_chat(model.model, model.name, body, model.limits)
    )


@router.post("/v1/completions")
async def completions(body: CompletionBody, request: Request) -> Response:
    """Writes the text that follows a prompt."""
    service: Service = request.app.state.service
    model = service.model(body.model)
    return await _reply(
        request, model, lambda: ask_completion(model.model, model.name, body, model.limits)
    )


async def _reply(request: Request, model: ServedModel, ask: Callable[[], Asked]) -> Response:
    model.admit()
    try:
        asked = await run_in_threadpool(ask)
    except BaseException:
        model.release()
        raise
    job = model.write(asked)
    try:
        # An error before the first result has a status of its own.
        first = await unless_gone(request, job.next())
    except ClientGone:
        job.stop()
        return Response(status_code=_CLIENT_GONE)
    except BaseException:
        job.stop()
        raise
    return _EventStream(job, first) if asked.stream else JSONResponse(first)


class _EventStream(StreamingResponse):
    """Server-sent events: the results as JSON, at the end [DONE]; or an error object. The job is
    stopped when the client goes away."""

    def __init__(self, job: Job[Any], first: Any) -> None:
        super().__init__(_events(job, first), media_type="text/event-stream", headers=_NO_BUFFER)
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.stop()


async def _events(job: Job[Any], result: Any) -> AsyncIterator[str]:
    try:
        while result is not None:
            yield _event(result)
            await asyncio.sleep(0)  # where results lie ready: others, too, have their turn
            result = await job.next()
        yield "data: [DONE]\n\n"
    except Exception as error:
        failures.report(error)
        yield _event(failures.error_object(error))


def _event(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
