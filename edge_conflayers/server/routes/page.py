"""The page for people: the files of ``server/page``, as they are."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

router = APIRouter(include_in_schema=False)
_FOLDER = Path(__file__).parent.parent / "page"
_METHODS = ["GET", "HEAD"]

# Not as the machine has them: there are some on which scripts are plain text.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Nothing from elsewhere, and no script but the files'. Trusted types: no text becomes markup.
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script';"
    " trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # may be kept, but is asked for again: it changes with the package
}


class _Files(StaticFiles):
    """A folder whose files come with these headers."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        kind = _TYPES.get(Path(full_path).suffix)
        if kind is None:
            raise HTTPException(404)
        found = super().file_response(full_path, stat_result, scope, status_code)
        found.headers.update(_HEADERS)
        if found.status_code != 304:
            found.headers["Content-Type"] = kind
        return found


_files = _Files(directory=_FOLDER)


@router.api_route("/", methods=_METHODS)
async def index(request: Request) -> Response:
    """The page itself."""
    return await _files.get_response("index.html", request.scope)


@router.api_route("/page/{name:path}", methods=_METHODS)
async def file(name: str, request: Request) -> Response:
    """One of the files that it needs."""
    return await _files.get_response(name, request.scope)
