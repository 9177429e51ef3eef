"""Draws tokens: llama.cpp's sampler chain, in llama.cpp's usual order, under a constraint."""

from __future__ import annotations

import ctypes
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge_conflayers.engine import binding
from edge_conflayers.engine.constraints import Constraint, Kind, check_constraint, make_constraint
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.logits_hook import LogitsHook, LogitsWatcher
from edge_conflayers.engine.native import llama
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.limits import MOST_INT32, check_number

RANDOM_SEEDS = (-1, 2**32 - 1)
"""Ask for a random seed; to llama.cpp both are LLAMA_DEFAULT_SEED."""

# llama.cpp divides logits by the temperature; below this they could overflow.
_LEAST_TEMPERATURE = 1e-3
# The penalties keep a buffer of as many tokens.
_MOST_LAST_N = 2**20
_MIROSTAT_TOKENS = 100  # that it looks at to estimate its parameters, as in the paper


@dataclass(frozen=True)
class SamplerSettings:
    """How tokens are drawn; names and meanings are llama.cpp's.

    Attributes:
        temperature: 0 takes the most likely token that penalties and filters leave; of the filters,
            only typical_p and XTC can make that another one.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the most likely tokens whose probabilities add up to this.
        min_p: drop tokens less likely than this share of the most likely one.
        typical_p: keep the tokens whose surprise is closest to the expected one, whose
            probabilities add up to this (arXiv 2202.00666); 1 keeps all.
        top_n_sigma: drop tokens whose logits are more than so many standard deviations below the
            highest (arXiv 2411.07641); 0 or less keeps all.
        xtc_probability: chance of dropping, at a token, all but the least likely of the tokens that
            are at least as likely as xtc_threshold; 0 never does.
        xtc_threshold: above 0.5 nothing is dropped.
        seed: seed of the random numbers; the same seed gives the same text. -1 and 4294967295 draw
            one at random, which the attribute then holds.
        repeat_penalty: divides the logits of recent tokens; 1 does nothing.
        repeat_last_n: how many recent tokens the penalties look at; 0 for none, -1 for as many as
            the model was trained for.
        frequency_penalty: subtracted from a recent token's logit for each time it occurred.
        presence_penalty: subtracted from a recent token's logit once.
        penalize_prompt: whether the prompt's tokens count as recent ones.
        mirostat: 1 or 2 draws by that version of Mirostat (arXiv 2007.14966) in place of the other
            filters; 0 does not. Not at temperature 0.
        mirostat_tau: the surprise of a token that it aims at.
        mirostat_eta: how fast it corrects itself.
        dry_multiplier: DRY's penalty on a token that would go on with a repeated sequence of n
            tokens is dry_multiplier * dry_base ** (n - dry_allowed_length); 0 is none.
        dry_base: 1 or more; below that there is no penalty.
        dry_allowed_length: the longest sequence that may be repeated freely.
        dry_penalty_last_n: recent tokens that DRY looks at, as repeat_last_n.
        dry_sequence_breakers: texts that DRY's sequences end at.
        grammar: GBNF that the text must follow, or, after "%llguidance", llguidance's Lark.
        json_schema: JSON schema that the text must follow.
        regex: regular expression that the whole text must match, in the syntax of Rust's regex.
        logit_bias: added to single tokens' logits; minus infinity bans a token.

    Raises:
        BadInput: a number out of range, more than one of grammar, json_schema and regex, or one
            that cannot be enforced.
    """

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    seed: int = 0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalize_prompt: bool = True
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: Sequence[str] = ("\n", ":", '"', "*")
    grammar: str | None = None
    json_schema: str | None = None
    regex: str | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.temperature != 0.0:
            check_number(
                "temperature (--temp)", self.temperature, _LEAST_TEMPERATURE, 1e3, or_zero=True
            )
        check_number("top-k", self.top_k, 0, MOST_INT32, whole=True)
        check_number("top-p", self.top_p, 0.0, 1.0)
        check_number("min-p", self.min_p, 0.0, 1.0)
        check_number("typical", self.typical_p, 0.0, 1.0)
        check_number("top-n-sigma", self.top_n_sigma, -1.0, 100.0)
        check_number("xtc-probability", self.xtc_probability, 0.0, 1.0)
        check_number("xtc-threshold", self.xtc_threshold, 0.0, 1.0)
        check_number("seed", self.seed, -1, 2**32 - 1, whole=True)
        check_number("repeat-penalty", self.repeat_penalty, 0.01, 100.0)
        check_number("repeat-last-n", self.repeat_last_n, -1, _MOST_LAST_N, whole=True)
        check_number("frequency-penalty", self.frequency_penalty, -100.0, 100.0)
        check_number("presence-penalty", self.presence_penalty, -100.0, 100.0)
        check_number("mirostat", self.mirostat, 0, 2, whole=True)
        check_number("mirostat-tau", self.mirostat_tau, 0.0, 100.0)
        check_number("mirostat-eta", self.mirostat_eta, 0.0, 1.0)
        check_number("dry-multiplier", self.dry_multiplier, 0.0, 100.0)
        check_number("dry-base", self.dry_base, 0.0, 100.0)
        check_number("dry-allowed-length", self.dry_allowed_length, 0, MOST_INT32, whole=True)
        check_number("dry-penalty-last-n", self.dry_penalty_last_n, -1, _MOST_LAST_N, whole=True)
        for bias in self.logit_bias.values():
            if bias != -math.inf:
                check_number("a logit bias", bias, -1e6, 1e6)
        if self.seed in RANDOM_SEEDS:
            object.__setattr__(self, "seed", random.SystemRandom().randrange(2**32 - 1))
        if len(self._constraints) > 1:
            names = " and ".join(kind for kind, _ in self._constraints)
            raise BadInput(f"a text cannot be made to follow a {names} at once; choose one")
        if self.constraint is not None:
            check_constraint(*self.constraint)

    @property
    def _constraints(self) -> list[tuple[Kind, str]]:
        given: tuple[tuple[Kind, str | None], ...] = (
            ("grammar", self.grammar),
            ("JSON schema", self.json_schema),
            ("regular expression", self.regex),
        )
        return [(kind, text) for kind, text in given if text is not None]

    @property
    def constraint(self) -> tuple[Kind, str] | None:
        """What the text must follow, if anything: its kind and its source."""
        return self._constraints[0] if self._constraints else None

    @property
    def penalizes(self) -> bool:
        """Whether a token's chance depends on the tokens before it."""
        return (
            self.repeat_penalty != 1.0
            or self.frequency_penalty != 0.0
            or self.presence_penalty != 0.0
            or self.dry_multiplier != 0.0
        )

    @property
    def drops_most_likely(self) -> bool:
        """Whether a filter may drop the most likely token."""
        return self.typical_p < 1.0 or self.xtc_probability > 0.0

    @property
    def is_argmax(self) -> bool:
        """Whether each token is the most likely by its logits alone, of those allowed."""
        changed = self.penalizes or self.drops_most_likely or bool(self.logit_bias)
        return self.temperature == 0.0 and not changed


class KeepsLogits(Protocol):
    """Keeps the logits of its last step (``TextSession``)."""

    def argmax(self, index: int) -> int: ...

    def draw(self, index: int, samplers: binding.Samplers) -> int: ...


class Sampler:
    """Draws the tokens of one text, in order; the same logits in the same order give the same
    tokens.

    Args:
        watchers: see the logits of each draw, one after the other, before anything changes them.

    Raises:
        BadInput: a constraint that cannot be enforced, or a bias for a token that the model does
            not have.
    """

    def __init__(
        self,
        model: LanguageModel,
        settings: SamplerSettings,
        watchers: Sequence[LogitsWatcher] = (),
    ) -> None:
        self.model = model
        self.settings = settings
        self._hooks = [LogitsHook(watcher) for watcher in watchers]
        self._native: binding.Samplers | None = None
        self._constraint: Constraint | None = None
        self._check_bias()
        self._chain: Any = self._make_chain()
        by_logits_alone = settings.is_argmax and not self._hooks
        self._argmax_first = by_logits_alone and settings.constraint is not None
        samplers = binding.Samplers(
            None if by_logits_alone and settings.constraint is None else self._chain
        )
        for hook in self._hooks:
            hook.samplers = samplers
        if settings.constraint is not None:
            try:
                self._constraint = make_constraint(model, samplers, *settings.constraint)
            except BaseException:
                self.close()
                raise
        if self._constraint is not None:
            samplers.grammar = self._constraint.handle
        self._native = samplers

    @property
    def native(self) -> binding.Samplers:
        """The handle for library calls that draw.

        Raises:
            EdgeConflayersError: the sampler is closed.
            BaseException: what has ended the constraint, such as an interrupt.
        """
        if self._native is None:
            raise EdgeConflayersError("the sampler is closed; make a new one")
        self._native.check()
        return self._native

    def read(self, prompt: Iterable[int]) -> None:
        """Shows the prompt to the penalties, as llama.cpp does."""
        if self.settings.penalizes and self.settings.penalize_prompt:
            for hook in self._hooks:
                hook.reading = True
            for token in prompt:
                llama.llama_sampler_accept(self._chain, token)
            for hook in self._hooks:
                hook.reading = False

    def sample(self, session: KeepsLogits, index: int) -> int:
        """Draws the next token of the text.

        Args:
            session: its last step holds the logits.
            index: which of the step's kept outputs; negative ones count from the end.

        Raises:
            BadInput: the constraint allows no token.
        """
        samplers = self.native
        if self._constraint is not None and self._argmax_first:
            token = session.argmax(index)
            if self._constraint.takes(token):
                return token
        return session.draw(index, samplers)

    def _make_chain(self) -> Any:
        settings = self.settings
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())

        def add(link: Any) -> None:
            llama.llama_sampler_chain_add(chain, link)

        for hook in self._hooks:
            add(hook.handle)
        if settings.logit_bias:
            add(self._bias())
        if settings.penalizes:
            add(
                llama.llama_sampler_init_penalties(
                    self.model.n_vocab,
                    self._last_n(settings.repeat_last_n),
                    settings.repeat_penalty,
                    settings.frequency_penalty,
                    settings.presence_penalty,
                )
            )
            add(self._dry())
        if settings.temperature > 0.0 and settings.mirostat:
            add(llama.llama_sampler_init_temp(settings.temperature))
            add(self._mirostat())
            return chain
        if settings.temperature > 0.0 or settings.drops_most_likely:
            add(llama.llama_sampler_init_top_n_sigma(settings.top_n_sigma))
            add(llama.llama_sampler_init_top_k(settings.top_k))
            add(llama.llama_sampler_init_typical(settings.typical_p, 1))
            add(llama.llama_sampler_init_top_p(settings.top_p, 1))
            add(llama.llama_sampler_init_min_p(settings.min_p, 1))
            probability, threshold = settings.xtc_probability, settings.xtc_threshold
            add(llama.llama_sampler_init_xtc(probability, threshold, 1, settings.seed))
        if settings.temperature == 0.0:
            add(llama.llama_sampler_init_greedy())
            return chain
        add(llama.llama_sampler_init_temp(settings.temperature))
        add(llama.llama_sampler_init_dist(settings.seed))
        return chain

    def _mirostat(self) -> Any:
        settings = self.settings
        seed, tau, eta = settings.seed, settings.mirostat_tau, settings.mirostat_eta
        if settings.mirostat == 2:
            return llama.llama_sampler_init_mirostat_v2(seed, tau, eta)
        return llama.llama_sampler_init_mirostat(
            self.model.n_vocab, seed, tau, eta, _MIROSTAT_TOKENS
        )

    def _dry(self) -> Any:
        settings = self.settings
        breakers = [each.encode() for each in settings.dry_sequence_breakers]
        return llama.llama_sampler_init_dry(
            self.model.vocab,
            settings.dry_multiplier,
            settings.dry_base,
            settings.dry_allowed_length,
            self._last_n(settings.dry_penalty_last_n),
            (ctypes.c_char_p * len(breakers))(*breakers),
            len(breakers),
        )

    def _last_n(self, n: int) -> int:
        """As llama.cpp's programs do; its library takes no -1."""
        return n if n >= 0 else min(self.model.n_ctx_train, _MOST_LAST_N)

    def _check_bias(self) -> None:
        n_vocab, bias = self.model.n_vocab, self.settings.logit_bias
        for token in bias:
            if not 0 <= token < n_vocab:
                raise BadInput(f"there is no token {token} to bias; the model has {n_vocab}")
        if sum(value == -math.inf for value in bias.values()) == n_vocab:
            raise BadInput("every token is banned by logit biases; leave one")

    def _bias(self) -> Any:
        pairs = [llama.llama_logit_bias(t, b) for t, b in self.settings.logit_bias.items()]
        array = (llama.llama_logit_bias * len(pairs))(*pairs)
        return llama.llama_sampler_init_logit_bias(self.model.n_vocab, len(pairs), array)

    def close(self) -> None:
        """Frees it; may be called again."""
        self._native = None
        if self._constraint is not None:
            self._constraint.close()
        if self._chain is not None:
            llama.llama_sampler_free(self._chain)
            self._chain = None
