"""Finds skip sets before they are needed: generates texts for prompts of each kind, plainly, then
judges sets by replaying these texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from edge_conflayers.costs.model import CostsAtContext, StepCosts
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import NO_MASK, LayerMask, TextSession
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search import ranking
from edge_conflayers.layer_search.measured import MeasuredSearch
from edge_conflayers.layer_search.objective import Costs, Record
from edge_conflayers.layer_search.prompt_kinds import Signature, mean_signature, signature
from edge_conflayers.layer_search.replays import replay_records
from edge_conflayers.layer_search.skip_sets import SkipSet, SkipSets

LEAST_TEXT = 16
"""Tokens that a text needs to be judged by; not tuned."""
_RANKED = 64  # tokens of a text that the ranking of sub-layers looks at; not tuned
_WRITING = 0.4  # share of a kind's time for generating its texts; not tuned
_WHOLE_LAYER = LayerMask.layers({1})

Prompts = Mapping[str, Sequence[Sequence[int]]]
"""Tokens of the prompts, by kind."""


@dataclass(frozen=True)
class Progress:
    """How far the search is.

    Attributes:
        kind: of the prompts that are searched for.
        seconds: since the search began.
        judged: sets judged for this kind so far.
        best: the best set for this kind so far.
    """

    kind: str
    seconds: float
    judged: int
    best: SkipSet | None


@dataclass
class _Text:
    """A text in the cache of a session of its own."""

    session: TextSession
    begin: int  # position of its first generated token

    @property
    def tokens(self) -> int:
        return len(self.session) - self.begin


def check_layers_can_be_dropped(model: LanguageModel) -> None:
    """Tries it, before anything is measured.

    Raises:
        BadInput: no layers of the model can be dropped.
    """
    if model.n_layer < 3:
        raise BadInput(
            f"{model.path} has {model.n_layer} layers; dropping layers needs at least 3, so there"
            " is nothing to tune"
        )
    with model.open_session(n_ctx=64, threads=1) as session:
        session.set_mask(_WHOLE_LAYER)
        session.step([0])


def find_skip_sets(
    model: LanguageModel,
    prompts: Prompts,
    sets: SkipSets,
    costs: StepCosts,
    *,
    budget: float,
    max_tokens: int,
    saved_seconds: float = 0.0,
    threads: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_better: Callable[[], None] = lambda: None,
) -> list[str]:
    """Searches a skip set for every kind of prompts.

    Args:
        model: drafts and verifies.
        prompts: at least one a kind; each with at least one token.
        sets: found before; each search starts from them and puts there what it finds.
        costs: what steps cost.
        saved_seconds: by how much a draft vocabulary makes a draft step shorter.
        budget: seconds; each kind gets an equal part of what is left when its turn comes, and at
            least one set is judged.
        max_tokens: most tokens of each text.
        on_progress: called after every set that was judged.
        on_better: called after ``sets`` has changed.

    Returns:
        The kinds without a text to judge by: the model wrote too little, or more than its sliding
        window lets be replayed.

    Raises:
        BadInput: no layers of the model can be dropped, or a prompt does not fit.
    """
    began = time.monotonic()
    without_text = []
    for number, (kind, texts) in enumerate(prompts.items()):
        now = time.monotonic()
        share = (began + budget - now) / (len(prompts) - number)
        deadline = now + share
        with ExitStack() as stack:
            written = [
                _write(
                    model,
                    prompt,
                    max_tokens,
                    threads,
                    stack,
                    now + share * _WRITING * (i + 1) / len(texts),
                )
                for i, prompt in enumerate(texts)
            ]
            usable = [text for text in written if text is not None]
            if not usable:
                without_text.append(kind)
                continue
            mean = mean_signature(signature(model.text(prompt)) for prompt in texts)
            middle = sum(len(text.session) for text in usable) // len(usable)
            search = _search(
                model, usable, sets, mean, CostsAtContext(costs, middle, saved_seconds)
            )
            while (mask := search.propose()) is not None:
                if search.judged > 0 and time.monotonic() > deadline:
                    break
                records = _replay(usable, mask, search.settings.stretch)
                if search.judge(mask, records):
                    _keep(sets, kind, mean, search)
                    on_better()
                best = next((each for each in sets if each.kind == kind), None)
                on_progress(Progress(kind, time.monotonic() - began, search.judged, best))
            _keep(sets, kind, mean, search)
            on_better()
    return without_text


def _write(
    model: LanguageModel,
    prompt: Sequence[int],
    max_tokens: int,
    threads: int | None,
    stack: ExitStack,
    deadline: float,
) -> _Text | None:
    """Generates a text greedily; None if it is too short or cannot be replayed. Past the deadline
    it ends as soon as it is long enough to be judged by."""
    # Replays need as much room again as the text.
    n_ctx = len(prompt) + 2 * max_tokens
    session = stack.enter_context(model.open_session(n_ctx=n_ctx, threads=threads))
    with closing(Sampler(model, SamplerSettings())) as sampler:
        texts = generate(session, prompt, sampler, max_tokens=max_tokens)
        with closing(texts):
            for written, _ in enumerate(texts):
                if written > LEAST_TEXT and time.monotonic() > deadline:
                    break
    text = _Text(session, len(prompt))
    usable = text.tokens >= LEAST_TEXT and session.replay(NO_MASK, text.begin) is not None
    return text if usable else None


def _search(
    model: LanguageModel, texts: Sequence[_Text], sets: SkipSets, mean: Signature, costs: Costs
) -> MeasuredSearch:
    """A search that starts from the sets of all kinds, the nearest first."""
    known = sorted(sets, key=lambda each: -float(each.signature @ mean))
    search = MeasuredSearch(model.n_layer, costs, others=[each.found.mask for each in known])
    longest = max(texts, key=lambda text: text.tokens)
    end = len(longest.session)
    begin = max(longest.begin, end - _RANKED)
    found = ranking.orders(longest.session, begin, end, search.savings())
    if found is not None:
        sets.orders = found
    if sets.orders is not None:
        search.set_orders(sets.orders)
    return search


def _replay(texts: Sequence[_Text], mask: LayerMask, stretch: int) -> list[Record]:
    records: list[Record] = []
    for text in texts:
        found = replay_records(text.session, mask, text.begin, stretch=stretch)
        records += found or []
    return records


def _keep(sets: SkipSets, kind: str, mean: Signature, search: MeasuredSearch) -> None:
    if search.found is not None:
        sets.keep(SkipSet(kind, mean, search.found, search.memory()))
