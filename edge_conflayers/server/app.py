"""The server as an ASGI application."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from edge_conflayers import __version__
from edge_conflayers.server import failures
from edge_conflayers.server.guards import BodyGuard, FaultGuard, HostGuard, KeyGuard
from edge_conflayers.server.metrics import RequestCounter
from edge_conflayers.server.routes import about, embeddings, page, texts
from edge_conflayers.server.serving import Service


def make_app(service: Service) -> FastAPI:
    """The application that serves these models, and closes none of them."""
    # FastAPI's own pages load scripts from elsewhere.
    app = FastAPI(title="edge-conflayers", version=__version__, docs_url=None, redoc_url=None)
    app.state.service = service
    for routes in (texts, embeddings, about):
        app.include_router(routes.router)
    options = service.options
    if options.page:
        app.include_router(page.router)
    failures.add_handlers(app)
    # The last one added is passed first.
    app.add_middleware(FaultGuard)
    app.add_middleware(BodyGuard, most=options.max_body, seconds=options.body_seconds)
    if options.api_keys:
        app.add_middleware(KeyGuard, keys=options.api_keys)
    if options.hosts:
        app.add_middleware(HostGuard, hosts=options.hosts)
    if options.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    app.add_middleware(RequestCounter, metrics=service.metrics)
    return app
