"""What ``edge-conflayers tune`` does: measures step costs, teaches the next-state head, finds skip
sets, and saves each as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edge_conflayers.bridges.bridge import Bridges
from edge_conflayers.bridges.search import Judged, blocks_to_teach
from edge_conflayers.costs.measure import measure_costs, session_to_measure_in
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary, measure_savings, typical_size
from edge_conflayers.drafters.next_state import head_pays
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.skip_sets import SkipSet, SkipSets
from edge_conflayers.learned import Learned
from edge_conflayers.limits import check_number
from edge_conflayers.tune import bridging, find_skip_sets, teaching
from edge_conflayers.tune.find_skip_sets import Prompts, check_layers_can_be_dropped
from edge_conflayers.tune.teach_exits import TaughtResult, teach_exits
from edge_conflayers.tune.teaching import Taught

# Share of the budget for the head. Dropping layers brings little beside it, and what more texts
# teach is felt for hours (docs/tuning.md).
_TEACHING = 0.85
_BRIDGING = 0.05  # for judging bridges, which the same texts teach; not tuned

_Texts = tuple[Sequence[Sequence[int]], Iterable[Sequence[int]]]  # prompts to answer; to read
Stage = Literal["measuring", "teaching", "bridging", "searching"]


@dataclass(frozen=True)
class Progress:
    """How far tuning is.

    Attributes:
        stage: what it is doing.
        seconds: since the stage began.
        budget: seconds of the stage; 0 where it takes as long as it takes.
        label: what the stage has brought so far.
    """

    stage: Stage
    seconds: float = 0.0
    budget: float = 0.0
    label: str = ""


@dataclass
class Tuned:
    """What tuning has found.

    Attributes:
        sets: the best skip set of each kind of prompts.
        taught: the head; None if none was taught.
        bridges: over dropped layers; None if none were taught.
        no_head: why none was taught, where one would pay.
        without_text: kinds without a text to judge by.
        interrupted: whether Ctrl-C has cut it short.
    """

    sets: list[SkipSet] = field(default_factory=list)
    taught: Taught | None = None
    bridges: Bridges | None = None
    no_head: str = ""
    without_text: list[str] = field(default_factory=list)
    interrupted: bool = False


def tune(
    model: LanguageModel,
    prompts: Prompts,
    *,
    to_teach: Sequence[Sequence[int]] = (),
    user_texts: Iterable[Sequence[int]] = (),
    budget: float,
    max_tokens: int,
    threads: int,
    fresh: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Tuned:
    """Makes a model faster on this machine, for kinds of prompts.

    Args:
        model: the model.
        prompts: to search with, at least one a kind; each with at least one token.
        to_teach: the user's prompts, which the next-state head learns to answer.
        user_texts: texts of the user's that it learns from as well, tokens of each; taken as far as
            there is time to read them.
        budget: seconds in all, besides measuring step costs. Most of it teaches the next-state head
            and bridges over dropped layers (unless steps take so little that they would not pay),
            the rest searches for skip sets.
        max_tokens: most tokens of each text that sets are judged by.
        threads: CPU threads.
        fresh: forget what was learned before.
        on_progress: called now and then; a KeyboardInterrupt ends tuning, and what was found so
            far is kept.

    Raises:
        BadInput: no layers of the model can be dropped, texts longer than what the model was
            trained for, or a prompt does not fit.
    """
    check_layers_can_be_dropped(model)
    check_number("predict (-n)", max_tokens, 1, model.n_ctx_train, whole=True)
    learned = Learned(model, threads)
    if fresh:
        learned.forget()
    sets = learned.skip_sets()
    tuned = Tuned()
    try:
        texts = (to_teach, user_texts)
        _tune(model, prompts, texts, sets, learned, tuned, budget, max_tokens, threads, on_progress)
    except KeyboardInterrupt:
        tuned.interrupted = True
    tuned.sets = [each for each in sets if each.kind in prompts]
    return tuned


def tune_exits(
    model: LanguageModel,
    to_teach: Sequence[Sequence[int]],
    user_texts: Iterable[Sequence[int]] = (),
    *,
    budget: float,
    threads: int,
    fresh: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> TaughtResult | None:
    """Teaches the exits of the method ``dssd``, and saves them. Arguments are those of ``tune``.

    Returns:
        None if there was too little text.

    Raises:
        BadInput: the model cannot be served by taught exits.
    """
    check_layers_can_be_dropped(model)
    if not isinstance(model, Model):
        raise BadInput(f"{model.path} does not show the hidden states that teach exits")
    learned = Learned(model, threads)
    if fresh:
        learned.forget()
    result = teach_exits(
        *(model, to_teach, user_texts),
        seconds=budget,
        threads=threads,
        on_progress=lambda progress: on_progress(
            Progress("teaching", progress.seconds, budget, progress.label)
        ),
    )
    if result is not None:
        learned.save_exits(result.exits)
    return result


def _tune(
    model: LanguageModel,
    prompts: Prompts,
    texts: _Texts,
    sets: SkipSets,
    learned: Learned,
    tuned: Tuned,
    budget: float,
    max_tokens: int,
    threads: int,
    on_progress: Callable[[Progress], None],
) -> None:
    vocabulary = DraftVocabulary(model)
    if sets.costs is None or sets.savings is None:  # `run` measures only some, quickly
        on_progress(Progress("measuring"))
        with session_to_measure_in(model, threads) as session:
            sets.costs = measure_costs(session, quick=False)
            sets.savings = measure_savings(session, vocabulary)
        learned.keep_skip_sets(sets)

    if model.shows_states and head_pays(sets.costs.t1(0)):
        seconds = budget * _TEACHING
        budget -= seconds
        _teach(model, texts, learned, tuned, seconds, threads, on_progress)
        if tuned.taught is not None and tuned.taught.interrupted:
            raise KeyboardInterrupt
        if tuned.taught is not None:
            seconds = (budget + seconds) * _BRIDGING
            budget -= seconds
            _bridge(model, sets, learned, tuned, seconds, threads, on_progress)

    def searched(progress: find_skip_sets.Progress) -> None:
        best = progress.best
        speed = "" if best is None else f", best {best.found.prediction.speed:.2f}"
        label = f"{progress.kind}: {progress.judged} sets{speed}"
        on_progress(Progress("searching", progress.seconds, budget, label))

    size = typical_size(sets.savings, vocabulary, sets.costs, 0)
    tuned.without_text = find_skip_sets.find_skip_sets(
        model,
        prompts,
        sets,
        sets.costs,
        budget=budget,
        max_tokens=max_tokens,
        saved_seconds=sets.savings.get(size, 0.0),
        threads=threads,
        on_progress=searched,
        on_better=lambda: learned.keep_skip_sets(sets),
    )


def _teach(
    model: LanguageModel,
    texts: _Texts,
    learned: Learned,
    tuned: Tuned,
    seconds: float,
    threads: int,
    on_progress: Callable[[Progress], None],
) -> None:
    """Teaches the next-state head, and saves the better of it and the one that there was."""
    known, bridges = learned.load_head(), learned.load_bridges()
    prompts, user_texts = texts
    blocks = blocks_to_teach(
        model.n_layer,
        bridges.blocks[0] if bridges is not None else None,
        seed=bridges.written.total() if bridges is not None else 0,
    )

    def taught(progress: teaching.Progress) -> None:
        on_progress(Progress("teaching", progress.seconds, seconds, progress.label))

    try:
        assert isinstance(model, Model)  # which shows states
        tuned.taught = teaching.teach(
            *(model, prompts),
            user_texts=user_texts,
            known=known,
            blocks=blocks,
            seconds=seconds,
            threads=threads,
            on_progress=taught,
        )
    except BadInput as error:
        tuned.no_head = str(error)
        return
    if tuned.taught is None:
        tuned.no_head = "too little text; give a larger --budget"
    else:
        learned.save_head(tuned.taught.head)


def _bridge(
    model: LanguageModel,
    sets: SkipSets,
    learned: Learned,
    tuned: Tuned,
    seconds: float,
    threads: int,
    on_progress: Callable[[Progress], None],
) -> None:
    """Chooses among the bridges over dropped layers that were taught, and keeps the best."""
    assert isinstance(model, Model) and sets.costs is not None and tuned.taught is not None
    began = time.monotonic()
    on_progress(Progress("bridging", 0.0, seconds))

    def judged(each: Judged) -> None:
        block = f"layers {each.bridge.begin} to {each.bridge.end - 1}"
        label = f"{block}: {each.prediction.speed:.2f}"
        on_progress(Progress("bridging", time.monotonic() - began, seconds, label))

    try:
        tuned.bridges = bridging.choose_bridges(
            model,
            tuned.taught.bridges,
            tuned.taught.texts,
            *(sets.costs, sets.savings or {}),
            seconds=seconds,
            known=learned.load_bridges(),
            threads=threads,
            on_judged=judged,
        )
    except BadInput:
        return  # the model cannot be served
    if tuned.bridges is not None:
        learned.save_bridges(tuned.bridges)
