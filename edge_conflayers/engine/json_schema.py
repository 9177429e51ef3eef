"""Reads a JSON schema and refuses by name what cannot be enforced while a text is written.

llguidance enforces most keywords and names those that it does not know. What is checked here is
what it would take without keeping it for every text, and what it refuses although it says nothing.
"""

from __future__ import annotations

import json
import math
import re
import urllib.parse
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from edge_conflayers.errors import BadInput, one_line

# Character classes of ECMA-262, whose regular expressions JSON Schema means. In Rust's, which
# llguidance takes, they hold other scripts' digits and letters too. Spaces are those of both and of
# Python's re.
_SPACES = r"\t-\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_CLASSES = {
    r"\d": "[0-9]",
    r"\D": "[^0-9]",
    r"\w": "[A-Za-z0-9_]",
    r"\W": "[^A-Za-z0-9_]",
    r"\s": f"[{_SPACES}]",
    r"\S": f"[^{_SPACES}\\x{{1c}}-\\x{{1f}}\\x{{85}}\\x{{feff}}]",
}
# Control characters that JSON writes as \u and a number, after an even number of backslashes.
_CONTROL = re.compile(r"(?<!\\)(?:\\\\)*(\\u00[01][0-9a-f]|\x7f)")
_ANY = r"[^\n\r\x{2028}\x{2029}]"

# Keywords whose value is a schema, a list of schemas (or one), or schemas by name.
_ONE = ("additionalItems", "additionalProperties", "contains", "else", "if", "not", "then")
_SOME = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_NAMED = ("$defs", "definitions", "patternProperties", "properties")

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LENGTHS = ("minLength", "maxLength")
_MOST_EXACT = 2**53  # llguidance's numbers are of 64 bits, with a fraction
_MOST_BOUND = 2**63 - 1  # and it cuts bounds of integers off here
_MOST_LENGTH = 2**32 - 1
# Of a multiple's digits without factors of 2 and 5: llguidance keeps a state for each remainder.
# 19,997 runs out of its budget with some bounds, and 1,234,567 took 0.2 s for a token (2026-11).
_MOST_REMAINDERS = 10_000


def read_schema(text: str) -> dict[str, Any]:
    """A JSON schema in the form that llguidance takes: without keywords that say nothing, and with
    patterns in Rust's syntax.

    Raises:
        BadInput: not JSON, not a schema, or one that uses what cannot be enforced.
    """
    try:
        schema = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise BadInput("the JSON schema is nested too deeply; make it flatter") from None
    except ValueError as error:
        raise BadInput(f"the JSON schema is not JSON: {one_line(error)}; check it") from None
    if not isinstance(schema, (dict, bool)):
        raise BadInput("the JSON schema is neither an object nor true or false; check it")
    if schema is False:
        raise BadInput("the JSON schema is false, which allows no text; check it")
    schema = {} if schema is True else schema
    for part in _subschemas(schema):
        _check(part)
        if part.get("uniqueItems") is False:
            del part["uniqueItems"]
        if isinstance(pattern := part.get("pattern"), str):
            part["pattern"] = rust_pattern(pattern)
        if isinstance(named := part.get("patternProperties"), dict):
            part["patternProperties"] = {rust_pattern(key): of for key, of in named.items()}
    if control := _CONTROL.search(json.dumps(schema, ensure_ascii=False)):
        code = json.loads(f'"{control[1]}"')
        raise not_enforced(f"the control character U+{ord(code):04X}")
    return schema


def rust_pattern(pattern: str) -> str:
    """A regular expression of ECMA-262 in the syntax of Rust's regex."""
    parts: list[str] = []
    in_class = False
    for part in re.findall(r"\\.|.", pattern, flags=re.DOTALL):
        if part in _CLASSES:
            part = _CLASSES[part]
        elif in_class and (part in "[&~" or (part == "-" and parts[-1] == "-")):
            part = "\\" + part  # nested classes and operators in Rust
        elif part == "." and not in_class:
            part = _ANY
        elif part == "[":
            in_class = True
        elif part == "]":
            in_class = False
        parts.append(part)
    return "".join(parts)


def not_enforced(*names: str) -> BadInput:
    """The refusal of a schema for what it uses, such as "'if'"."""
    uses = " and ".join(names)
    return BadInput(f"the schema uses {uses}, which cannot be enforced; leave it out")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is no number that it can hold")
    return value


def _subschemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and all schemas inside it, those that are not just true or false; each once."""
    seen: set[int] = set()
    left: list[Any] = [schema]
    while left:
        part = left.pop()
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        left += [part[key] for key in _ONE if key in part]
        for key in _SOME:
            value = part.get(key, [])
            left += value if isinstance(value, list) else [value]
        for key in _NAMED:
            if isinstance(named := part.get(key), dict):
                left += named.values()
        left.append(_pointed_at(schema, part.get("$ref")))


def _pointed_at(schema: dict[str, Any], reference: Any) -> Any:
    """What a reference inside a schema means, which may be in no place of schemas; None if it
    leads nowhere or elsewhere."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Any = schema
    for name in urllib.parse.unquote(reference[2:]).split("/"):
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict):
            found = found.get(name)
        else:
            return None
    return found


def _check(part: dict[str, Any]) -> None:
    if "x-guidance" in part:  # llguidance's own options, which could switch its checks off
        raise not_enforced("'x-guidance'")
    # A name may be written twice, and counts once.
    least, required = part.get("minProperties", 0), part.get("required", [])
    if (
        isinstance(least, (int, float))
        and isinstance(required, list)
        and least > max(1, len(set(map(str, required))))
    ):
        raise not_enforced("'minProperties'")
    _check_numbers(part)


def _check_numbers(part: dict[str, Any]) -> None:
    """Refuses numbers that would silently become others, or that take for ever."""
    for key in _BOUNDS:
        value = part.get(key)
        if isinstance(value, int) and abs(value) < _MOST_BOUND and not _is_exact(value):
            raise not_enforced(f"the number {value}")
    for key in _LENGTHS:
        value = part.get(key)
        if isinstance(value, int) and value > _MOST_LENGTH:
            raise not_enforced(f"the number {value} in '{key}'")
    left = [part.get("const"), part.get("enum")]
    while left:
        value = left.pop()
        if isinstance(value, (list, dict)):
            left += value if isinstance(value, list) else value.values()
        elif isinstance(value, int) and not _is_exact(value):
            raise not_enforced(f"the number {value}")
    multiple = part.get("multipleOf")
    if isinstance(multiple, (int, float)) and _remainders(multiple) > _MOST_REMAINDERS:
        raise not_enforced(f"a 'multipleOf' of {multiple}")


def _is_exact(value: int) -> bool:
    """Whether a float can hold a whole number."""
    return abs(value) <= _MOST_EXACT or (value.bit_length() <= 1023 and int(float(value)) == value)


def _remainders(multiple: float) -> int:
    number = int("".join(map(str, Decimal(str(multiple)).as_tuple().digits)))
    for factor in (2, 5):
        while number and number % factor == 0:
            number //= factor
    return number
