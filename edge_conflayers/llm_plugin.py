"""A plugin of Simon Willison's ``llm``: ``llm -m edge/smollm2-135m "Hello"``.

``llm`` finds it by its entry point. The models are those of ``models list``; one is loaded with the
first prompt, and stays loaded for the next ones of the same program.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import llm

from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.hub.registry import registry

if TYPE_CHECKING:
    from edge_conflayers.completions.request import Piece
    from edge_conflayers.text_generator import TextGenerator

_PREFIX = "edge/"


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Tells ``llm`` the models."""
    for name in registry():
        register(EdgeModel(name))


class EdgeModel(llm.Model):
    """A model of the registry.

    Args:
        name: its name there.
    """

    can_stream = True
    supports_schema = True

    class Options(llm.Options):
        """Names and meanings are those of ``SamplerSettings``."""

        temperature: float = 0.0
        top_k: int = 40
        top_p: float = 0.95
        min_p: float = 0.05
        repeat_penalty: float = 1.0
        seed: int = 0
        max_tokens: int | None = None

    def __init__(self, name: str) -> None:
        self.model_id = f"{_PREFIX}{name}"
        self._name = name

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: llm.Conversation | None,
    ) -> Iterator[str]:
        """Yields the answer's text as it comes.

        Raises:
            ModelError: it cannot be had, in one line.
        """
        try:
            with closing(_answer(self._name, prompt)) as pieces:
                for piece in pieces:
                    yield piece.text
                    stats = piece.stats
        except EdgeConflayersError as error:
            raise llm.ModelError(str(error)) from None
        response.set_usage(input=stats.prompt_tokens, output=stats.tokens)


def _answer(name: str, prompt: llm.Prompt) -> Generator[Piece, None, None]:
    from edge_conflayers.completions.chat import chat_request
    from edge_conflayers.completions.request import TextRequest
    from edge_conflayers.completions.writing import write
    from edge_conflayers.engine.sampling import SamplerSettings

    given = prompt.options.model_dump()
    max_tokens = given.pop("max_tokens")
    schema = prompt.schema
    generator = _loaded(name)
    request = chat_request(
        generator.model,
        _messages(prompt),
        TextRequest((), SamplerSettings(**given), max_tokens=max_tokens),
        response_format={"type": "json_object", "schema": schema} if schema else None,
    )
    return write(generator, request.text)


def _messages(prompt: llm.Prompt) -> list[dict[str, str]]:
    """The conversation up to the prompt, as the OpenAI API has it."""
    texts = (
        (each.role, "".join(getattr(part, "text", "") for part in each.parts))
        for each in prompt.messages
    )
    return [{"role": role, "content": text} for role, text in texts]


_open: dict[str, TextGenerator] = {}


def _loaded(name: str) -> TextGenerator:
    """The model, in place of the one that was loaded before."""
    from edge_conflayers.generating import load

    if name not in _open:
        _close()
        _open[name] = load(name)
    return _open[name]


@atexit.register
def _close() -> None:
    """Keeps what was learned, and frees the model."""
    while _open:
        _open.popitem()[1].close()
