"""JSON schemas that answers follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_conflayers.errors import BadInput

_SHARED = ("$defs", "definitions")  # schemas that references name from the outermost one on
_COMBINED = ("$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties", "unevaluatedProperties")


def closed(schema: Any) -> Any:
    """A schema whose objects have none but the properties that it names, where it says nothing of
    others. As in llama.cpp: a weak model would write one after another."""
    if not isinstance(schema, Mapping):
        return schema
    found = dict(schema)
    for key in ("properties", *_SHARED):
        if isinstance(found.get(key), Mapping):
            found[key] = {name: closed(each) for name, each in found[key].items()}
    if isinstance(found.get("items"), Mapping):
        found["items"] = closed(found["items"])
    for key in ("anyOf", "prefixItems"):
        if isinstance(found.get(key), list):
            found[key] = [closed(each) for each in found[key]]
    if "properties" in found and not any(key in found for key in _COMBINED):
        found.setdefault("additionalProperties", False)
    return found


def any_call(tools: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a call of any of the tools.

    Raises:
        BadInput: two of them give a name that references use to different schemas.
    """
    shared: dict[str, dict[str, Any]] = {key: {} for key in _SHARED}
    calls = []
    for name, function in tools.items():
        arguments = dict(function.get("parameters") or {"type": "object"})
        for key, found in shared.items():
            for inner, schema in arguments.pop(key, {}).items():
                if found.setdefault(inner, schema) != schema:
                    raise BadInput(f"two tools define {inner!r} in their {key}; rename one")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": arguments},
                "required": ["name", "arguments"],
            }
        )
    return {"anyOf": calls, **{key: found for key, found in shared.items() if found}}
