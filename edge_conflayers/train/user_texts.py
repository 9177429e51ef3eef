"""The user's texts to train on."""

from __future__ import annotations

from pathlib import Path

from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.train.texts import TrainingText
from edge_conflayers.tune.user_texts import read_user_texts

_SHORTEST = 8  # tokens of a text


def user_texts(model: Model, path: Path, longest: int) -> list[TrainingText]:
    """Texts of a file or folder, cut into parts.

    Args:
        longest: most tokens of a part.

    Raises:
        BadInput: as ``read_user_texts``, or there is no text of a few words.
    """
    texts = []
    for document in read_user_texts(path):
        tokens = model.tokenize(document)
        parts = (tokens[at : at + longest] for at in range(0, len(tokens), longest))
        texts += [TrainingText(part) for part in parts if len(part) >= _SHORTEST]
    if not texts:
        raise BadInput(f"{path} holds too little text; give a file or folder with more")
    return texts
