"""Writes the text that follows a prompt, as the OpenAI API returns it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_conflayers.completions import openai
from edge_conflayers.completions.answers import Write
from edge_conflayers.completions.openai import Header, LogprobsTable, Response
from edge_conflayers.completions.request import TextRequest
from edge_conflayers.engine.language_model import LanguageModel


@dataclass(frozen=True)
class Completion:
    """A completion that is asked for.

    Attributes:
        text: the prompt, if it is given as a text.
        echo: whether the prompt is part of what is returned.
        stream: whether it is returned piece by piece.
        threads: CPU threads.
    """

    model: LanguageModel
    request: TextRequest
    header: Header
    text: str | None
    echo: bool
    stream: bool
    threads: int

    def responses(self, write: Write) -> Iterator[Response]:
        """What is returned: a dictionary for each piece, or one."""
        model, request, header = self.model, self.request, self.header
        before = self._before if self.echo else ""
        table = None
        if request.logprobs is not None:
            table = LogprobsTable(model, 0 if self.echo else len(self.text or ""))
            if self.echo:
                table.add_prompt(
                    request.prompt,
                    request.logprobs,
                    self.threads,
                    as_text=self.text is not None,
                )
        if not self.stream:
            yield openai.completion(
                header,
                write(request),
                prompt_tokens=len(request.prompt),
                before=before,
                logprobs=table,
            )
            return
        if before:
            columns = None if table is None else {k: list(v) for k, v in table.columns.items()}
            yield header.of_text(before, columns)
        yield from openai.completion_chunks(header, write(request), table)

    @property
    def _before(self) -> str:
        return self.model.text(self.request.prompt) if self.text is None else self.text
