"""The loss budget: how much time drafts may still lose in a text."""

from __future__ import annotations

from dataclasses import dataclass

# Fade of the recent tokens and seconds, a round; 0.85 gave the same speed on ten HumanEval and
# GSM8K prompts (1.42 over plain, 2026-11-23).
_RATE_FADE = 0.97
# How evidence counts: its fade a draft, the one-token steps of it that are disregarded, its cap in
# one-token steps, and the share of the rest that may be lost. Not tuned.
_EVIDENCE_FADE = 0.8
_EVIDENCE_IGNORED = 1.0
_EVIDENCE_CAP = 8.0
_EVIDENCE_SHARE = 0.5
# A step that takes this many times what it should was held up by something else on the machine,
# which would have held up plain decoding as well. Not tuned.
_HELD_UP = 1.5


@dataclass(frozen=True)
class BudgetSettings:
    """What a text may lose on drafts that do not pay: the sum of three parts.

    1.25 steps and 0.3 % kept SmolLM2's slowest texts within 1 % of plain decoding (25 repeats,
    2026-11-25); 0.8 steps and 0.6 % had 0.985.

    Attributes:
        first_steps: one-token steps, at the start.
        of_elapsed: share of the text's time so far.
        of_savings: share of the time that drafts have saved so far; not tuned.
    """

    of_elapsed: float = 0.003
    first_steps: float = 1.25
    of_savings: float = 0.8


class LossBudget:
    """Time won and lost while generating one text, in seconds.

    Besides what drafts have won, it keeps *evidence* of what they would win at present, counting
    drafts that were too risky to verify. Without it, a text that begins badly would be decoded
    plainly to its end, however often it repeats itself later.

    Attributes:
        elapsed: seconds of the text so far.
        won: seconds saved by drafts so far, less what deciding and searching took.
    """

    def __init__(self, settings: BudgetSettings) -> None:
        self._settings = settings
        self.elapsed = 0.0
        self.won = 0.0
        self._evidence = 0.0
        self._tokens = 0.0  # recent
        self._seconds = 0.0  # recent

    def left(self, t1: float) -> float:
        """Seconds that may be lost now.

        Args:
            t1: seconds of a one-token step.
        """
        settings = self._settings
        granted = settings.of_elapsed * self.elapsed + settings.first_steps * t1
        left = granted + (self.won if self.won < 0 else self.won * settings.of_savings)
        return max(left, _EVIDENCE_SHARE * (self._evidence - _EVIDENCE_IGNORED * t1))

    def for_one_draft(self, t1: float, share: float) -> float:
        """Seconds of ``left`` that one draft may risk: what may be lost of the savings, or a share
        of everything, whichever is more."""
        left = self.left(t1)
        return max(share * left, min(left, self._settings.of_savings * self.won))

    def tokens_per_second(self, t1: float) -> float:
        """What a second has brought lately, and at least what plain decoding brings."""
        recent = self._tokens / self._seconds if self._seconds > 0 else 0.0
        return max(1 / t1, recent)

    def add_draft(self, tokens: int, seconds: float, t1: float) -> None:
        """Counts a round with a draft, which gave so many tokens."""
        self._count(tokens, seconds)
        self.won += tokens * t1 - seconds
        self.add_evidence(tokens * t1 - seconds, t1)

    def add_plain(self, seconds: float, overhead: float, rounds: int = 1) -> None:
        """Counts rounds without a draft; ``overhead`` of their time went into looking for one."""
        self._count(rounds, seconds, rounds)
        self.won -= overhead

    def add_evidence(self, won: float, t1: float) -> None:
        """Counts what a draft won or would have won."""
        evidence = self._evidence * _EVIDENCE_FADE + won
        self._evidence = min(evidence, _EVIDENCE_CAP * t1)

    def spend(self, seconds: float) -> None:
        """Counts time that went into something else than this text."""
        self.elapsed += seconds
        self.won -= seconds

    def _count(self, tokens: int, seconds: float, rounds: int = 1) -> None:
        self.elapsed += seconds
        fade = _RATE_FADE**rounds
        self._tokens = self._tokens * fade + tokens
        self._seconds = self._seconds * fade + seconds


def without_hold_ups(seconds: float, expected: float) -> float:
    """A step's time without what held up the whole machine meanwhile."""
    return min(seconds, _HELD_UP * expected)
