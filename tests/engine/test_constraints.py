"""What a schema, a regular expression or a grammar says holds for every text that ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from installed import PACKAGE
from scripted import ScriptedDrafter, partly_right
from steps import RealModel, Tiny, random_tokens

from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine import binding, constraints
from edge_conflayers.engine.constraints import Constraint, Kind, make_constraint
from edge_conflayers.engine.json_schema import rust_pattern
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput
from edge_conflayers.methods import MethodOptions, make_method

END = 2
FIRST_BYTE = 3  # of the tiny models' 256 byte tokens
EVERYTHING: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Model:
    return tiny("llama", n_layer=2)


@pytest.fixture(scope="module")
def session(model: Model) -> Iterator[Session]:
    with Session(model, n_ctx=512, threads=1) as session:
        yield session


class Unended(Exception):
    """A text has not ended after so many tokens."""


def text_of(session: Session, sampling: SamplerSettings, n: int = 300, seed: int = 0) -> bytes:
    """The bytes of a text that ends in time."""
    session.clear()
    with closing(Sampler(session.model, sampling)) as sampler:
        prompt = random_tokens(session.model, 5, seed)
        tokens = list(generate(session, prompt, sampler, max_tokens=n))
    if not session.model.ends_text(tokens[-1]):
        raise Unended
    return b"".join(map(session.model.piece, tokens[:-1]))


# --- schemas --------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-9, 30), st.sampled_from([-0.5, 0.1, 2.25, 7.3, 1e6]), st.integers(-(10**9), 10**9)
)
VALUES = st.sampled_from([1, 2.5, "a", "b\n", None, True, {"a": 1}, [1, "x"], "🙂", '"', "\\", ""])
NAMES = st.sampled_from(["a", "b", "ab", "n m", 'q"', "é", "🙂"])
PATTERNS = st.sampled_from(
    [r"^\d{3}$", "^[a-z]+$", "a", "^a|b$", r"^\w+$", '^[^"]*$', r"^\s*$", r"^.{2,4}$", r"\\"]
)


def some(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keywords)


def of_type(name: str, **keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return some(**keywords).map(lambda given: {"type": name, **given})


LENGTHS = st.integers(0, 4)
BOUNDS = {
    "minimum": NUMBERS,
    "maximum": NUMBERS,
    "exclusiveMinimum": NUMBERS,
    "exclusiveMaximum": NUMBERS,
}
LEAVES = st.one_of(
    st.just({}),
    of_type("integer", **BOUNDS, multipleOf=st.sampled_from([1, 2, 3, 5])),
    of_type("number", **BOUNDS),
    of_type("string", minLength=LENGTHS, maxLength=LENGTHS),
    of_type("string", pattern=PATTERNS),
    of_type("boolean"),
    of_type("null"),
    st.lists(VALUES, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    VALUES.map(lambda value: {"const": value}),
    some(minimum=NUMBERS, maxLength=LENGTHS, maxItems=LENGTHS),
)


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        of_type(
            "array",
            items=inner,
            prefixItems=st.lists(inner, min_size=1, max_size=2),
            minItems=LENGTHS,
            maxItems=LENGTHS,
            uniqueItems=st.just(False),
        ),
        of_type(
            "object",
            properties=st.dictionaries(NAMES, inner, max_size=3),
            required=st.lists(NAMES, max_size=2, unique=True),
            additionalProperties=st.one_of(st.booleans(), inner),
            patternProperties=st.dictionaries(st.sampled_from(["^x", "b$"]), inner, max_size=1),
            maxProperties=LENGTHS,
            minProperties=LENGTHS,
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"oneOf": parts}),
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"allOf": parts}),
    )


def exactly(number: str) -> Decimal | float:
    try:
        value = Decimal(number)
    except InvalidOperation:  # an exponent beyond Decimal's: infinite, or zero
        return float(number)
    return value if value.is_zero() or abs(value.adjusted()) < 300 else float(number)


def follows(schema: Any, text: bytes) -> None:
    """Validates a text in exact arithmetic; texts with numbers beyond 1e300 only parse."""
    with localcontext() as context:
        context.prec = 1000
        value = json.loads(text.decode("utf-8"), parse_float=exactly)
        if re.search(rb"[eE]\+?\d{3}", text):
            return
        reread = json.loads(json.dumps(schema), parse_float=Decimal)
        jsonschema.Draft202012Validator(reread).validate(value)


@given(schema=st.recursive(LEAVES, larger, max_leaves=6), seed=st.integers(0, 999))
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_texts_follow_generated_schemas(session: Session, schema: Any, seed: int) -> None:
    space = [t for t in range(session.model.n_vocab) if session.model.piece(t).isspace()]
    try:
        sampling = SamplerSettings(
            temperature=1.0,
            seed=seed,
            json_schema=json.dumps(schema),
            logit_bias={**dict.fromkeys(space, -5.0), END: 4.0},
            **EVERYTHING,
        )
        text = text_of(session, sampling, seed=seed)
    except BadInput as error:
        refusal = "cannot be (used|enforced)|allows no token"
        assert re.search(refusal, str(error)) and len(str(error)) < 400
        assume(False)
    except Unended:
        assume(False)
    follows(schema, text)


RECURSIVE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
            "required": ["v"],
            "additionalProperties": False,
        }
    },
}
# In the style of the JSON Schema test suite: a schema, texts that are valid, texts that are not.
CASES: dict[str, tuple[Any, list[str], list[str]]] = {
    "integer bounds": (
        {"type": "integer", "minimum": 1, "maximum": 5},
        ["1", "5"],
        ["0", "6", "1000000000000000", "1.5", '"1"', "-1"],
    ),
    "number bounds": (
        {"type": "number", "exclusiveMinimum": 0.1, "maximum": 2},
        ["0.11", "2", "2.0"],
        ["0.1", "2.01", "-1", "3"],
    ),
    "multipleOf": ({"type": "integer", "multipleOf": 3}, ["0", "9", "123"], ["1", "10"]),
    "lengths": (
        {"type": "string", "minLength": 1, "maxLength": 2},
        ['"a"', '"🙂🙂"', '"\\n\\""'],
        ['""', '"abc"', '"🙂🙂🙂"'],
    ),
    "long": ({"type": "string", "maxLength": 20000}, ['"' + "a" * 500 + '"'], ['"' + "a" * 500]),
    "emoji": ({"enum": ["🙂"]}, ['"🙂"'], ['"🙁"', '"\\ud83d"']),
    "enum": ({"enum": [1, "a", None, [2]]}, ["1", '"a"', "null", "[2]"], ["2", '"b"', "[1]"]),
    "const": ({"const": {"a": [1, "\n"]}}, ['{"a":[1,"\\n"]}'], ['{"a":[1]}', '{"b":[1,"\\n"]}']),
    "pattern": ({"type": "string", "pattern": r"^\d{3}$"}, ['"123"'], ['"12"', '"12a"', '"१२३"']),
    "pattern, not anchored": ({"type": "string", "pattern": "b"}, ['"abc"'], ['"ac"', '""']),
    "nested class": ({"type": "string", "pattern": "^[[&]$"}, ['"["', '"&"'], ['"a"', '"[&"']),
    "properties": (
        {"properties": {"a": {"type": "integer"}}},
        ['{"a":1}', '{"b":"x"}', "[]"],
        ['{"a":"x"}', '{"\\u0061":"x"}', '{"a":1,"a":"x"}'],
    ),
    "pattern properties": (
        {"patternProperties": {"^🙂": {"type": "integer"}}},
        ['{"🙂":1}', '{"x":""}'],
        ['{"🙂":"x"}', '{"\\ud83d\\ude42":"x"}'],
    ),
    "required": (
        {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]},
        ['{"b":1}', '{"a":1,"b":2}'],
        ["{}", '{"a":1}'],
    ),
    "closed": (
        {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
        ["{}", '{"a":null}'],
        ['{"b":1}'],
    ),
    "number of properties": (
        {"type": "object", "minProperties": 1, "maxProperties": 2},
        ['{"a":1}', '{"a":1,"b":2}'],
        ["{}", '{"a":1,"b":2,"c":3}'],
    ),
    "items": (
        {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}},
        ['["a",1,2]', "[]"],
        ["[1]", '["a","b"]'],
    ),
    "number of items": (
        {"type": "array", "minItems": 1, "maxItems": 2},
        ["[1]", "[1, 2]"],
        ["[]", "[1,2,3]"],
    ),
    "any of": ({"anyOf": [{"type": "null"}, {"minimum": 3}]}, ["null", "3", '"x"'], ["2"]),
    "all of": ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, ["3"], ["2", "3.5", '"x"']),
    "one of": ({"oneOf": [{"type": "null"}, {"type": "string"}]}, ["null", '""'], ["1"]),
    "types": ({"type": ["integer", "null"]}, ["1", "null"], ['"1"', "1.5"]),
    "recursion": (
        RECURSIVE,
        ['{"v":1}', '{"v":1,"next":{"v":2,"next":{"v":3}}}'],
        ['{"v":1,"next":{}}', '{"next":{"v":1}}'],
    ),
    "a reference to another place": (
        {"$ref": "#/x~1y/0", "x/y": [{"type": "string", "pattern": r"^\d$"}]},
        ['"7"'],
        ['"७"'],
    ),
    "large numbers": (
        {"enum": [2**53, 10**20], "minimum": -(2**63), "maximum": 10**25},
        [str(2**53), str(10**20)],
        [str(2**53 + 1)],
    ),
    "multiples": (
        {"type": "number", "multipleOf": 0.25, "minimum": 0},
        ["0.25", "3", "7.50"],
        ["0.2", "0.3"],
    ),
    "format": ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2024-02-30"', '"x"']),
    "true": (True, ["1", "[]"], ["", "x"]),
    "nothing said": ({"uniqueItems": False, "title": "x"}, ["[1,1]"], ["x"]),
    "a space": ({"type": "array"}, ["[ 1,\n  2 ]"], ["[    ]", "[1]\n\n\n"]),
}


def accepts(constraint: Constraint, text: str) -> bool:
    """Whether a text may be written, byte by byte, and end."""
    return all(constraint.takes(FIRST_BYTE + byte) for byte in text.encode()) and constraint.takes(
        END
    )


def accepted(model: Model, kind: Kind, source: str, texts: Sequence[str]) -> list[bool]:
    found = []
    for text in texts:
        with closing(make_constraint(model, binding.Samplers(), kind, source)) as constraint:
            found.append(accepts(constraint, text))
    return found


@pytest.mark.parametrize("name", CASES)
def test_keywords(model: Model, name: str) -> None:
    schema, valid, invalid = CASES[name]
    assert accepted(model, "JSON schema", json.dumps(schema), valid) == [True] * len(valid)
    assert accepted(model, "JSON schema", json.dumps(schema), invalid) == [False] * len(invalid)


REFUSED = {
    "'uniqueItems'": {"type": "array", "uniqueItems": True},
    "'if' and 'then'": {"if": {"type": "integer"}, "then": {"minimum": 3}},
    "'not'": {"not": {"type": "integer"}},
    "'contains'": {"contains": {"type": "integer"}},
    "'dependentRequired'": {"properties": {"x": {"dependentRequired": {"a": ["b"]}}}},
    "'unevaluatedProperties'": {"items": {"unevaluatedProperties": False}},
    "'propertyNames'": {"$defs": {"a": {"propertyNames": {"maxLength": 3}}}, "$ref": "#/$defs/a"},
    "'minProperties'": {"type": "object", "minProperties": 2},  # {"a":1,"a":2} has one
    "'oneOf'": {"oneOf": [{"minimum": 3}, {"maximum": 5}]},
    "the format 'colour'": {"type": "string", "format": "colour"},
    "'x-guidance'": {"x-guidance": {"lenient": True}, "if": {}},
    "the control character U[+]0001": {"const": "\x01"},
    "the number 9007199254740993": {"enum": [1, {"a": [9007199254740993]}]},
    "the number -9007199254740993": {"type": "integer", "minimum": -9007199254740993},
    "numbers as bounds that are too large [(]1e30[)]": {"type": "number", "minimum": 1e30},
    "'oneOf' with": {"$ref": "#/here", "here": {"oneOf": [{"minimum": 3}, {"maximum": 5}]}},
    "the number 1000000000000000": {"type": "string", "maxLength": 10**15},
    "a 'multipleOf' of 1234567": {"type": "integer", "multipleOf": 1234567},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_enforced_is_refused_by_name(name: str) -> None:
    with pytest.raises(BadInput, match=f"the schema uses {name}.*, which cannot be enforced"):
        SamplerSettings(json_schema=json.dumps(REFUSED[name]))


NESTED = 60_000
USELESS = {
    "empty": ("", "is not JSON"),
    "cut off": ("{", "is not JSON"),
    "NaN": ('{"const": NaN}', "NaN"),
    "infinite": ('{"const": 1e400}', "1e400"),
    "digits": (f'{{"minimum": {"9" * 5000}}}', "is not JSON"),
    "a list": ("[]", "neither an object nor"),
    "false": ("false", "allows no text"),
    "a type": ('{"type": "no such type"}', "no such type"),
    "no reference": ('{"$ref": "#/nowhere"}', "/nowhere"),
    "a reference elsewhere": ('{"$ref": "http://example.com/x"}', "http://example.com/x"),
    "unsatisfiable": ('{"type": "integer", "minimum": 5, "maximum": 1}', "minimum"),
    "look-ahead": ('{"type": "string", "pattern": "^(?=a)"}', "look-around"),
    "no pattern": ('{"type": "string", "pattern": "("}', "unclosed group"),
    "surrogate": ('{"const": "\\ud800"}', "hex escape"),
    "nested": ('{"items":' * NESTED + "{}" + "}" * NESTED, "nested"),
    "parentheses": (f'{{"pattern": "{"(" * NESTED}a{")" * NESTED}"}}', "nested"),
    "a chain": (
        json.dumps(
            {
                "$ref": "#/$defs/0",
                "$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(NESTED)},
            }
        ),
        "cannot be used",
    ),
}


@pytest.mark.parametrize("name", USELESS)
def test_schemas_that_cannot_be_used(name: str) -> None:
    text, why = USELESS[name]
    with pytest.raises(BadInput) as refused:
        SamplerSettings(json_schema=text)
    assert why in str(refused.value)
    assert len(str(refused.value)) < 400 and "\n" not in str(refused.value)


def test_what_allows_no_text_is_refused_before_one(model: Model) -> None:
    with pytest.raises(BadInput, match="no text can follow it"):
        Sampler(model, SamplerSettings(json_schema='{"$ref": "#"}'))


def test_what_is_too_complex_is_refused_in_one_line(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constraints, "_MOST_ALTERNATIVES", 100)
    schema = {"properties": {f"p{i}": {"type": "integer"} for i in range(100)}}
    with pytest.raises(BadInput, match=r"Too many items|Current row has") as refused:
        sampling = SamplerSettings(json_schema=json.dumps(schema))
        with Session(model, n_ctx=64, threads=1) as session:
            text_of(session, sampling)
    assert len(str(refused.value)) < 400 and "\n" not in str(refused.value)


def test_an_object_of_many_optional_properties(model: Model) -> None:
    schema = {"properties": {f"p{i}": {"type": "integer"} for i in range(1000)}}
    texts = ['{"p1":1,"p999":2}', '{"p1":""}']
    assert accepted(model, "JSON schema", json.dumps(schema), texts) == [True, False]


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        (r"^\d$", "7", "७"),
        (r"^[\d]$", "7", "७"),
        (r"^[^\D]$", "7", "७a"),
        (r"^\w$", "a_7", "éß-"),
        (r"^\W$", "é-", "a_"),
        (r"^\s$", " \t\u00a0", "a\u0085"),
        (r"^\S$", "a", " \u00a0\ufeff"),
        (r"^.$", "a🙂", "\n\r\u2028"),
        (r"^[.]$", ".", "a"),
        (r"^\.$", ".", "a"),
        (r"^[[~]$", "[~", "a"),
        (r"^[+--]$", "+,-", "."),
        (r"^[\]\[]$", "[]", "a"),
    ],
)
def test_patterns_mean_what_ecma_says(
    model: Model, pattern: str, matches: str, others: str
) -> None:
    regex = rust_pattern(pattern)[1:-1]
    assert all(accepted(model, "regular expression", regex, matches))
    assert not any(accepted(model, "regular expression", regex, others))


# --- regular expressions and grammars -------------------------------------------------------------

CALL = r"[a-z]{1,3}\((0|[1-9][0-9]{0,3})\)(;[a-z]{1,3}\((0|[1-9][0-9]{0,3})\)){0,2}"
LARK = """%llguidance {}
start: call (";" call)~0..2
call: /[a-z]{1,3}/ "(" /0|[1-9][0-9]{0,3}/ ")"
"""


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("source", [{"regex": CALL}, {"grammar": LARK}], ids=["regex", "lark"])
def test_texts_match(session: Session, source: dict[str, str], temperature: float) -> None:
    for seed in range(5):
        sampling = SamplerSettings(temperature=temperature, seed=seed, **source)
        assert re.fullmatch(CALL, text_of(session, sampling, seed=seed).decode())


GRAMMARS = {
    "parentheses": (f'root ::= {"(" * NESTED}"a"{")" * NESTED}', "60000 parentheses"),
    "rules": ("\n".join(f"r{i} ::= r{i + 1}" for i in range(NESTED)), "60000 rules"),
    "a NUL": ('root ::= "a"\0 "b"', "NUL"),
    "left recursion": ('root ::= root "a"', "left recursion"),
    "no rule": ("root ::= missing", "Undefined rule identifier 'missing'"),
    "nothing repeated": ('root ::= ""*', "expecting preceding item"),
    "unclosed": ('root ::= "a', "unexpected end of input"),
    "many repetitions": ('root ::= "a"{1000000}', "number of repetitions"),
    "backwards": ('root ::= "a"{3,1}', "at least 3 and at most 1"),
    "alternatives": ("root ::= " + " | ".join(['"a"'] * NESTED), "59999 alternatives"),
    "lark, parentheses": (f'%llguidance {{}}\nstart: {"(" * NESTED}"a"{")" * NESTED}', "nested"),
    "lark, no rule": ("%llguidance {}\nstart: missing", "missing"),
    "lark, schema": ('%llguidance {}\nstart: %json {"not": {}}', "'not'"),
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_grammars_that_cannot_be_used(
    model: Model, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    grammar, why = GRAMMARS[name]
    with pytest.raises(BadInput) as refused:
        Sampler(model, SamplerSettings(grammar=grammar))
    assert capfd.readouterr() == ("", "")
    assert why in str(refused.value)
    assert len(str(refused.value)) < 400 and "\n" not in str(refused.value)


def test_as_much_as_a_grammar_may_nest(session: Session) -> None:
    nested = 'root ::= "(' + "(" * 100 + '" ' + "(" * 200 + '"a"' + ")" * 200 + " [(] # ((("
    assert text_of(session, SamplerSettings(grammar=nested)) == b"(" * 101 + b"a("


def test_one_constraint_at_a_time() -> None:
    with pytest.raises(BadInput, match="grammar and regular expression"):
        SamplerSettings(grammar="root ::= [a]", regex="a")


# --- in the loop ----------------------------------------------------------------------------------

SOURCES: dict[str, dict[str, str]] = {
    "schema": {
        "json_schema": json.dumps(
            {"type": "array", "items": {"type": "string", "minLength": 3}, "minItems": 4}
        )
    },
    "regex": {"regex": "([a-z]{3,5} ){5,30}"},
    "lark": {"grammar": '%llguidance {}\nstart: ("ab" | "cde" | /[x-z]+ /)+'},
    "GBNF": {"grammar": 'root ::= ("ab" | "cde" | [x-z]+ " ")+'},
}
DRAWN: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 0.9, "seed": 5},
    "penalties": {"temperature": 0.7, "seed": 6, "repeat_penalty": 1.2},
}


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("source", SOURCES)
def test_drafts_do_not_change_the_text(session: Session, source: str, drawn: str) -> None:
    """Drafts are right for a random part, and often break the constraint."""
    model, prompt = session.model, random_tokens(session.model, 7)
    sampling = SamplerSettings(**SOURCES[source], **DRAWN[drawn])
    texts, stats = [], Stats()
    for drafts in (False, True):
        session.clear()
        drafter = None
        if drafts:
            script = partly_right(texts[0], model.n_vocab, seed=1, longest=9)
            drafter = ScriptedDrafter(script, len(prompt))
        with closing(Sampler(model, sampling)) as sampler:
            found = generate(session, prompt, sampler, drafter=drafter, max_tokens=60, stats=stats)
            texts.append(list(found))
        stats = Stats() if not drafts else stats
    assert texts[0] == texts[1] and len(texts[0]) > 10
    assert stats.accepted > 5 and stats.drafted > stats.accepted


def test_the_mask_is_what_is_allowed_token_by_token(model: Model) -> None:
    schema = json.dumps({"type": "object", "properties": {"then": {"type": "number"}}})
    rng = np.random.default_rng(3)
    constraint = constraints._Guidance(model, binding.Samplers(), "JSON schema", schema)
    with closing(constraint):
        for _ in range(40):
            allowed = constraint.allowed()
            assert allowed.tolist() == [constraint.allows(t) for t in range(model.n_vocab)]
            token = int(rng.choice(np.flatnonzero(allowed)))
            if token == END:
                break
            assert constraint.takes(token)


def test_tokens_without_text_are_never_drawn(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=2)
    constraint = constraints._Guidance(model, binding.Samplers(), "regular expression", "(?s:.)*")
    with closing(constraint):
        allowed = constraint.allowed()
    silent = [t for t in range(model.n_vocab) if not model.piece(t) and t != END]
    assert silent and not allowed[silent].any() and not allowed[FIRST_BYTE + 0xFF]
    assert allowed[END] and allowed[FIRST_BYTE + ord("<")]


@pytest.mark.parametrize("plainly", [True, False])
def test_an_interrupt_while_a_token_is_drawn(
    session: Session, monkeypatch: pytest.MonkeyPatch, plainly: bool
) -> None:
    """Nothing is raised through C, and nothing is lost."""
    model, prompt = session.model, random_tokens(session.model, 7)
    sampling = SamplerSettings(temperature=1.0, **SOURCES["regex"])
    with closing(Sampler(model, sampling)) as sampler:
        session.clear()
        expected = list(generate(session, prompt, sampler, max_tokens=20))
    asked = 0
    allows = constraints._Guidance.allows

    def interrupted(self: constraints._Guidance, token: int) -> bool:
        nonlocal asked
        asked += 1
        if asked == 21:
            raise KeyboardInterrupt
        return allows(self, token)

    monkeypatch.setattr(constraints._Guidance, "allows", interrupted)
    drafter = None if plainly else ScriptedDrafter(lambda known, limit: expected[known:][:3], 7)
    text: list[int] = []
    session.clear()
    with closing(Sampler(model, sampling)) as sampler, pytest.raises(KeyboardInterrupt):
        for token in generate(session, prompt, sampler, drafter=drafter, max_tokens=20):
            text.append(token)
    assert 5 <= len(text) < 20 and text == expected[: len(text)]
    assert session.tokens == [*prompt, *text[:-1]]


def test_what_goes_wrong_in_the_middle_is_said(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, taken = constraints._Guidance._take, 0

    def failing(self: constraints._Guidance, token: int) -> None:
        nonlocal taken
        taken += 1
        if taken == 5:
            token = 0  # which it does not allow
        take(self, token)

    monkeypatch.setattr(constraints._Guidance, "_take", failing)
    session.clear()
    sampling = SamplerSettings(temperature=1.0, **SOURCES["regex"])
    with (
        closing(Sampler(session.model, sampling)) as sampler,
        pytest.raises(BadInput, match="regular expression cannot be followed any further"),
    ):
        list(generate(session, random_tokens(session.model, 7), sampler, max_tokens=20))


def test_a_vocabulary_is_read_once(model: Model) -> None:
    assert constraints._tokenizer(model) is constraints._tokenizer(model)


def test_llguidance_is_imported_only_where_it_is_needed() -> None:
    code = (
        "import sys; from edge_conflayers.engine.sampling import SamplerSettings as S;"
        "S(temperature=1.0, grammar='root ::= [a]'); assert 'llguidance' not in sys.modules;"
        "S(regex='a'); assert 'llguidance' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PACKAGE, check=True)


# --- real models ----------------------------------------------------------------------------------

RECIPE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 60},
        "minutes": {"type": "integer", "minimum": 5, "maximum": 90},
        "steps": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string", "maxLength": 40, "pattern": "^[A-Z][^{}]*$"},
                    "kind": {"enum": ["🙂", "wait", "stir"]},
                },
                "required": ["text", "kind"],
                "additionalProperties": False,
            },
            "minItems": 3,
            "maxItems": 5,
        },
    },
    "required": ["name", "minutes", "steps"],
    "additionalProperties": False,
}


@pytest.mark.model
@pytest.mark.parametrize("drawn", DRAWN)
def test_a_real_model_follows_a_schema_whoever_drafts(real_model: RealModel, drawn: str) -> None:
    model = real_model("smollm2-135m")
    prompt = model.tokenize("A recipe for pancakes in JSON, with a name, minutes and steps:\n")
    sampling = SamplerSettings(json_schema=json.dumps(RECIPE), **DRAWN[drawn])
    texts, drafted = {}, Stats()
    for method in ("plain", "lookup", "recycling", "auto"):
        stats = Stats()
        with (
            Session(model, n_ctx=1024, threads=1) as session,
            closing(Sampler(model, sampling)) as sampler,
            closing(make_method(method, model, MethodOptions())) as made,
        ):
            found = generate(
                session, prompt, sampler, drafter=made.drafter, max_tokens=300, stats=stats
            )
            texts[method] = list(found)
        drafted.accepted += stats.accepted
    assert all(text == texts["plain"] for text in texts.values())
    assert drafted.accepted > (20 if drawn == "greedy" else 0)
    assert model.ends_text(texts["plain"][-1])
    follows(RECIPE, b"".join(map(model.piece, texts["plain"][:-1])))


@pytest.mark.model
def test_a_constraint_costs_little_of_a_step(
    real_model: RealModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processor time, on one thread; of a step of the 0.5B it was 0.2 %, with auto and three
    tokens a step (2026-11). This model's steps take a third of that."""
    model = real_model("smollm2-135m")
    spent = 0.0

    def timed(name: str) -> None:
        function = getattr(constraints._Guidance, name)

        def call(*arguments: Any) -> Any:
            nonlocal spent
            began = time.thread_time()
            try:
                return function(*arguments)
            finally:
                spent += time.thread_time() - began

        monkeypatch.setattr(constraints._Guidance, name, call)

    for name in ("_apply", "_accept", "takes"):
        timed(name)
    prompt = model.tokenize("A recipe for pancakes in JSON, with a name, minutes and steps:\n")
    with (
        Session(model, n_ctx=1024, threads=1) as session,
        closing(Sampler(model, SamplerSettings(json_schema=json.dumps(RECIPE)))) as sampler,
    ):
        began = time.thread_time()
        list(generate(session, prompt, sampler, max_tokens=150))
        whole = time.thread_time() - began

    assert 0 < spent < 0.04 * whole  # 1.5 % when written
