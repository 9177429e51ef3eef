"""Writes texts with one model, and keeps what it learns from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_conflayers import machine
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.logits_hook import LogitsWatcher
from edge_conflayers.engine.model_options import ModelOptions
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import TextSession
from edge_conflayers.engine.session.kv_cache import context_for
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.learned import Learned
from edge_conflayers.limits import check_number
from edge_conflayers.methods import (
    Method,
    MethodOptions,
    check_draft_model,
    check_epsilon,
    make_method,
    uses_bridges,
    uses_exits,
    uses_head,
)
from edge_conflayers.methods.tuned import Auto
from edge_conflayers.next_state.head import NextStateHead
from edge_conflayers.onnx.opening import open_draft_model, open_model
from edge_conflayers.profiles import ProfileStore


class TextGenerator(Closing):
    """A model, the method that makes it fast, and what the method has learned about it.

    What earlier uses learned is loaded when the first text begins; what this one learns is saved by
    ``save`` and ``close``, also when a ``with`` block ends in an exception or Ctrl-C.

    Args:
        path: the .gguf file, or the folder that `export` wrote; or a model that is open, and stays
            so.
        method: a name of ``methods.METHODS``.
        n_ctx: tokens of the context, prompt and text; 0 for what the model was trained for; None
            for what each text needs, at least 4096.
        threads: CPU threads; None for the machine's physical cores.
        gpu_layers: layers on a GPU; -1 for all.
        kernels: the CPU kernels, as for ``Model``.
        provider: what runs an exported folder, of ``onnx.providers``; None for the CPU.
        draft_model: a second model's .gguf file or folder, for the methods that draft with one.
        epsilon: the accuracy that dssd calibrates its exits for; None for its own choice.
        options: adapters, positions and cache types of the model, as for ``Model``.
        exact_reuse: what the cache holds of a prompt is used again only as far as the text is then
            what a generator just opened would write. Otherwise all of it is, as llama.cpp does,
            which saves the time to read a conversation's last turns again; texts then depend on the
            texts before them by rounding, and on who drafts as little as ever.
        fresh: neither use nor keep what is learned, but for the exits that dssd cannot do without.
        profiles: where it is kept; None for the user's own.

    Raises:
        BadInput: a model that cannot be loaded, an unknown method, a draft model that the method
            needs and lacks or has no use for, exits that it needs and that are not taught.
    """

    def __init__(
        self,
        path: str | Path | LanguageModel,
        *,
        method: str = "auto",
        n_ctx: int | None = None,
        threads: int | None = None,
        gpu_layers: int = 0,
        kernels: KernelChoice | None = None,
        provider: str | None = None,
        draft_model: str | Path | None = None,
        epsilon: float | None = None,
        options: ModelOptions | None = None,
        exact_reuse: bool = True,
        fresh: bool = False,
        profiles: ProfileStore | None = None,
    ) -> None:
        self.method_name = method
        self.threads = machine.threads_to_use(threads)
        self._n_ctx = n_ctx
        self._exact_reuse = exact_reuse
        self._fresh = fresh
        self._session: TextSession | None = None
        self._text: Generator[int, None, None] | None = None  # the last one begun
        self._resumed = False  # whether the method goes on from what was learned
        self._closed = False
        self._arguments: dict[str, Any] = {
            "method": method,
            "n_ctx": n_ctx,
            "threads": threads,
            "draft_model": draft_model,
            "epsilon": epsilon,
            "exact_reuse": exact_reuse,
            "fresh": fresh,
            "profiles": profiles,
        }
        check_draft_model((method,), given=draft_model is not None)
        check_epsilon((method,), epsilon)
        with ExitStack() as stack:
            self.model = (
                path
                if isinstance(path, LanguageModel)
                else stack.enter_context(
                    open_model(
                        path,
                        gpu_layers=gpu_layers,
                        kernels=kernels,
                        provider=provider,
                        threads=self.threads,
                        options=options,
                    )
                )
            )
            self.learned = Learned(self.model, self.threads, profiles)
            second = (
                stack.enter_context(
                    open_draft_model(
                        draft_model,
                        self.model,
                        kernels=kernels,
                        provider=provider,
                        threads=self.threads,
                    )
                )
                if draft_model is not None
                else None
            )
            head = self.learned.load_head() if uses_head((method,)) and not fresh else None
            exits = self.learned.load_exits() if uses_exits((method,)) else None
            known = uses_bridges((method,)) and not fresh
            bridges = self.learned.load_bridges() if known else None
            self._options = MethodOptions(second, head, exits, epsilon, bridges)
            self._method = self._make(method, stack)
            self._open = stack.pop_all()

    def open(self, prompt_tokens: int, max_tokens: int | None) -> TextSession:
        """The session for a text, opened if there is none that it fits in.

        Where the model's steps over several tokens round differently than over one (some GPUs),
        drafts could change the text, and ``method_name`` becomes "plain"; the session's
        ``why_plain`` says so.

        Raises:
            BadInput: no memory for it, or the prompt does not fit.
            EdgeConflayersError: the generator is closed.
        """
        if self._closed:
            raise EdgeConflayersError("the text generator is closed; open another")
        wanted = context_for(self.model, prompt_tokens, max_tokens, self._n_ctx)
        if self._session is not None and self._n_ctx is None and self._session.n_ctx < wanted:
            self._session.close()
            self._session = None
        if self._session is None:
            self._session = self._open.enter_context(
                self.model.open_session(n_ctx=wanted, threads=self.threads)
            )
        if not self._resumed:
            if not self._session.verifies_drafts:
                self.method_name = "plain"
                self._method = self._make("plain", self._open)
            if not self._fresh:
                self.learned.resume(self._method)
            self._resumed = True
        return self._session

    def _make(self, name: str, stack: ExitStack) -> Method:
        method = make_method(name, self.model, self._options)
        stack.callback(method.close)
        return method

    def generate(
        self,
        prompt: Sequence[int],
        sampling: SamplerSettings | None = None,
        *,
        max_tokens: int | None = None,
        stats: Stats | None = None,
        watchers: Sequence[LogitsWatcher] = (),
        before_batch: Callable[[], None] = lambda: None,
    ) -> Generator[int, None, None]:
        """Yields the tokens that the model writes after a prompt, each as soon as it is certain.

        What the cache still holds of the prompt is not read again (``exact_reuse``).

        Args:
            prompt: at least one token (``model.tokenize``).
            sampling: how tokens are drawn; greedily if not given.
            max_tokens: at least 0; None for as many as fit in the context.
            stats: filled in as it goes; complete when the iteration ends, however it ends.
            watchers: see the logits of each draw, and may change them.
            before_batch: called before each batch of the prompt is read; what it raises ends that.

        Raises:
            BadInput: settings or a grammar that cannot be used, a prompt that does not fit, no
                memory for the context.
            EdgeConflayersError: another text was begun before this one ended.
        """
        if max_tokens is not None:
            check_number("max_tokens", max_tokens, 0, math.inf, whole=True)
        if self._text is not None:
            self._text.close()  # it would go on from this text
        session = self.open(len(prompt), max_tokens)
        with closing(Sampler(self.model, sampling or SamplerSettings(), watchers)) as sampler:
            self._method.prepare(session)
            kept = session.keep_prefix(prompt, exact=self._exact_reuse)
            self._text = text = generate(
                session,
                prompt,
                sampler,
                kept=kept,
                before_batch=before_batch,
                drafter=self._method.drafter,
                max_tokens=max_tokens,
                stats=stats,
            )
            with closing(text):
                yield from text
        if self._text is not text:
            raise EdgeConflayersError(
                "another text was begun before this one ended; write one after the other, or open"
                " a TextGenerator for each"
            )

    def another(self) -> TextGenerator:
        """A generator of the same kind over the same model, with a cache of its own; to be closed
        before this one."""
        return TextGenerator(self.model, **self._arguments)

    @property
    def head_pays(self) -> bool | None:
        """Whether asking a next-state head is worth its time here; None before the first text, and
        for a method that asks none."""
        return self._method.head_pays if isinstance(self._method, Auto) else None

    def use_head(self, head: NextStateHead) -> None:
        """Asks this next-state head from the next text on, if the method asks one."""
        if head is not self._options.next_state:
            self._options = replace(self._options, next_state=head)
            if isinstance(self._method, Auto):
                self._method.use_head(head)

    def session(self) -> TextSession:
        """The session that holds the last text, opened if there is none."""
        return self._session or self.open(0, 0)

    def held(self, prompt: Sequence[int]) -> int:
        """Tokens of a prompt's beginning that need not be read again."""
        if self._session is None:
            return 0
        return self._session.held_prefix(prompt, exact=self._exact_reuse)

    def save(self) -> None:
        """Keeps what was learned so far; a failure is logged in one line."""
        if self._resumed and not self._fresh:
            self.learned.keep(self._method)

    def close(self) -> None:
        """Keeps what was learned, and frees the models."""
        with self._open:
            self.save()
            self._resumed, self._closed = False, True
