"""Chooses among a model's bridges over dropped layers, by texts that it writes to judge them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from edge_conflayers.bridges.bridge import Bridge, Bridges, Floats
from edge_conflayers.bridges.replays import Text
from edge_conflayers.bridges.search import BridgedCosts, Judged, bridges_of, fastest
from edge_conflayers.bridges.streams import streams_of
from edge_conflayers.costs.model import CostsAtContext, StepCosts
from edge_conflayers.costs.timer import median_seconds
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary, typical_size
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.bridges import draft_beside, set_bridges
from edge_conflayers.tune.parallel_texts import FinishedText, ParallelTexts, Request

_TESTS = 8  # texts that bridges are judged by; not tuned
_TEST_TOKENS = 72  # of each; not tuned
_ALMOST_GREEDY = 0.05  # their temperature
_LONGEST = 512  # tokens of a text; not tuned
_REPEATS = 7  # of the drafts that the map's cost is measured by; not tuned


def choose_bridges(
    model: Model,
    bridges: Sequence[Bridge],
    texts: Sequence[FinishedText],
    costs: StepCosts,
    savings: Mapping[int, float],
    *,
    seconds: float,
    known: Bridges | None = None,
    threads: int | None = None,
    on_judged: Callable[[Judged], None] = lambda judged: None,
) -> Bridges | None:
    """Judges bridges over one block each, and takes the one that is predicted to be fastest.

    Args:
        bridges: to choose from, the most promising first.
        texts: that they were taught with. Some of their prompts are answered once more to judge by.
        costs: what steps cost.
        savings: seconds that a draft vocabulary saves of a draft step, by its size.
        seconds: the time for it; one bridge is judged in any case.
        known: an earlier one, which is judged as well.
        threads: CPU threads; None for the machine's physical cores.
        on_judged: called after each bridge.

    Returns:
        None if there are none to choose from, or no texts or no room to judge them by.

    Raises:
        BadInput: the model cannot be served by bridges.
    """
    deadline = time.monotonic() + seconds
    written = Counter(token for text in texts for token in text.tokens)
    vocabulary = DraftVocabulary(model)
    vocabulary.expect(written)
    vocabulary.size = typical_size(savings, vocabulary, costs, 0)
    if known is not None:
        bridges = [*known.bridges[:1], *bridges]
    with ExitStack() as stack:
        tests = _tests(model, texts, vocabulary, threads, stack) if texts and bridges else []
        if not tests:
            return None
        context = sum(len(text.session) for text in tests) // len(tests)
        at_context = CostsAtContext(costs, context, savings.get(vocabulary.size, 0.0))
        map_cost = _map_seconds(tests[0], bridges[0]) / costs.t1(context)
        best = fastest(
            *(bridges, tests, BridgedCosts(at_context, map_cost)),
            deadline=deadline,
            on_judged=on_judged,
        )
    return replace(bridges_of(best), vocabulary_size=vocabulary.size, written=written)


def _tests(
    model: Model,
    texts: Sequence[FinishedText],
    vocabulary: DraftVocabulary,
    threads: int | None,
    stack: ExitStack,
) -> list[Text]:
    """Some of the texts' prompts, answered almost greedily, in a session each."""
    prompts = {tuple(text.request.prompt) for text in texts}
    some = sorted(prompts)[:: max(1, len(prompts) // _TESTS)][:_TESTS]
    answers: dict[tuple[int, ...], list[int]] = {}
    with ParallelTexts(
        model, n_parallel=len(some), n_ctx=_LONGEST, threads=threads, temperature=_ALMOST_GREEDY
    ) as parallel:
        for each in parallel.write(Request(prompt, _TEST_TOKENS) for prompt in some):
            if isinstance(each, FinishedText):
                answers[tuple(each.request.prompt)] = each.tokens
    tests = []
    for prompt, answer in answers.items():
        tokens = [*prompt, *answer]
        session = stack.enter_context(
            model.open_session(n_ctx=2 * len(tokens) + 64, threads=threads)
        )
        assert isinstance(session, Session)
        session.read(tokens)
        streams = streams_of(session, tokens, range(model.n_layer))
        if streams is not None and len(answer) > 1 and len(prompt) > 1:
            vocabulary.begin(session, prompt)
            tests.append(Text(session, len(prompt), streams))
    return tests


def _map_seconds(text: Text, bridge: Bridge) -> float:
    """By how much a map makes a draft step longer."""
    block = (bridge.begin, bridge.end)
    mask, place = LayerMask.layers(range(*block)), text.begin
    before = text.before(place, [block])

    def seconds(states: Floats | None) -> float:
        started = time.perf_counter()
        draft_beside(text.session, mask, place, states, limit=1, stop_probability=0.0)
        return time.perf_counter() - started

    set_bridges(text.session, [(*block, bridge.weights)])
    try:
        times = median_seconds(
            {"with": lambda: seconds(before), "without": lambda: seconds(None)}, repeats=_REPEATS
        )
    finally:
        set_bridges(text.session, [])
    return max(0.0, times["with"] - times["without"])
