"""What a program and the process that teaches for it tell each other, as pickles over a pipe; and
``lessons.Said``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.model_options import ModelOptions


@dataclass(frozen=True)
class Sizes:
    """How much a round takes, and how much is kept; none of it tuned.

    Attributes:
        parallel: texts at once; ``tune`` writes three times as many, which take three times the
            memory.
        new: tokens to read and write before learning anew, at least; and at least this share of
            those that are kept.
        held_out: tokens of held-out texts to test with, at least.
        most_bytes: of states that are kept to learn from; an eighth of that to test with.
        fruitless: rounds in a row without a better head, after which it waits for new texts.
    """

    parallel: int = 8
    new: int = 4096
    new_share: float = 0.5
    held_out: int = 512
    most_bytes: int = 1 << 27
    fruitless: int = 2


@dataclass(frozen=True)
class Setup:
    """The first message: what to teach.

    Attributes:
        path: the model's file.
        kernels, options: as for ``Model``.
        threads: CPU threads.
        profiles: the folder that known heads are read from; None for none.
        sizes: of a round.
        priority: of the process, as nice has it.
    """

    path: Path
    kernels: KernelChoice
    options: ModelOptions
    threads: int
    profiles: Path | None
    sizes: Sizes
    priority: int


@dataclass(frozen=True)
class Progress:
    """How far teaching is.

    Attributes:
        texts: that were said.
        tokens: read and written so far.
        steps: of training.
        rounds: of writing, learning and testing.
    """

    texts: int
    tokens: int
    steps: int
    rounds: int


@dataclass(frozen=True)
class Better:
    """A head that foresees more than the known one.

    Attributes:
        head: as ``NextStateHead.to_bytes`` returns it.
        foreseen: share of the tokens of held-out texts that are among its first four guesses.
        before: of the same tokens, among those of the known head; None if there is none.
    """

    head: bytes
    foreseen: float
    before: float | None


@dataclass(frozen=True)
class Ended:
    """Nothing more is taught, for this reason."""

    why: str


FromProcess = Progress | Better | Ended
