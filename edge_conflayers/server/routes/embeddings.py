"""Embeddings."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from edge_conflayers.errors import BadInput
from edge_conflayers.server.bodies import EmbeddingBody
from edge_conflayers.server.serving import Service

router = APIRouter()


@router.post("/v1/embeddings")
async def embeddings(body: EmbeddingBody, request: Request) -> dict[str, Any]:
    """Embeds texts."""
    service: Service = request.app.state.service
    model = service.model(body.model)
    texts = _texts(body)
    model.admit()
    try:
        vectors, tokens = await run_in_threadpool(model.embeddings.embed, texts)
    finally:
        model.release()
    return {
        "object": "list",
        "model": model.name,
        "data": [
            {"object": "embedding", "index": i, "embedding": _encoded(vector, body)}
            for i, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _texts(body: EmbeddingBody) -> list[str]:
    if body.dimensions is not None:
        raise BadInput("embeddings are as long as the model makes them; leave out dimensions")
    if body.encoding_format not in (None, "float", "base64"):
        raise BadInput(
            f"encoding_format is {body.encoding_format!r}; choose from 'float' and 'base64'"
        )
    texts = [body.input] if isinstance(body.input, str) else body.input
    found = [each for each in texts if isinstance(each, str)]
    if not found or len(found) < len(texts):
        raise BadInput(
            "input is a text or a list of texts, not of tokens; give at least one"
            " (LangChain: check_embedding_ctx_length=False)"
        )
    return found


def _encoded(vector: list[float], body: EmbeddingBody) -> list[float] | str:
    if body.encoding_format != "base64":
        return vector
    return base64.b64encode(np.array(vector, "<f4").tobytes()).decode("ascii")
