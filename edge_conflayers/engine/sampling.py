"""The user's sampler: llama.cpp's own chain, in llama.cpp's usual order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_conflayers.engine import binding
from edge_conflayers.engine.binding import llama
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import CachedText
from edge_conflayers.errors import BadInput, EdgeConflayersError

# The converter's strings may hold control characters, which JSON (RFC 8259, section 7) forbids.
_CONVERTERS_CHAR = r'char ::= [^"\\] |'
_JSON_CHAR = r'char ::= [^"\\\x7F\x00-\x1F] |'


@dataclass(frozen=True)
class SamplerSettings:
    """What is asked of sampling; names and meanings are llama.cpp's.

    Attributes:
        temperature: 0 takes the most likely token each time; the other filters do nothing then.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the most likely tokens that reach this probability together.
        min_p: drop tokens less likely than this share of the most likely one.
        seed: of the random numbers; the same seed gives the same text.
        repeat_penalty: divides the logits of recent tokens; 1 does nothing.
        repeat_last_n: how many recent tokens the penalties look at; 0 for none, -1 for as many as
            the model was trained for.
        frequency_penalty, presence_penalty: taken off the logits of recent tokens.
        grammar: GBNF that the text must follow.
        logit_bias: added to single tokens' logits.
    """

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int = 0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    grammar: str | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("temperature", self.temperature, 0.0, float("inf")),
            ("top-k", self.top_k, 0, float("inf")),
            ("top-p", self.top_p, 0.0, 1.0),
            ("min-p", self.min_p, 0.0, 1.0),
            ("seed", self.seed, 0, 2**32 - 1),
            ("repeat-last-n", self.repeat_last_n, -1, float("inf")),
        ):
            if not low <= value <= high:
                raise BadInput(f"{name} is {value}; it must be from {low:g} to {high:g}")
        if self.repeat_penalty <= 0:
            raise BadInput(f"repeat-penalty is {self.repeat_penalty}; it must be above 0")

    @property
    def penalizes(self) -> bool:
        return (
            self.repeat_penalty != 1.0
            or self.frequency_penalty != 0.0
            or self.presence_penalty != 0.0
        )

    @property
    def is_argmax(self) -> bool:
        """Whether each token depends on its logits alone."""
        return (
            self.temperature == 0.0
            and not self.penalizes
            and self.grammar is None
            and not self.logit_bias
        )


def json_schema_grammar(schema: str) -> str:
    """A grammar for texts that follow a JSON schema, by llama-cpp-python's converter, which does
    not know the limits of numbers (``minimum`` and its kin): they are not kept.

    Raises:
        BadInput: not a JSON schema that can be turned into a grammar.
    """
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        grammar = str(json_schema_to_gbnf(schema))
    except Exception as error:  # the converter raises whatever its walk meets
        why = " ".join(str(error).split())
        raise BadInput(f"the JSON schema cannot be used: {why}; check it") from error
    return grammar.replace(_CONVERTERS_CHAR, _JSON_CHAR)


class Sampler:
    """Draws the tokens of one text, in order; the same logits in the same order give the same
    tokens.

    Raises:
        BadInput: a grammar that does not parse, a bias for a token that the model does not have.
    """

    def __init__(self, model: Model, settings: SamplerSettings) -> None:
        self.model = model
        self.settings = settings
        self._native: binding.Samplers | None = None
        self._grammar: Any = None
        self._chain: Any = self._make_chain()
        if settings.grammar is not None:
            if settings.grammar.strip():  # llama.cpp takes an empty grammar for none
                self._grammar = llama.llama_sampler_init_grammar(
                    model.vocab, settings.grammar.encode("utf-8"), b"root"
                )
            if not self._grammar:
                self.close()
                raise BadInput("the grammar does not parse; it must be GBNF with a rule named root")
        self._native = binding.Samplers(None if settings.is_argmax else self._chain, self._grammar)

    @property
    def native(self) -> binding.Samplers:
        """For the session's functions that draw.

        Raises:
            EdgeConflayersError: the sampler is closed.
        """
        if self._native is None:
            raise EdgeConflayersError("the sampler is closed; make a new one")
        return self._native

    def read(self, prompt: Iterable[int]) -> None:
        """Shows the prompt to the penalties, as llama.cpp does."""
        if self.settings.penalizes:
            for token in prompt:
                llama.llama_sampler_accept(self._chain, token)

    def sample(self, session: CachedText, index: int) -> int:
        """Draws the next token of the text from one kept output of the session's last step.

        Raises:
            BadInput: the grammar allows no token at all.
        """
        return session.draw(index, self.native)

    def _make_chain(self) -> Any:
        settings = self.settings
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())

        def add(link: Any) -> None:
            llama.llama_sampler_chain_add(chain, link)

        if settings.logit_bias:
            add(self._bias())
        if settings.penalizes:
            # As llama.cpp's programs do; its library takes no -1.
            last_n = (
                settings.repeat_last_n if settings.repeat_last_n >= 0 else self.model.n_ctx_train
            )
            add(
                llama.llama_sampler_init_penalties(
                    self.model.n_vocab,
                    last_n,
                    settings.repeat_penalty,
                    settings.frequency_penalty,
                    settings.presence_penalty,
                )
            )
        if settings.temperature == 0.0:
            add(llama.llama_sampler_init_greedy())
            return chain
        add(llama.llama_sampler_init_top_k(settings.top_k))
        add(llama.llama_sampler_init_top_p(settings.top_p, 1))
        add(llama.llama_sampler_init_min_p(settings.min_p, 1))
        add(llama.llama_sampler_init_temp(settings.temperature))
        add(llama.llama_sampler_init_dist(settings.seed))
        return chain

    def _bias(self) -> Any:
        for token in self.settings.logit_bias:
            if not 0 <= token < self.model.n_vocab:
                raise BadInput(
                    f"there is no token {token} to bias; the model has {self.model.n_vocab}"
                )
        pairs = [llama.llama_logit_bias(t, b) for t, b in self.settings.logit_bias.items()]
        array = (llama.llama_logit_bias * len(pairs))(*pairs)
        return llama.llama_sampler_init_logit_bias(self.model.n_vocab, len(pairs), array)

    def close(self) -> None:
        self._native = None
        for name in ("_chain", "_grammar"):
            if getattr(self, name) is not None:
                llama.llama_sampler_free(getattr(self, name))
                setattr(self, name, None)
