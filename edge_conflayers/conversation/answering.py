"""The next answer of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from edge_conflayers.chat import Message, TemplateOptions, chat_tokens
from edge_conflayers.completions.request import Piece, TextRequest
from edge_conflayers.completions.writing import write
from edge_conflayers.errors import BadInput
from edge_conflayers.text_generator import TextGenerator


class ConversationFull(BadInput):
    """The conversation does not fit in the context."""


def answer(
    generator: TextGenerator,
    messages: Sequence[Message],
    request: TextRequest,
    *,
    n_ctx: int,
    template: TemplateOptions,
    on_prompt: Callable[[int], None] = lambda tokens: None,
) -> Generator[Piece, None, None]:
    """Yields what each token adds to the answer, and last why it ends.

    What the cache holds of the messages is not read again (``TextGenerator``'s ``exact_reuse``).

    Args:
        request: everything but the prompt, which is replaced.
        n_ctx: tokens of the context.
        on_prompt: called with the number of the prompt's tokens before it is read.

    Raises:
        ConversationFull: the messages do not fit.
        BadInput: as ``chat_tokens`` and ``write`` do.
    """
    prompt = chat_tokens(generator.model, messages, template)
    if len(prompt) > n_ctx:
        raise ConversationFull(
            f"the conversation has {len(prompt)} tokens and the context holds {n_ctx}"
        )
    on_prompt(len(prompt))
    yield from write(generator, replace(request, prompt=prompt))
