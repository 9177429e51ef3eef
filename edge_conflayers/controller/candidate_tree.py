"""Candidate tokens of the library's sources, and the choice of those that are worth verifying.

What the sources know, their trees and the choice are C++ (``native/include/ecl_sources.h``): on a
small model a step takes milliseconds, and they are asked before every one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from edge_conflayers.controller.acceptance import CHANCE_BINS, AcceptanceChances
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.drafters.native_source import MOST_CANDIDATES, GivenSource, NativeSource
from edge_conflayers.drafters.source import CandidateSource
from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import Draft

# Tokens verified together. Each number has a compute graph of its own, of which few stay alive.
SIZES = (2, 3, 4, 6, 8, 16, 24)


class Candidates:
    """The candidates of several sources, as one tree.

    Sources are taken to err independently: a token that several propose is accepted unless all of
    them are wrong, and one that an earlier source does not propose can only have the probability
    that its proposals leave.

    Args:
        times: of full steps.
        chances: that a source's candidates are accepted.
        sizes: how many tokens may be verified together, ascending, at most 32.
    """

    def __init__(
        self,
        sources: Sequence[CandidateSource],
        times: StepTimes,
        chances: AcceptanceChances,
        sizes: Sequence[int] = SIZES,
    ) -> None:
        self.sources = tuple(sources)
        self._times = times
        self._names = tuple(source.name for source in sources)
        self._others = [
            (i, source) for i, source in enumerate(sources) if not isinstance(source, NativeSource)
        ]
        self._handles = (ctypes.c_void_p * len(sources))(
            *(getattr(source, "handle", None) for source in sources)
        )
        doubles = ctypes.POINTER(ctypes.c_double)
        self._chances = (doubles * len(sources))(
            *(ctypes.cast(chances.lines(name), doubles) for name in self._names)
        )
        self._sizes = (ctypes.c_int32 * len(sizes))(*sizes)
        self._terms = binding.Terms(
            v=ctypes.cast(times.multiples, doubles),
            n_v=len(times.multiples) - 1,
            sizes=ctypes.cast(self._sizes, ctypes.POINTER(ctypes.c_int32)),
            n_sizes=len(sizes),
            most=MOST_CANDIDATES,
            n_bins=CHANCE_BINS,
        )
        self._choice = binding.Choice()
        self._arguments = (
            *(self._handles, self._chances, len(sources)),
            *(ctypes.byref(self._terms), ctypes.byref(self._choice)),
        )

    def choose(
        self,
        n_pending: int,
        limit: int,
        *,
        rate: float,
        spare: float,
        least_chance: float,
        chain: bool,
    ) -> tuple[Draft, float]:
        """The candidates that are worth most, if any are worth their time.

        Args:
            n_pending: tokens that are verified before them.
            limit: most candidates.
            rate: tokens that a second is worth.
            spare: seconds that may be lost if none is accepted.
            least_chance: of a candidate and all before it to be accepted.
            chain: no trees.

        Returns:
            A draft whose first row is the likeliest chain, and its gain in tokens: those that are
            expected to be accepted less what their time is worth.
        """
        if limit <= 0:
            return _NOTHING
        given = []  # lives as long as the call
        for i, source in self._others:
            draft = source.candidates(
                min(limit, MOST_CANDIDATES), least=least_chance / 2, chain=chain
            )
            given.append(GivenSource(source.name, draft))
            self._handles[i] = given[-1].handle
        terms, choice = self._terms, self._choice
        terms.rate, terms.spare, terms.least_chance = rate, spare, least_chance
        terms.t1 = self._times.t1
        terms.n_pending, terms.limit, terms.chain = n_pending, limit, chain
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


_NOTHING = Draft(), 0.0
