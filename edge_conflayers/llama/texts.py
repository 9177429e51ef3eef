"""Texts, as ``llama_cpp.Llama`` returns them."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_conflayers.completions import openai
from edge_conflayers.completions.openai import Header, LogprobsTable
from edge_conflayers.completions.request import Piece, TextRequest
from edge_conflayers.completions.writing import write
from edge_conflayers.llama.errors import BadValue, as_value_errors
from edge_conflayers.llama.prompts import infill_tokens, prompt_tokens
from edge_conflayers.llama.sampling import (
    LogitsQueue,
    ProcessorWatcher,
    generation_settings,
    settings,
)
from edge_conflayers.llama.turns import Turns
from edge_conflayers.text_generator import TextGenerator

if TYPE_CHECKING:
    from llama_cpp.llama_types import CreateCompletionResponse

_DEFAULT_SEED = 2**32 - 1


class LlamaTexts:
    """The methods that write texts."""

    model_path: str
    last_n_tokens_size: int
    spm_infill: bool
    cache: Any
    _turns: Turns
    _seed: int
    _n_ctx: int

    @property
    def _generator(self) -> TextGenerator:
        raise NotImplementedError

    def set_seed(self, seed: int) -> None:
        """Sets the seed from which the next texts' are made."""
        self._seed = seed

    def set_cache(self, cache: Any) -> None:
        """Sets a store of states by their tokens (``LlamaRAMCache``, ``LlamaDiskCache``)."""
        self.cache = cache

    def create_completion(
        self,
        prompt: str | list[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: str | list[str] | None = None,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: Any = None,
        logits_processor: Any = None,
        grammar: Any = None,
        logit_bias: Mapping[Any, float] | None = None,
    ) -> CreateCompletionResponse | Iterator[CreateCompletionResponse]:
        """Writes the text that follows a prompt.

        Args:
            prompt: a text, which may name special tokens, or tokens.
            suffix: a text that follows; the text between is written, by models that can.
            max_tokens: None, 0 or less for as many as fit in the context.
            temperature: 0 for the most likely token each time.
            top_p, min_p, typical_p, top_k: filters, as for ``SamplerSettings``.
            logprobs: how many of the likeliest tokens to tell at each place.
            echo: whether the prompt is part of the text.
            stop: strings that end the text.
            frequency_penalty, presence_penalty, repeat_penalty: of the text's own last tokens.
            stream: return an iterator over pieces.
            seed: None for one that the model's seed gives.
            tfs_z: does nothing, as in llama-cpp-python.
            mirostat_mode, mirostat_tau, mirostat_eta: Mirostat, instead of the filters.
            model: name in what is returned.
            stopping_criteria: asked after each token, with all tokens and the last one's logits.
            logits_processor: change the logits before each draw.
            grammar: a ``LlamaGrammar``, or GBNF as text.
            logit_bias: by token.

        Raises:
            ValueError: arguments that cannot be used, or a prompt that fills the context.
        """
        with as_value_errors():
            generator = self._generator
            if suffix is None:
                tokens = prompt_tokens(generator.model, prompt)
            elif isinstance(prompt, str):
                tokens = infill_tokens(
                    generator.model, prompt, suffix, suffix_first=self.spm_infill
                )
            else:
                raise BadValue("a suffix needs a prompt that is text; give it as text")
            if echo and not isinstance(prompt, str):
                raise BadValue("tokens cannot be echoed; give the prompt as text")
            request = TextRequest(
                tokens,
                settings(
                    temperature=temperature,
                    top_k=top_k,
                    seed=self._text_seed(seed),
                    last_n=self.last_n_tokens_size,
                    mirostat_mode=mirostat_mode,
                    grammar=grammar,
                    logit_bias=logit_bias,
                    top_p=top_p,
                    min_p=min_p,
                    typical_p=typical_p,
                    frequency_penalty=frequency_penalty,
                    presence_penalty=presence_penalty,
                    repeat_penalty=repeat_penalty,
                    mirostat_tau=mirostat_tau,
                    mirostat_eta=mirostat_eta,
                ),
                max_tokens=self._room(len(tokens), max_tokens),
                stop=_strings(stop),
                logprobs=logprobs,
                **_callbacks(tokens, logits_processor, stopping_criteria),
                errors="ignore",
            )
        header = Header(model or self.model_path)
        table = None
        if logprobs is not None:
            table = LogprobsTable(generator.model, 0 if echo and not stream else len(prompt))
        if stream:
            return openai.completion_chunks(header, self._write(request), table)
        if table is not None and echo:
            table.add_prompt(tokens, logprobs or 0, generator.threads)
        before = str(prompt) if echo else ""
        return openai.completion(
            header, self._write(request), prompt_tokens=len(tokens), before=before, logprobs=table
        )

    __call__ = create_completion

    def generate(
        self,
        tokens: Sequence[int],
        *,
        stopping_criteria: Any = None,
        logits_processor: Any = None,
        **arguments: Any,
    ) -> Generator[int, Sequence[int] | None, None]:
        """Yields the tokens that follow others, until a token ends the text.

        Args:
            tokens: with ``reset=False``, after those in the cache.
            arguments: the sampling arguments of ``create_completion``.
        """
        if not arguments.pop("reset", True):
            tokens = [*self._generator.session().tokens, *tokens]
        with as_value_errors():
            sampling = generation_settings(
                arguments, seed=self._seed % 2**32, last_n=self.last_n_tokens_size
            )
            callbacks = _callbacks(tokens, logits_processor, stopping_criteria)
            request = TextRequest(
                tokens, sampling, max_tokens=self._room(len(tokens), None), **callbacks
            )
        for piece in self._write(request):
            if piece.token is not None and (yield piece.token) is not None:
                raise BadValue("generate() takes no tokens while it writes; call it anew with them")

    def _write(self, request: TextRequest) -> Iterator[Piece]:
        """Writes a text once no other thread writes one, and looks states up in the cache that was
        set, if one was."""
        with self._turns.take():
            yield from self._write_now(request)

    def _write_now(self, request: TextRequest) -> Iterator[Piece]:
        if self.cache is not None:
            self._look_up(request.prompt)
        text: list[int] = []
        with as_value_errors(), closing(write(self._generator, request)) as pieces:
            for piece in pieces:
                if piece.token is not None:
                    text.append(piece.token)
                yield piece
        if self.cache is not None:
            self.cache[[*request.prompt, *text]] = self.save_state()  # type: ignore[attr-defined]

    def _look_up(self, prompt: Sequence[int]) -> None:
        try:
            state = self.cache[list(prompt)]
        except KeyError:
            return
        if state.shared(prompt) > self._generator.held(prompt):
            self.load_state(state)  # type: ignore[attr-defined]

    def _text_seed(self, seed: int | None) -> int:
        """The seed of the next text, as llama-cpp-python chooses it."""
        self._seed = random.Random(self._seed).randint(0, 2**32) if seed is None else seed
        return self._seed % 2**32

    def _room(self, prompt: int, max_tokens: int | None) -> int:
        """Most tokens of a text."""
        if prompt >= self._n_ctx:
            raise BadValue(
                f"Requested tokens ({prompt}) exceed context window of {self._n_ctx}; shorten the"
                " prompt or give a larger n_ctx"
            )
        room = self._n_ctx - prompt
        return room if max_tokens is None or max_tokens <= 0 else min(max_tokens, room)


def _strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def _callbacks(prompt: Sequence[int], processors: Any, criteria: Any) -> dict[str, Any]:
    """The caller's own functions as fields of a request."""
    watchers: list[Any] = []
    if processors is not None:
        watchers.append(ProcessorWatcher(processors, prompt))
    if criteria is None:
        return {"watchers": watchers}
    queue = LogitsQueue()
    asked = [criteria] if callable(criteria) else list(criteria)

    def ends(text: Sequence[int]) -> bool:
        tokens, logits = np.array([*prompt, *text], np.intc), queue.next()
        return any(each(tokens, logits) for each in asked)

    return {"watchers": [queue, *watchers], "ends": ends}
