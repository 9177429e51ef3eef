"""Decoding by upstream's own library, in a process of its own: plainly, or with the prompt lookup
that llama-cpp-python offers.

``python -m edge_conflayers.bench.upstream``, with EDGE_CONFLAYERS_LIB naming the unpatched build.
Reads JSON requests from standard input, one a line, and answers each with one line: first ``load``,
then any number of ``generate``. A request that fails is answered ``{"error", "exit_code"}``. It
calls functions of llama.h only, and its loop holds nothing but drafts, steps and the sampler.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine import binding, native
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.model_options import ModelOptions
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import CachedText, Outputs
from edge_conflayers.engine.session.checks import check_step
from edge_conflayers.errors import BadInput, EdgeConflayersError

_LOOKUP_TOKENS = 2  # what llama-cpp-python's documentation recommends for CPUs

Lookup = Callable[[npt.NDArray[np.intc]], npt.NDArray[np.intc]]
"""Proposes tokens to follow a text."""


def prompt_lookup() -> Lookup:
    """llama-cpp-python's ``LlamaPromptLookupDecoding``."""
    lookup: Lookup = native.binding_module("llama_speculative").LlamaPromptLookupDecoding(
        num_pred_tokens=_LOOKUP_TOKENS
    )
    return lookup


class UpstreamSession(CachedText):
    """A session of the same settings whose steps are ``llama_decode``; it has no masks."""

    def step(self, tokens: Sequence[int], *, outputs: Outputs = "last") -> None:
        """See ``CachedText.step``; the last token's logits are always kept."""
        check_step(self, len(tokens), outputs)
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for i, token in enumerate(tokens):
                batch.token[i], batch.pos[i] = token, len(self) + i
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
                batch.logits[i] = outputs == "all" or i == len(tokens) - 1
            status = llama.llama_decode(self.handle, batch)
        finally:
            llama.llama_batch_free(batch)
        if status != 0:
            raise EdgeConflayersError(f"upstream's llama_decode failed with code {status}")
        self.tokens.extend(tokens)

    def read(
        self, tokens: Sequence[int], *, before_batch: Callable[[], None] = lambda: None
    ) -> None:
        """See ``CachedText.read``."""
        check_step(self, len(tokens), "last")
        for begin in range(0, len(tokens), self.batch):
            before_batch()
            self.step(tokens[begin : begin + self.batch])

    def argmax(self, index: int) -> int:
        """See ``CachedText.argmax``."""
        return int(self.logits(index).argmax())

    def draw(self, index: int, samplers: binding.Samplers) -> int:
        """See ``CachedText.draw``; under no constraint."""
        if not samplers.chain:
            return self.argmax(index)
        return int(llama.llama_sampler_sample(samplers.chain, self.handle, index))


def decode(
    session: CachedText,
    prompt: Sequence[int],
    sampler: Sampler,
    max_tokens: int,
    lookup: Lookup | None = None,
) -> tuple[list[int], Stats]:
    """Writes a text, which ends where ``speculate.generate`` ends it."""
    model, stats = session.model, Stats(prompt_tokens=len(prompt))
    begun = time.perf_counter()
    session.read(prompt)
    sampler.read(prompt)
    started = time.perf_counter()
    stats.prompt_seconds = started - begun
    written = [sampler.sample(session, -1)]

    def ended() -> bool:
        return model.ends_text(written[-1]) or len(written) >= max_tokens

    while not ended() and session.room > 0:
        draft: list[int] = []
        before = time.perf_counter()
        if lookup is not None:
            most = min(session.room - 1, max_tokens - len(written) - 1)
            text = np.array([*session.tokens, written[-1]], np.intc)
            draft = lookup(text)[: max(most, 0)].tolist()
        drafted = time.perf_counter()
        session.step([written[-1], *draft], outputs="all")
        verified = time.perf_counter()
        stats.draft_seconds += drafted - before
        stats.verify_seconds += verified - drafted
        stats.add_draft(Draft(tuple(draft)))
        for i, expected in enumerate([*draft, None]):
            written.append(sampler.sample(session, i))
            if written[-1] != expected:
                break
            stats.add_accepted(i)
            if ended():
                break
        session.rollback(len(prompt) + len(written) - 1)
    stats.seconds = time.perf_counter() - started
    stats.tokens = len(written)
    if model.ends_text(written[-1]):
        stats.finish_reason = "end"
    else:
        stats.finish_reason = "length" if len(written) >= max_tokens else "context"
    return written, stats


class Worker:
    """Answers requests; holds the model from ``load`` on."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._session: dict[str, Any] = {}
        self._sampling = SamplerSettings()
        self._lookup: Lookup | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carries out one request.

        Raises:
            BadInput, EdgeConflayersError: as the model, session or sampler does.
        """
        if request["do"] == "load":
            return self._load(request)
        return self._generate(request["prompt"], request["max_tokens"])

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        if binding.PATCHED:
            library = os.environ.get(native.LIBRARY_VARIABLE, "the package's own folder")
            raise BadInput(
                f"the library in {library} is not upstream's; build it with `make upstream`"
            )
        self._model = Model(
            Path(request["model"]),
            gpu_layers=request["gpu_layers"],
            options=ModelOptions.from_json(request["options"]),
        )
        self._session = {"n_ctx": request["n_ctx"], "threads": request["threads"]}
        sampling = request["sampling"]
        bias = {int(token): each for token, each in sampling["logit_bias"].items()}
        self._sampling = SamplerSettings(**{**sampling, "logit_bias": bias})
        if self._sampling.constraint is not None:
            raise BadInput("upstream's texts cannot be drawn by a grammar here; leave it out")
        self._lookup = prompt_lookup() if request["lookup"] else None
        return {"loaded": self._model.description}

    def _generate(self, prompt: list[int], max_tokens: int) -> dict[str, Any]:
        assert self._model is not None, "load comes first"
        with (
            UpstreamSession(self._model, **self._session) as session,
            closing(Sampler(self._model, self._sampling)) as sampler,
        ):
            written, stats = decode(session, prompt, sampler, max_tokens, self._lookup)
        return {"tokens": written, "stats": asdict(stats)}


def main() -> None:
    """Serves requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except EdgeConflayersError as error:
            answer = {"error": str(error), "exit_code": error.exit_code}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
