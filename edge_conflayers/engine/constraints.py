"""What a text must follow: a JSON schema, a regular expression or a grammar.

Schemas, regular expressions and Lark grammars are enforced by llguidance, GBNF grammars by
llama.cpp. Either is a llama.cpp sampler, which is asked about each token drawn: if it forbids the
token, one is drawn again among those that it allows (llama.cpp's common_sampler_sample). So a
constraint costs little while the model follows it by itself, and drafts that break it are just not
accepted.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np

from edge_conflayers.engine import binding
from edge_conflayers.engine.gbnf import GBNF, check_size
from edge_conflayers.engine.json_schema import not_enforced, read_schema
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.vocabulary import Vocabulary
from edge_conflayers.errors import BadInput, EdgeConflayersError, one_line

Kind = Literal["JSON schema", "regular expression", "grammar"]

LARK_MARK = "%llguidance"
"""Grammars that begin with it are Lark, as in llama.cpp."""

# Whitespace between JSON tokens, as llama.cpp's converter has it. Without a bound a weak model
# writes spaces for ever.
_WHITESPACE = r" |\n{1,2}[ \t]{0,20}"
# Bytes. llguidance compiles by recursion, up to 8 KB of stack for each nested part when tried, and
# refuses schemas of more than some ten thousand parts (2026-11). Unused pages cost nothing.
_COMPILER_STACK = (512 if sys.maxsize > 2**32 else 64) * 2**20
# Grammar items that llguidance keeps for one position of a text. An optional property takes four:
# its default of 2,000 refuses objects of 500. Not tuned.
_MOST_ALTERNATIVES = 100_000

# With forcing, where only one string can follow, only its usual tokens are allowed, not every
# spelling of it.
_LARK_OPTIONS = LARK_MARK + ' {"no_forcing": true}'
_SCHEMA_OPTIONS: dict[str, Any] = {
    "lenient": False,
    "coerce_one_of": False,
    "whitespace_pattern": _WHITESPACE,
    # Not \u: a property's name could be written in two ways, and be taken for another.
    "json_allowed_escapes": 'nrbtf\\"',
}

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_FORBIDDEN = np.float32("-inf")


class Constraint(Protocol):
    """A constraint on one text, as a llama.cpp sampler."""

    handle: Any
    """llama.cpp's own pointer."""

    def takes(self, token: int) -> bool:
        """Goes on to a token, if that is allowed and known at little cost."""

    def close(self) -> None:
        """Frees it; may be called again."""


def make_constraint(
    model: Vocabulary, samplers: binding.Samplers, kind: Kind, text: str
) -> Constraint:
    """A constraint on one text.

    Args:
        samplers: whose ``error`` is set if something goes wrong while a token is drawn.

    Raises:
        BadInput: as ``check_constraint``; or the model cannot end a text.
    """
    if kind == "grammar" and not _is_lark(text):
        return GBNF(model, text)
    return _Guidance(model, samplers, kind, text)


def check_constraint(kind: Kind, text: str) -> None:
    """Refuses what cannot be enforced, as far as can be told without a model.

    Raises:
        BadInput: it does not parse, or what it asks for cannot be enforced.
    """
    if kind == "grammar" and not _is_lark(text):
        check_size(text)
        return
    from llguidance import LLMatcher

    grammar = _compiled(kind, text)
    failed, messages = _with_deep_stack(
        lambda: LLMatcher.validate_grammar_with_warnings(grammar, limits=_limits())
    )
    if failed:
        raise _refused(kind, messages[0])


def _is_lark(grammar: str) -> bool:
    return grammar.lstrip().startswith(LARK_MARK)


class _Guidance:
    """A constraint by llguidance, which llama.cpp calls back for as a sampler.

    Nothing can be raised through C: what goes wrong, or an interrupt that comes meanwhile, is kept
    as the samplers' ``error``, and no token is allowed from then on.
    """

    def __init__(
        self, model: Vocabulary, samplers: binding.Samplers, kind: Kind, text: str
    ) -> None:
        from llguidance import LLMatcher

        self.handle: Any = None
        self._samplers = samplers
        self._kind = kind
        grammar, tokenizer = _compiled(kind, text), _tokenizer(model)
        self._matcher = _with_deep_stack(
            lambda: LLMatcher(tokenizer, grammar, log_level=0, limits=_limits())
        )
        self._bits = np.zeros((model.n_vocab + 31) // 32, dtype=np.uint32)
        self._n_vocab = model.n_vocab
        self._ends = model.ends_text
        self._compute_mask()  # what is too complex often tells at the first token
        if self._matcher.is_error():
            raise _refused(kind, self._matcher.get_error())
        # llama.cpp keeps a pointer to these.
        self._interface = llama.llama_sampler_i(
            accept=llama.llama_sampler_i_accept(self._accept),
            apply=llama.llama_sampler_i_apply(self._apply),
        )
        self.handle = llama.llama_sampler_init(ctypes.byref(self._interface), None)

    def allows(self, token: int) -> bool:
        """Whether the text may go on with a token."""
        if self._ends(token):
            return bool(self._matcher.is_accepting())
        return bool(self._matcher.validate_tokens([token]) == 1)

    def takes(self, token: int) -> bool:
        if not self.allows(token):
            return False
        self._take(token)
        return True

    def allowed(self) -> Any:
        """Which tokens the text may go on with: bool [n_vocab]."""
        self._compute_mask()
        bits = np.unpackbits(self._bits.view(np.uint8), count=self._n_vocab, bitorder="little")
        return bits.view(np.bool_)

    def _compute_mask(self) -> None:
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)

    def _apply(self, _sampler: Any, pointer: Any) -> None:
        """llama_sampler_i.apply: forbids candidates, which are all tokens in order, or one."""
        try:
            candidates = pointer.contents
            if candidates.size == 1:
                one = candidates.data[0]
                if self._samplers.error is not None or not self.allows(one.id):
                    one.logit = _FORBIDDEN
            elif self._samplers.error is None:
                size = candidates.size * _CANDIDATE.itemsize
                memory = (ctypes.c_char * size).from_address(
                    ctypes.addressof(candidates.data.contents)
                )
                every = np.frombuffer(memory, dtype=_CANDIDATE)
                np.copyto(every["logit"], _FORBIDDEN, where=~self.allowed()[every["id"]])
            self._check()
        except BaseException as error:
            self._samplers.error = error
            if pointer.contents.size == 1:
                pointer.contents.data[0].logit = _FORBIDDEN

    def _accept(self, _sampler: Any, token: int) -> None:
        """llama_sampler_i.accept: the text goes on with a token."""
        try:
            self._take(token)
        except BaseException as error:
            self._samplers.error = error

    def _take(self, token: int) -> None:
        if not self._ends(token):
            self._matcher.consume_token(token)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            why = _reason(self._matcher.get_error())
            raise BadInput(f"the {self._kind} cannot be followed any further: {why}; simplify it")

    def close(self) -> None:
        if self.handle:
            llama.llama_sampler_free(self.handle)
            self.handle = None


def _compiled(kind: Kind, text: str) -> str:
    """llguidance's own form of a constraint."""
    from llguidance import LLMatcher, regex_to_lark

    if kind == "grammar":
        lark = text
    elif kind == "regular expression":
        lark = f"start: /{regex_to_lark(text)}/"
    else:
        lark = f"start: %json {json.dumps({**read_schema(text), 'x-guidance': _SCHEMA_OPTIONS})}"
    return str(LLMatcher.grammar_from_lark(f"{_LARK_OPTIONS}\n{lark}"))


def _limits() -> Any:
    from llguidance import LLParserLimits

    return LLParserLimits(max_items_in_row=_MOST_ALTERNATIVES, step_max_items=_MOST_ALTERNATIVES)


def _refused(kind: Kind, message: str) -> BadInput:
    """llguidance's message as ours."""
    if unknown := re.search(r"Unimplemented keys: (\[.*\])", message):
        return not_enforced(*(f"'{name}'" for name in json.loads(unknown[1])))
    if unknown := re.search(r"Unknown format: (\S+)", message):
        return not_enforced(f"the format '{unknown[1]}'")
    if bounds := re.search(r"Failed to generate regex for \w+ range: (.*)", message):
        numbers = ", ".join(re.findall(r"Some\(([^)]*)\)", bounds[1]))
        return not_enforced(f"numbers as bounds that are too large ({numbers})")
    if kind == "JSON schema" and "oneOf constraints are not supported" in message:
        return not_enforced("'oneOf' with alternatives that may hold at once")
    return BadInput(f"the {kind} cannot be used: {_reason(message)}; check it")


def _reason(message: str) -> str:
    """llguidance's message, without its state and its copy of the text."""
    if message.startswith("NoExtension"):
        return "no text can follow it"
    if "regex parse error" in message:
        message = "a pattern in it: " + message.rpartition("error: ")[2]
    message = re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", message)
    return one_line(message.partition("\n")[0])


def _with_deep_stack(work: Callable[[], Any]) -> Any:
    """Runs what recurses deeply in a thread with a large stack."""
    result: list[Any] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # also a panic in Rust
            raised.append(error)

    before = threading.stack_size(_COMPILER_STACK)
    try:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
    except RuntimeError:
        raise EdgeConflayersError("there is no memory to read the schema or grammar") from None
    finally:
        threading.stack_size(before)
    thread.join()
    if raised:
        raise BadInput(f"the constraint cannot be used: {one_line(raised[0])}; check it")
    return result[0]


_MARK = 0xFF
_tokenizers: weakref.WeakKeyDictionary[Vocabulary, Any] = weakref.WeakKeyDictionary()


def _tokenizer(model: Vocabulary) -> Any:
    """llguidance's view of a model's vocabulary; made once for a model (1 to 2 s with 150,000
    tokens).

    Raises:
        BadInput: the model cannot end a text.
    """
    if model not in _tokenizers:
        from llguidance import LLTokenizer, TokenizerWrapper

        _tokenizers[model] = LLTokenizer(
            TokenizerWrapper(_Vocabulary(model)), n_vocab=model.n_vocab, eos_token=_ends(model)
        )
    return _tokenizers[model]


def _ends(model: Vocabulary) -> list[int]:
    ends = [token for token in range(model.n_vocab) if model.ends_text(token)]
    if not ends:
        raise BadInput(f"{model.path} has no token that ends a text, which a constraint needs")
    return ends


class _Vocabulary:
    """A vocabulary as llguidance's TokenizerWrapper asks for it.

    Tokens that add nothing to the text have a name, after a mark.
    """

    def __init__(self, model: Vocabulary) -> None:
        self.eos_token_id = _ends(model)[0]
        self.bos_token_id = None
        self.tokens: list[bytes] = []
        self.special_token_ids: list[int] = []
        for token in range(model.n_vocab):
            piece = model.piece(token) if model.is_text(token) else b""
            if not piece or piece[0] == _MARK:  # the byte is never part of UTF-8 text
                self.special_token_ids.append(token)
                piece = bytes([_MARK]) + (model.piece(token, special=True) or b"<%d>" % token)
            self.tokens.append(piece)
        self._tokenize = model.tokenize

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenize(text.decode("utf-8", errors="replace"), add_special=False)
