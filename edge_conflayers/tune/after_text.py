"""Goes on teaching a next-state head after a text was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.learned import Learned
from edge_conflayers.tune.teaching import Progress, Taught, teach


def learn_after_text(
    model: LanguageModel,
    learned: Learned,
    prompt: Sequence[int],
    text: Sequence[int],
    *,
    seconds: float,
    threads: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Taught | None:
    """Teaches the model's head by a text, by other answers to its prompt and by everyday tasks,
    and saves the better of it and the one that there was, by held-out texts.

    Args:
        prompt, text: tokens.
        seconds: for all of it; an interrupt ends it, and what was learned so far counts.
        threads: CPU threads.
        on_progress: as for ``teach``.

    Returns:
        None if there was too little text.

    Raises:
        BadInput: the model cannot be served by a next-state head.
    """
    if not isinstance(model, Model):
        raise BadInput("an exported folder shows no states to learn from; give the .gguf file")
    taught = teach(
        model,
        [prompt],
        seconds=seconds,
        user_texts=[[*prompt, *text]],
        known=learned.load_head(),
        threads=threads,
        on_progress=on_progress,
    )
    if taught is not None:
        learned.save_head(taught.head)
    return taught
