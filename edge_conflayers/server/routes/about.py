"""What is served, how it does, and tokens."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from edge_conflayers.server.asking import check_tokens
from edge_conflayers.server.bodies import DetokenizeBody, TokenizeBody
from edge_conflayers.server.serving import ServedModel, Service

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Tells that the server is there."""
    return {"status": "ok"}


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Counts for Prometheus."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The models that are served."""
    service: Service = request.app.state.service
    return {"object": "list", "data": [_about(each) for each in service.models.values()]}


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request) -> dict[str, Any]:
    """One of the models that are served."""
    service: Service = request.app.state.service
    return _about(service.model(name))


def _about(served: ServedModel) -> dict[str, Any]:
    model = served.model
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "edge-conflayers",
        "meta": {
            "n_vocab": model.n_vocab,
            "n_ctx": served.limits.n_ctx,
            "n_ctx_train": model.n_ctx_train,
            "n_embd": model.n_embd,
            "n_layer": model.n_layer,
        },
    }


@router.post("/tokenize")
def tokenize(body: TokenizeBody, request: Request) -> dict[str, Any]:
    """A text's tokens."""
    service: Service = request.app.state.service
    model = service.model(body.model).model
    tokens = model.tokenize(
        body.content, add_special=body.add_special, parse_special=body.parse_special
    )
    if not body.with_pieces:
        return {"tokens": tokens}
    return {"tokens": [{"id": token, "piece": _piece(model.piece(token))} for token in tokens]}


def _piece(piece: bytes) -> str | list[int]:
    """Text, or bytes where they are a part of a character."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return list(piece)


@router.post("/detokenize")
def detokenize(body: DetokenizeBody, request: Request) -> dict[str, Any]:
    """Tokens' text."""
    service: Service = request.app.state.service
    model = service.model(body.model).model
    check_tokens(model, body.tokens)
    return {"content": model.text(body.tokens)}
