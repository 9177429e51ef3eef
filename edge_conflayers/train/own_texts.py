"""Texts that a model writes itself, to train it on: answers to the user's prompts and to prompts
that it makes up."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence

from edge_conflayers.chat import chat_tokens, opening_tokens
from edge_conflayers.engine.model import Model
from edge_conflayers.train.texts import TrainingText
from edge_conflayers.tune.parallel_texts import FinishedText, ParallelTexts, Request

_MAX_ANSWER = 192  # tokens; not tuned
_MAX_MADE_UP_PROMPT = 48  # tokens; not tuned


def own_texts(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    longest: int = 512,
    threads: int | None = None,
    seed: int = 0,
) -> Generator[TrainingText, None, None]:
    """Texts of a model, without an end: the user's prompts, answered over and over, in turn with
    prompts that the model makes up. A model without a chat template continues texts from nothing.

    Args:
        prompts: tokens of each; those longer than half of ``longest`` are left out.
        longest: most tokens of a text, prompt included.
        threads: CPU threads; None for the machine's physical cores.
        seed: of the sampling.

    Raises:
        BadInput: no memory for the texts.
    """
    with ParallelTexts(model, n_ctx=longest, threads=threads, seed=seed) as texts:
        author = _Author(texts, prompts)
        for each in texts.write(author.requests()):
            if isinstance(each, FinishedText) and (text := author.take(each)) is not None:
                yield text


class _Author:
    """Asks for texts, and turns prompts that the model has made up into requests."""

    def __init__(self, texts: ParallelTexts, prompts: Sequence[Sequence[int]]) -> None:
        self._model = texts.model
        self._prompts = [list(each) for each in prompts if texts.fits(each)]
        opening = opening_tokens(self._model)
        self._opening = opening if opening and texts.fits(opening) else None
        self._beginning = self._model.tokenize("") or self._model.tokenize("\n")
        self._made_up: deque[list[int]] = deque()
        self._making_up: set[Request] = set()

    def requests(self) -> Iterator[Request]:
        while True:
            for prompt in self._prompts:
                yield Request(prompt, _MAX_ANSWER)
                yield self._of_model()
            if not self._prompts:
                yield self._of_model()

    def _of_model(self) -> Request:
        if self._made_up:
            return Request(self._made_up.popleft(), _MAX_ANSWER)
        if self._opening is None:
            return Request(self._beginning, _MAX_ANSWER)
        request = Request(self._opening, _MAX_MADE_UP_PROMPT)
        self._making_up.add(request)
        return request

    def take(self, text: FinishedText) -> TrainingText | None:
        """A finished text to train on; None for a prompt, which is answered later."""
        if text.request not in self._making_up:
            prompt = list(text.request.prompt)
            return TrainingText([*prompt, *text.tokens], len(prompt)) if text.tokens else None
        self._making_up.remove(text.request)
        if content := self._model.text(text.tokens).strip():
            self._made_up.append(chat_tokens(self._model, [{"role": "user", "content": content}]))
        return None
