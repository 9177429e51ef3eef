"""Options that say what a text must follow: a grammar, a JSON schema or a response format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edge_conflayers.cli.completing import one_of
from edge_conflayers.cli.help import Option, group
from edge_conflayers.cli.streams import ArgumentText, read_text
from edge_conflayers.errors import BadInput

_JSON_BEGINS = ("{", "true", "false")  # of what is JSON itself; anything else is a file's name
_FORMATS = {"text": "any text", "json_object": "a JSON object"}
_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--grammar",
        type=ArgumentText(),
        metavar="TEXT",
        help="Grammar that the text must follow: GBNF, or llguidance's Lark after %llguidance.",
    ),
    click.option(
        "--grammar-file", type=click.Path(path_type=Path), help="The same, read from a file."
    ),
    click.option(
        *("-j", "--json-schema"),
        type=ArgumentText(),
        metavar="FILE|JSON",
        shell_complete=one_of((), or_file=True),
        help="JSON schema that the text must follow: a file, or the schema itself.",
    ),
    click.option(
        "--response-format",
        type=ArgumentText(),
        metavar="text|json_object|FILE|JSON",
        shell_complete=one_of(_FORMATS, or_file=True),
        help="The same as OpenAI's API has it: json_object, or an object of type json_schema.",
    ),
)
constraint_options = group("Text", *_OPTIONS)

CONSTRAINTS = ("grammar", "grammar_file", "json_schema", "response_format")
"""Their names, of which at most one has a value."""


def constraint_arguments(
    grammar: str | None,
    grammar_file: Path | None,
    json_schema: str | None,
    response_format: str | None,
) -> dict[str, Any]:
    """What these options say, as arguments of ``SamplerSettings``.

    Raises:
        BadInput: more than one is given, or a file cannot be read.
    """
    values = (grammar, grammar_file, json_schema, response_format)
    pairs = zip(CONSTRAINTS, values, strict=True)
    given = [f"--{name.replace('_', '-')}" for name, value in pairs if value is not None]
    if len(given) > 1:
        raise BadInput(f"both {given[0]} and {given[1]} are given; choose one")
    if grammar_file is not None:
        grammar = read_text(grammar_file, "grammar file")
    if json_schema is not None:
        json_schema = _text_of(json_schema, "JSON schema")
    if response_format is not None:
        json_schema = _schema_of(response_format)
    return {"grammar": grammar, "json_schema": json_schema}


def constraint_files(constraints: Mapping[str, Any]) -> list[Path]:
    """The files that these options name."""
    grammar_file, *others = (constraints[name] for name in CONSTRAINTS[1:])
    files = [Path(each) for each in others if each is not None and not _is_itself(each)]
    return files if grammar_file is None else [grammar_file, *files]


def _is_itself(given: str) -> bool:
    """Whether a schema or format stands in the option itself, and not in a file."""
    return given in _FORMATS or given.lstrip().startswith(_JSON_BEGINS)


def _text_of(given: str, what: str) -> str:
    return given if _is_itself(given) else read_text(Path(given), what)


def _schema_of(given: str) -> str | None:
    from edge_conflayers.completions.chat import response_schema

    if given in _FORMATS:
        return response_schema({"type": given})
    try:
        found = json.loads(_text_of(given, "response format"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the response format is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise BadInput('the response format is no JSON object, such as {"type": "json_object"}')
    return response_schema(found)
