"""Trains a model by LayerSkip's recipe, until a budget of seconds or steps is used up."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.train.exit_loss import Places, Targets, backward
from edge_conflayers.train.network import Adapter, Network, Tensor, Tensors
from edge_conflayers.train.quality import HeldOut, Quality, measure
from edge_conflayers.train.recipe import Recipe
from edge_conflayers.train.texts import Batch, TrainingText, one_pass

Method = Literal["lora", "full"]
Dtype = Literal["float32", "bfloat16"]

_WARM_UP = 0.05  # share of the budget in which the learning rate rises; not tuned
_LAST_RATE = 0.1  # of the peak, at the end; not tuned
_CLIP = 1.0  # largest norm of the gradients, as usual
_TESTS = 4  # times that the held-out texts are run; not tuned


@dataclass(frozen=True)
class Settings:
    """How to train. Defaults: see ``cli/train.py``.

    Attributes:
        method: "full" trains all weights; "lora" low-rank changes of the layers' matrices.
        targets: what exits and the full model learn. "model": the distribution of the model as it
            was, so that it stays what it is. "text": the texts' tokens, as in the paper.
        seconds, steps: the budget; one of them is None.
        learning_rate: at its peak, of AdamW.
        batch_tokens: most tokens of a step.
        rank: of LoRA's changes; alpha is twice as much.
        seed: of all random numbers.
        device: torch's name of what trains.
        dtype: of the matrix products; None for bfloat16 where the device is fast at it.
    """

    method: Method
    targets: Targets
    seconds: float | None
    steps: int | None
    learning_rate: float
    batch_tokens: int
    rank: int
    seed: int
    device: str
    dtype: Dtype | None


@dataclass(frozen=True)
class Progress:
    """How far training is.

    Attributes:
        step: steps done.
        done: share of the budget that is used up.
        loss: of the last step's batch.
        quality: on the held-out texts, if they were run after this step.
    """

    step: int
    done: float
    loss: float
    quality: Quality | None


@dataclass(frozen=True)
class Trained:
    """What training made.

    Attributes:
        tensors: the weights that did best on held-out texts.
        before, after: quality at the start, and of these weights.
        steps, tokens: that were trained until the end.
        interrupted: whether training was cut short.
    """

    tensors: Tensors
    before: Quality
    after: Quality
    steps: int
    tokens: int
    interrupted: bool


def train(
    network: Network,
    texts: Sequence[TrainingText],
    tests: Sequence[Batch],
    recipe: Recipe,
    settings: Settings,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Trains a model. An interrupt ends it; the best weights so far count.

    Args:
        network: float32, without adapters.
        texts: to train on, over and over.
        tests: held-out texts.

    Raises:
        EdgeConflayersError: the loss is no number.
    """
    trainer = _Trainer(network, texts, tests, recipe, settings)
    interrupted = False
    try:
        trainer.run(on_progress)
    except KeyboardInterrupt:
        if not trainer.steps:
            raise
        interrupted = True
    return trainer.finish(interrupted)


class _Trainer:
    def __init__(
        self,
        network: Network,
        texts: Sequence[TrainingText],
        tests: Sequence[Batch],
        recipe: Recipe,
        settings: Settings,
    ) -> None:
        torch.manual_seed(settings.seed)
        self._recipe, self._settings = recipe, settings
        self._random = np.random.default_rng(settings.seed)
        moved = {name: each.to(settings.device) for name, each in network.tensors.items()}
        original = Network(network.architecture, moved)
        self._network, self._parameters = _trainable(original, settings)
        self._teacher = original if settings.targets == "model" else None
        self._texts = texts
        with _precision(settings):
            places = [Places.of(each, settings.device) for each in tests]
            self._held_out = HeldOut.of(places, self._teacher)
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )
        self._weights = recipe.loss_weights(recipe.exits)
        self.steps = self.tokens = self._tested = 0
        self.before = self._measure()
        self._best, self._kept = self.before, [each.detach().clone() for each in self._parameters]

    def _measure(self) -> Quality:
        with _precision(self._settings):
            return measure(self._network, self._held_out, self._recipe.exits)

    def run(self, on_progress: Callable[[Progress], None]) -> None:
        began = time.monotonic()
        tested = 0
        for batch in self._forever():
            done = self._done(time.monotonic() - began)
            if done >= 1:
                return
            loss = self._step(Places.of(batch, self._settings.device), done)
            done = self._done(time.monotonic() - began)
            quality = None
            if int(min(done, 1) * _TESTS) > tested:
                tested = int(min(done, 1) * _TESTS)
                quality = self._test()
            on_progress(Progress(self.steps, min(done, 1), loss, quality))

    def _forever(self) -> Iterator[Batch]:
        for _ in itertools.count():
            yield from one_pass(self._texts, self._settings.batch_tokens, self._random)

    def _done(self, seconds: float) -> float:
        if self._settings.steps is not None:
            return self.steps / self._settings.steps
        assert self._settings.seconds is not None
        return seconds / self._settings.seconds

    def _step(self, places: Places, done: float) -> float:
        recipe = self._recipe
        rates = torch.tensor(recipe.dropout_rates(done), device=places.tokens.device)
        draws = torch.rand(len(rates), len(places.tokens), device=places.tokens.device)
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * _schedule(done)
        with _precision(self._settings):
            loss = backward(
                self._network,
                places,
                recipe.loss_weights(recipe.enabled(self.steps, done)),
                teacher=self._teacher,
                dropped=list(draws < rates[:, None]),
            )
        if not math.isfinite(loss):
            raise EdgeConflayersError(
                f"the loss is {loss} after {self.steps} steps; give a lower --learning-rate"
            )
        torch.nn.utils.clip_grad_norm_(self._parameters, _CLIP)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self.tokens += len(places)
        return loss

    def _test(self) -> Quality:
        """Runs the held-out texts, and keeps the weights if they are the best so far."""
        self._tested = self.steps
        quality = self._measure()
        if quality.objective(self._weights) < self._best.objective(self._weights):
            self._best = quality
            for kept, each in zip(self._kept, self._parameters, strict=True):
                kept.copy_(each.detach())
        return quality

    def finish(self, interrupted: bool) -> Trained:
        if self._tested != self.steps:
            self._test()
        with torch.no_grad():
            for kept, each in zip(self._kept, self._parameters, strict=True):
                each.copy_(kept)
        tensors = {name: each.cpu() for name, each in self._network.merged().items()}
        return Trained(tensors, self.before, self._best, self.steps, self.tokens, interrupted)


def _trainable(original: Network, settings: Settings) -> tuple[Network, list[Tensor]]:
    """A network to train, which shares what it does not change with the original, and what is
    trained of it."""
    if settings.method == "full":
        tensors = {name: each.clone().requires_grad_() for name, each in original.tensors.items()}
        return Network(original.architecture, tensors), list(tensors.values())
    adapters = {}
    for name, matrix in original.tensors.items():
        if name.startswith("blk.") and matrix.ndim == 2:
            outputs, inputs = matrix.shape
            rank = min(settings.rank, outputs, inputs)
            down = torch.randn(rank, inputs, device=matrix.device) / math.sqrt(inputs)
            up = torch.zeros(outputs, rank, device=matrix.device)
            adapters[name] = Adapter(down.requires_grad_(), up.requires_grad_(), 2.0)
    parameters = [each for one in adapters.values() for each in (one.down, one.up)]
    return Network(original.architecture, original.tensors, adapters), parameters


def _schedule(done: float) -> float:
    """The learning rate's share of its peak: a linear rise, then half a cosine."""
    if done < _WARM_UP:
        return (done + 1e-3) / _WARM_UP
    turn = (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2
    return _LAST_RATE + (1 - _LAST_RATE) * turn


def _precision(settings: Settings) -> contextlib.AbstractContextManager[Any]:
    device = settings.device.partition(":")[0]
    wanted = settings.dtype or ("bfloat16" if _fast_bfloat16(device) else "float32")
    if wanted == "float32":
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = torch.autocast(device, torch.bfloat16)
    return context


def _fast_bfloat16(device: str) -> bool:
    """Whether matrix products are faster in bfloat16."""
    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device != "cuda" or bool(torch.cuda.is_bf16_supported())
