"""The user's texts to train on: a file, or all texts of a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.train.texts import TrainingText

_MOST_BYTES = 1 << 30  # of all files together
_JSONL = (".jsonl", ".ndjson")
_SHORTEST = 8  # tokens of a text


def user_texts(model: Model, path: Path, longest: int) -> list[TrainingText]:
    """Texts of a file or folder, cut into parts.

    A .jsonl file has one object in each line, with the text under ``text``; any other file is one
    text. Of a folder, all files below it are read that are UTF-8 text, but for hidden ones.

    Args:
        longest: most tokens of a part.

    Raises:
        BadInput: it can't be read, or holds no text of a few words.
    """
    texts = []
    for document in _documents(path):
        tokens = model.tokenize(document)
        for begin in range(0, len(tokens), longest):
            part = tokens[begin : begin + longest]
            if len(part) >= _SHORTEST:
                texts.append(TrainingText(part))
    if not texts:
        raise BadInput(f"{path} holds no text; give a file or folder of text with --texts")
    return texts


def _documents(path: Path) -> Iterator[str]:
    if not path.is_dir():
        data = _read(path)
        try:
            yield from _split(path, data.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise BadInput(f"{path} is not UTF-8 text; convert it") from None
        return
    read = 0
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if hidden or not file.is_file():
            continue
        read += file.stat().st_size
        if read > _MOST_BYTES:
            raise BadInput(f"{path} holds more than {_MOST_BYTES >> 20} MiB; give a part of it")
        data = _read(file)
        if b"\0" in data:
            continue
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        yield from _split(file, text)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(f"{path} holds more than {_MOST_BYTES >> 20} MiB; give a part of it")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"the texts {path} can't be read ({error.strerror}); give a file or folder"
        ) from None


def _split(path: Path, text: str) -> Iterator[str]:
    if path.suffix.lower() not in _JSONL:
        yield text
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise BadInput(f"{path}:{number}: not JSON; give one object a line") from None
        found = record.get("text") if isinstance(record, dict) else None
        if not isinstance(found, str):
            raise BadInput(f"{path}:{number}: has no 'text'; mend or remove the line")
        yield found
