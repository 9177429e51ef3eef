"""What goes wrong, as OpenAI's error objects."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from edge_conflayers.errors import BadInput, EdgeConflayersError, one_line

log = logging.getLogger("edge_conflayers.server")

_RETRY_AFTER = 2  # seconds; not tuned


class Refused(EdgeConflayersError):
    """A request that is not served.

    Attributes:
        status: of HTTP.
        code: OpenAI's, for programs.
    """

    status = 400
    code: str | None = None


class TooLong(Refused):
    """The prompt does not fit in the context, or the text asked for is longer than allowed."""

    code = "context_length_exceeded"


class NoSuchModel(Refused):
    """The model is not served here."""

    status = 404
    code = "model_not_found"


class Busy(Refused):
    """All slots write, and the queue is full."""

    status = 429
    code = "queue_full"


class Ending(Refused):
    """The server ends."""

    status = 503
    code = "server_ending"


class WrongKey(Refused):
    """The API key is missing or wrong."""

    status = 401
    code = "invalid_api_key"


class WrongHost(Refused):
    """The request is for another host, whose name was made to lead here."""

    status = 403
    code = "wrong_host"


class BodyTooLarge(Refused):
    """The body has more bytes than allowed."""

    status = 413
    code = "request_too_large"


class BodyTooSlow(Refused):
    """The body did not come in time."""

    status = 408
    code = "request_timeout"


def status_of(error: Exception) -> int:
    """The status of HTTP for an error."""
    if isinstance(error, Refused):
        return error.status
    return 400 if isinstance(error, BadInput) else 500


def error_object(error: Exception) -> dict[str, Any]:
    """An error for the client. Of a fault of this program, it is told nothing but that."""
    message = "the server failed; its log says why"
    if isinstance(error, EdgeConflayersError):
        message = _as_utf8(one_line(error))
    status = status_of(error)
    return _error(message, status, error.code if isinstance(error, Refused) else None)


def report(error: Exception) -> None:
    """Logs an error that the client cannot do anything about."""
    if status_of(error) == 500:
        what = f"{type(error).__name__}: {error}"
        shown = error if log.isEnabledFor(logging.DEBUG) else None
        log.error("a request failed (%s)", one_line(what), exc_info=shown)


def response(error: Exception) -> JSONResponse:
    """The response for an error."""
    status = status_of(error)
    headers = {"Retry-After": str(_RETRY_AFTER)} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_object(error), status, headers)


def _as_utf8(text: str) -> str:
    """A text with "?" for halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _error(message: str, status: int, code: str | None, param: str | None = None) -> dict[str, Any]:
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def add_handlers(app: FastAPI) -> None:
    """Lets an application answer with such objects."""

    @app.exception_handler(EdgeConflayersError)
    async def ours(request: Request, error: EdgeConflayersError) -> JSONResponse:
        report(error)
        return response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        names = [] if first["type"] == "json_invalid" else first["loc"][1:]
        place = ".".join(map(str, names)) or None
        message = f"{place or 'the body'}: {first['msg']}"
        message = one_line(_as_utf8(message))
        return JSONResponse(_error(message, 400, None, place), 400)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}"
        return JSONResponse(
            _error(one_line(message), error.status_code, None), error.status_code, error.headers
        )
