"""The candidates of all sources as one tree, and the part of it that is worth verifying.

The sources' data, their trees and the choice are C++ (``native/include/ecl_sources.h``): they are
asked before every step, and a small model's step takes milliseconds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from edge_conflayers.controller.acceptance import PROBABILITY_BINS, AcceptanceRates
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.drafters.native_source import MAX_CANDIDATES
from edge_conflayers.drafters.source import CandidateSource
from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import NO_DRAFT, Draft

# Tokens verified together. Each number has a compute graph of its own, of which eight stay alive.
SIZES = (2, 3, 4, 6, 8, 16, 24)


class CandidateTree:
    """Merges the candidates of several sources and chooses among them.

    Sources are taken to err independently (1.17 to 1.23 over 53 recorded texts of the 1.5B,
    2026-11-23): a token that several propose is accepted unless all of them are wrong, and one that
    an earlier source does not propose can only have the probability that its proposals leave.

    Args:
        times: of full-model steps.
        acceptance: rates of the sources' candidates.
        sizes: how many tokens may be verified together, ascending, at most 32.
    """

    def __init__(
        self,
        sources: Sequence[CandidateSource],
        times: StepTimes,
        acceptance: AcceptanceRates,
        sizes: Sequence[int] = SIZES,
    ) -> None:
        self._times = times
        self._names = tuple(source.name for source in sources)
        self._sources = tuple(sources)  # keeps their handles alive
        handles = (ctypes.c_void_p * len(sources))(*(source.handle for source in sources))
        doubles = ctypes.POINTER(ctypes.c_double)
        rates = (doubles * len(sources))(
            *(ctypes.cast(acceptance.lines(name), doubles) for name in self._names)
        )
        self._sizes = (ctypes.c_int32 * len(sizes))(*sizes)
        self._terms = binding.Terms(
            v=ctypes.cast(times.multiples, doubles),
            n_v=len(times.multiples) - 1,
            sizes=ctypes.cast(self._sizes, ctypes.POINTER(ctypes.c_int32)),
            n_sizes=len(sizes),
            max_per_source=MAX_CANDIDATES,
            n_bins=PROBABILITY_BINS,
        )
        self._choice = binding.Choice()
        self._arguments = (
            *(handles, rates, len(sources)),
            *(ctypes.byref(self._terms), ctypes.byref(self._choice)),
        )

    def choose(
        self,
        n_pending: int,
        limit: int,
        *,
        tokens_per_second: float,
        budget: float,
        min_acceptance: float,
        chain: bool,
    ) -> tuple[Draft, float]:
        """Returns the candidates that are worth most, if any are worth their time.

        Args:
            n_pending: tokens that are verified before them.
            limit: most candidates.
            tokens_per_second: what a second must bring.
            budget: seconds that may be lost if none is accepted.
            min_acceptance: least rate of a candidate with all before it.
            chain: no trees.

        Returns:
            A draft that begins with the likeliest chain, and its gain in tokens: those expected to
            be accepted, less what their time is worth.
        """
        if limit <= 0:
            return _NOTHING
        terms, choice = self._terms, self._choice
        terms.tokens_per_second, terms.loss_budget = tokens_per_second, budget
        terms.min_chance = min_acceptance
        terms.t1 = self._times.t1
        terms.n_pending, terms.max_draft, terms.chain_only = n_pending, limit, chain
        n = binding.ecl_choose(*self._arguments)
        if n <= 0:  # without memory there are no candidates either
            return _NOTHING
        names = self._names
        draft = Draft(
            tuple(choice.tokens[:n]),
            tuple(choice.probabilities[:n]),
            tuple(choice.parents[:n]),
            tuple(names[source] for source in choice.sources[:n]),
        )
        return draft, choice.gain


_NOTHING = NO_DRAFT, 0.0
