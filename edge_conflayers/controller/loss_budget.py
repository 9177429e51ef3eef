"""Time that drafts win and lose in a text, and how much of it may still be lost."""

from __future__ import annotations

from dataclasses import dataclass

from edge_conflayers.engine.draft import ROOT, Draft

_RATE_FADE = 0.97
_EVIDENCE_FADE = 0.8
# In one-token steps; of what exceeds the doubt, a share may be lost.
_DOUBT = 1.0
_MOST_EVIDENCE = 8.0
_TRUSTED = 0.5
_CONVINCING = 2.0  # won by a draft that was not verified: enough to see how good it is
# A step that takes longer than this many times what it should was held up by something else on the
# machine, which would have held up plain decoding as well.
_HELD_UP = 1.5


@dataclass(frozen=True)
class Allowance:
    """How much time may be lost on drafts that turn out not to pay.

    Attributes:
        share: of the time of the text so far.
        steps: one-token steps' time at the start of a text.
        of_savings: of the time that drafts have saved so far.
    """

    share: float = 0.003
    steps: float = 1.25
    of_savings: float = 0.8


class Account:
    """Of one text, in seconds.

    Besides what drafts have won, *evidence* is kept of what they win at present, those that were
    too risky to be verified included: without it, a text that begins badly would be decoded
    plainly to its end, however often it repeats itself later.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self.elapsed = 0.0
        self.won = 0.0
        self._evidence = 0.0
        self._tokens = 0.0
        self._seconds = 0.0

    def spare(self, t1: float) -> float:
        """Seconds that may be lost now."""
        allowance = self._allowance
        reserve = allowance.share * self.elapsed + allowance.steps * t1
        left = reserve + (self.won if self.won < 0 else self.won * allowance.of_savings)
        return max(left, _TRUSTED * (self._evidence - _DOUBT * t1))

    def at_risk(self, t1: float, share: float) -> float:
        """Seconds of ``spare`` that one draft may risk: what may be lost of what was won, and a
        share of everything."""
        spare = self.spare(t1)
        return max(share * spare, min(spare, self._allowance.of_savings * self.won))

    def rate(self, t1: float) -> float:
        """Tokens per second that time is worth."""
        recent = self._tokens / self._seconds if self._seconds > 0 else 0.0
        return max(1 / t1, recent)

    def add(self, tokens: int, seconds: float, t1: float) -> None:
        """A round with a draft."""
        self._count(tokens, seconds)
        self.won += tokens * t1 - seconds
        self.add_evidence(tokens * t1 - seconds, t1)

    def add_plain(self, seconds: float, overhead: float, rounds: int = 1) -> None:
        """A round without, or some, of which looking for one took so long."""
        self._count(rounds, seconds, rounds)
        self.won -= overhead

    def add_evidence(self, won: float, t1: float) -> None:
        """What a draft won or would have won."""
        evidence = self._evidence * _EVIDENCE_FADE + won
        self._evidence = min(evidence, _MOST_EVIDENCE * t1)

    def spend(self, seconds: float) -> None:
        """Time that went into something else than this text."""
        self.elapsed += seconds
        self.won -= seconds

    def _count(self, tokens: int, seconds: float, rounds: int = 1) -> None:
        self.elapsed += seconds
        faded = _RATE_FADE**rounds
        self._tokens = self._tokens * faded + tokens
        self._seconds = self._seconds * faded + seconds


class Shadow:
    """A draft that was not verified, followed as the text goes on without it.

    Args:
        seconds: what verifying it would have taken.
    """

    def __init__(self, draft: Draft, seconds: float) -> None:
        self.draft = draft
        self._seconds = seconds
        self.path: list[int] = []  # accepted so far
        self._ended = False

    def follow(self, token: int) -> None:
        """The full model drew this token next."""
        child = self.draft.child(self.path[-1] if self.path else ROOT, token)
        if child is None:
            self._ended = True
        else:
            self.path.append(child)

    @property
    def tried(self) -> list[int]:
        """The nodes of which it is known what the full model drew next."""
        nodes = [ROOT, *self.path]
        return nodes if self._ended else nodes[:-1]

    def tells(self, t1: float) -> bool:
        """Whether enough is known of it."""
        return self._ended or self.won(t1) >= _CONVINCING * t1

    def won(self, t1: float) -> float:
        """Seconds that it would have won over plain decoding so far."""
        return (len(self.path) + 1) * t1 - self._seconds


def undisturbed(seconds: float, expected: float) -> float:
    """The time of a step less what held up the whole machine meanwhile."""
    return min(seconds, _HELD_UP * expected)
