"""Prompts to measure with, from JSON lines or plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge_conflayers.errors import BadInput

MOST_BYTES = 128 << 20
"""Longest file that is read; whole benchmarks take a few MiB."""

_FIELDS = ("turns", "prompt", "question")
_ID_FIELDS = ("question_id", "task_id", "id")
_JSONL_SUFFIXES = (".jsonl", ".ndjson")

_WHY = {ValueError: "a number of too many digits", RecursionError: "nested too deeply"}
"""Why a line is not taken that may be JSON."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Prompt:
    """One prompt of a workload.

    Attributes:
        id: the record's id, else the number of the line that it starts in.
        category: the record's category, if it has one.
        text: the prompt; of a record with several turns the first, as later ones need an answer.
    """

    id: str
    category: str | None
    text: str


def load(path: Path) -> list[Prompt]:
    """The prompts of a file, in order.

    JSON lines have one object in each line, with ``turns`` (a list of texts), ``prompt`` or
    ``question``. Anything else is text: one prompt per block between blank lines.

    Raises:
        BadInput: the file cannot be read, holds no prompt, or has a line that is not as above.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(
            f"the prompts {path} cannot be read ({error.strerror}); give a JSONL or text file"
        ) from None
    if len(data) > MOST_BYTES:
        raise BadInput(f"{path} holds more than {MOST_BYTES >> 20} MiB; give fewer prompts")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}:{line}: not UTF-8 text; convert the file") from None
    if "\0" in text:
        raise BadInput(f"{path} holds NUL bytes and so is not UTF-8 text; convert the file")
    # Not splitlines(): it also breaks at characters that may stand inside a JSON string.
    lines = text.split("\n")
    prompts = _from_json(path, lines) if _is_json(path, lines) else _from_text(lines)
    if not prompts:
        raise BadInput(f"{path} holds no prompt; give a JSONL or text file with at least one")
    return prompts


def spread(prompts: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """At most ``limit`` prompts, spread evenly over the categories and within each, in the order of
    the file.

    If the limit cannot be shared out evenly, larger categories get one more; if there are more
    categories than prompts, the largest get one each.
    """
    if limit is None or limit >= len(prompts):
        return list(prompts)
    categories: dict[str | None, list[int]] = {}
    for index, prompt in enumerate(prompts):
        categories.setdefault(prompt.category, []).append(index)
    groups = sorted(categories.values(), key=len, reverse=True)
    counts = [0] * len(groups)
    while sum(counts) < limit:
        for i, group in enumerate(groups):
            if counts[i] < len(group) and sum(counts) < limit:
                counts[i] += 1
    chosen = (i for group, n in zip(groups, counts, strict=True) for i in _evenly(group, n))
    return [prompts[i] for i in sorted(chosen)]


def by_category(prompts: Sequence[Prompt], limit: int | None) -> dict[str, list[Prompt]]:
    """At most ``limit`` prompts of each category, those without one under "prompts"."""
    categories: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        categories.setdefault(prompt.category or "prompts", []).append(prompt)
    return {name: spread(some, limit) for name, some in categories.items()}


def _evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    return [items[i * len(items) // count] for i in range(count)]


def _is_json(path: Path, lines: Sequence[str]) -> bool:
    if path.suffix.lower() in _JSONL_SUFFIXES:
        return True
    first = next((line for line in lines if line.strip()), "")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _from_json(path: Path, lines: Sequence[str]) -> list[Prompt]:
    prompts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = getattr(error, "msg", None) or _WHY[type(error)]
            raise BadInput(f"{path}:{number}: not JSON ({why}); give one object a line") from None
        if not isinstance(record, dict):
            raise BadInput(f"{path}:{number}: not a JSON object; give one object a line")
        found = next((record[name] for name in _ID_FIELDS if name in record), number)
        category = record.get("category")
        prompt = Prompt(
            id=str(found),
            category=None if category is None else str(category),
            text=_text_of(record, f"{path}:{number}"),
        )
        if half := re.search("[\ud800-\udfff]", f"{prompt.id}{prompt.category}{prompt.text}"):
            raise BadInput(
                f"{path}:{number}: it holds half a character (U+{ord(half[0]):X}); mend the line"
            )
        prompts.append(prompt)
    return prompts


def _text_of(record: dict[str, Any], where: str) -> str:
    for name in _FIELDS:
        if name not in record:
            continue
        value = record[name]
        if name == "turns":
            value = value[0] if isinstance(value, list) and value else None
        if not isinstance(value, str) or not value.strip():
            wanted = "a list that starts with a text" if name == "turns" else "a text"
            raise BadInput(f"{where}: '{name}' is not {wanted}; mend or remove the line")
        return value
    raise BadInput(f"{where}: has none of {', '.join(_FIELDS)}; mend or remove the line")


def _from_text(lines: Sequence[str]) -> list[Prompt]:
    prompts: list[Prompt] = []
    block: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        line = re.sub(r"\r$", "", line)
        if line.strip():
            block.append(line)
        elif block:
            prompts.append(Prompt(str(number - len(block)), None, "\n".join(block)))
            block = []
    return prompts
