"""Texts from Python: load a model, generate a text, or stream it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from edge_conflayers.chat import chat_tokens
from edge_conflayers.completions.request import Piece, TextRequest
from edge_conflayers.completions.writing import write
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.errors import BadInput
from edge_conflayers.hub.models import resolve
from edge_conflayers.text_generator import TextGenerator

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""A text as it is, tokens, or messages for the model's chat template."""


def load(
    path_or_name: str | Path, *, progress: Callable[..., None] | None = None, **options: Any
) -> TextGenerator:
    """Loads a model, which stays loaded until it is closed, best by a ``with`` block.

    Args:
        path_or_name: what the command line takes for MODEL: a .gguf file, a name of `models list`,
            org/repo or org/repo:QUANT of Hugging Face, a URL, or a folder that `export` wrote. It
            is pulled if it has to be.
        progress: hears how far that is (``hub.progress``).
        options: as for ``TextGenerator``: ``method``, ``n_ctx``, ``threads``, ``gpu_layers``,
            ``kernels``, ``options`` and so on.

    Raises:
        BadInput: it means no model, or one that cannot be loaded; or an option that cannot be.
        EdgeConflayersError: it cannot be pulled.
    """
    return TextGenerator(resolve(str(path_or_name), progress), **options)


def stream_generate(
    model: TextGenerator,
    prompt: Prompt,
    *,
    max_tokens: int | None = 256,
    stop: str | Sequence[str] = (),
    logprobs: int | None = None,
    sampling: SamplerSettings | None = None,
    **settings: Any,
) -> Generator[Piece, None, None]:
    """Yields what each token adds to a text, as soon as it is certain, and last why it ends.

    Args:
        model: what ``load`` returns.
        prompt: a text, which is taken as it is; messages (``{"role", "content"}``), which go
            through the model's chat template; or tokens.
        max_tokens: None for as many as fit in the context.
        stop: strings that end the text, which does not hold them.
        logprobs: how many of the likeliest tokens to tell at each place; None for no logprobs.
        sampling: how tokens are drawn; greedily if not given.
        settings: fields of ``SamplerSettings``, instead: ``temperature``, ``seed``, ...

    Raises:
        BadInput: a prompt or settings that cannot be used.
    """
    if sampling is not None and settings:
        raise BadInput(f"give sampling or {', '.join(settings)}, not both")
    unknown = settings.keys() - SamplerSettings.__dataclass_fields__.keys()
    if unknown:
        raise BadInput(
            f"there is no setting {min(unknown)!r}; choose from"
            f" {', '.join(SamplerSettings.__dataclass_fields__)}"
        )
    request = TextRequest(
        _tokens(model.model, prompt),
        sampling or SamplerSettings(**settings),
        max_tokens=max_tokens,
        stop=(stop,) if isinstance(stop, str) else stop,
        logprobs=logprobs,
    )
    return write(model, request)


def generate(model: TextGenerator, prompt: Prompt, **options: Any) -> str:
    """The text that the model writes. Arguments and errors are those of ``stream_generate``."""
    with closing(stream_generate(model, prompt, **options)) as pieces:
        return "".join(piece.text for piece in pieces)


def _tokens(model: LanguageModel, prompt: Prompt) -> Sequence[int]:
    if isinstance(prompt, str):
        return model.tokenize(prompt)
    if all(isinstance(each, int) for each in prompt):
        return prompt  # type: ignore[return-value]
    return chat_tokens(model, prompt)  # type: ignore[arg-type]
