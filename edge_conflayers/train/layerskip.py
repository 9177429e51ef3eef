"""From a model's file to that of a model whose early exits draft well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.onnx.architecture import Architecture, read_architecture
from edge_conflayers.onnx.gguf_file import read_gguf
from edge_conflayers.train.exit_loss import Places
from edge_conflayers.train.gguf_writer import check_target, write_like
from edge_conflayers.train.huggingface import read_folder
from edge_conflayers.train.network import Network, read_tensors
from edge_conflayers.train.own_texts import own_texts
from edge_conflayers.train.quality import HeldOut, Quality, measure
from edge_conflayers.train.quantize import OutType
from edge_conflayers.train.recipe import Recipe
from edge_conflayers.train.texts import TrainingText, by_length, make_batch, split
from edge_conflayers.train.trainer import Progress, Settings, Trained, train
from edge_conflayers.train.user_texts import user_texts

_WRITING = 0.2
"""Share of a budget of seconds in which the model writes texts, if the user gives none: writing a
token takes about a fifth of the time of training on it (135M, one core). Texts are used again."""
_FEWEST_TEXTS = 32  # that are written, however small the budget
_TEST_TOKENS = 2048  # held out, about; not tuned


@dataclass(frozen=True)
class Stage:
    """How far the work is.

    Attributes:
        name: "writing texts", "training" or "storing the model".
        done: share of it, from 0 to 1.
        step: of the training, if it is at one.
    """

    name: str
    done: float
    step: Progress | None = None


@dataclass(frozen=True)
class Report:
    """What was trained, and how good it is.

    Attributes:
        path: the trained model's file.
        trained: what training made.
        stored: quality of the file, whose weights are rounded to its types.
        texts, tokens: that were trained on.
    """

    path: Path
    trained: Trained
    stored: Quality
    texts: int
    tokens: int


def check(path: Path, target: Path, outtype: OutType) -> Architecture:
    """Refuses a model that can't be trained, and a file that can't be written.

    Raises:
        BadInput, EdgeConflayersError: as ``read_architecture`` and ``check_target`` do.
    """
    file = read_gguf(path)
    architecture = read_architecture(file)
    check_target(file, target, outtype)
    return architecture


def train_exits(
    path: Path,
    target: Path,
    recipe: Recipe,
    settings: Settings,
    *,
    weights: Path | None = None,
    texts: Path | None = None,
    prompts: Callable[[Model], Sequence[Sequence[int]]] = lambda model: (),
    longest: int = 512,
    outtype: OutType = "q8_0",
    threads: int | None = None,
    on_progress: Callable[[Stage], None] = lambda stage: None,
) -> Report:
    """Trains a model by LayerSkip's recipe and stores it in a new file. An interrupt while it
    trains ends that; the best weights so far are stored.

    Args:
        path: the .gguf file; ``check`` takes it.
        target: the new file.
        weights: the Hugging Face folder that the file was converted from, to begin with its
            weights; None for the file's own.
        texts: the user's file or folder; None for texts that the model writes itself.
        prompts: of a loaded model, the tokens of prompts that it answers for these.
        longest: most tokens of a text.
        outtype: how matrices are stored.
        threads: CPU threads that write texts; training's are torch's.

    Raises:
        BadInput: the texts or weights can't be used, or the file can't be written.
        EdgeConflayersError: training failed, or there is no room.
    """
    file = read_gguf(path)
    architecture = read_architecture(file)
    tensors = read_tensors(file) if weights is None else read_folder(weights, file, architecture)
    began = time.monotonic()
    with Model(path) as model:
        if texts is not None:
            found = user_texts(model, texts, longest)
        else:
            with closing(
                own_texts(
                    model, prompts(model), longest=longest, threads=threads, seed=settings.seed
                )
            ) as written:
                found = list(_enough(written, settings, on_progress))
    if len(found) < 2:
        raise BadInput("there is too little text to train on; give more with --texts")
    trained_on, held_out = split(found, _TEST_TOKENS)
    if settings.targets == "model":  # whose distribution is known at every token, prompts included
        trained_on = [TrainingText(each.tokens) for each in trained_on]
    tests = [make_batch(each) for each in by_length(held_out, settings.batch_tokens)]
    if settings.seconds is not None:
        settings = replace(settings, seconds=settings.seconds - (time.monotonic() - began))
    trained = train(
        Network(architecture, tensors),
        trained_on,
        tests,
        recipe,
        settings,
        lambda progress: on_progress(Stage("training", progress.done, progress)),
    )
    on_progress(Stage("storing the model", 0))
    write_like(
        file, target, {name: each.numpy() for name, each in trained.tensors.items()}, outtype
    )
    stored = Network(architecture, read_tensors(read_gguf(target)))
    quality = measure(stored, HeldOut([Places.of(each, "cpu") for each in tests]), recipe.exits)
    tokens = sum(len(each.tokens) - each.begin for each in trained_on)
    return Report(target, trained, quality, len(trained_on), tokens)


def _enough(
    texts: Iterator[TrainingText], settings: Settings, on_progress: Callable[[Stage], None]
) -> Iterator[TrainingText]:
    """Texts for a share of the budget: of seconds ``_WRITING``, of steps so many that none is used
    twice."""
    began, tokens = time.monotonic(), 0
    for n, text in enumerate(texts, start=1):
        yield text
        tokens += len(text.tokens)
        if settings.steps is not None:
            done = tokens / (settings.steps * settings.batch_tokens)
        else:
            assert settings.seconds is not None
            done = (time.monotonic() - began) / (_WRITING * settings.seconds)
        done = min(done, n / _FEWEST_TEXTS)
        on_progress(Stage("writing texts", min(1.0, done)))
        if done >= 1:
            return
