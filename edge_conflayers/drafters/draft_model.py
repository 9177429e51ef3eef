"""A second, smaller model drafts (Leviathan et al., arXiv 2211.17192): the usual alternative."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from edge_conflayers.binding import llama
from edge_conflayers.draft import Draft, Round
from edge_conflayers.drafters.arm import Expectations, Plan, Prior
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.estimates import AcceptanceChances, StepTimes
from edge_conflayers.model import Model
from edge_conflayers.session import NO_MASK, Session
from edge_conflayers.vocabulary import DraftVocabulary

NAME = "draft-model"

_VOCABULARY = 16384  # tokens; of an LM head over 150,000 it leaves a tenth
_DRAFTED, _ACCEPTED = 3.0, 2.0  # tokens a round, before there were any
_MOST_UNREAD = 16  # tokens that are read together with the last one

# What may differ: the padding at the end, and special tokens at the start.
_MOST_DIFFERENT_SIZE = 128
_FIRST_COMPARED = 5


class DraftModelDrafter:
    """Drafts greedily with a model of its own, whose session follows the text.

    Args:
        model: has the vocabulary of the model it drafts for; stays open as long as the drafter.
        stop_probability: a drafted token less likely than this ends the draft and is not in it.
        max_draft: most tokens in a draft.
    """

    def __init__(self, model: Model, *, stop_probability: float = 0.6, max_draft: int = 8) -> None:
        self.model = model
        self.stop_probability = stop_probability
        self.max_draft = max_draft
        self._own = OwnSession(model)

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        follow(self._own.session_for(session), session.tokens)

    def draft(self, session: Session, pending: Sequence[int], limit: int) -> Draft:
        own = self._own.session_for(session)
        limit = min(limit, self.max_draft, own.n_ctx - len(session) - len(pending) + 1)
        if limit <= 0 or not follow(own, [*session.tokens, *pending]):
            return Draft()
        tokens: list[int] = []
        probabilities: list[float] = []
        while True:
            token, probability = own.best()
            if probability < self.stop_probability or token >= session.model.n_vocab:
                break
            tokens.append(token)
            probabilities.append(probability)
            if len(tokens) == limit or session.model.ends_text(token):
                break
            own.step([token])
        return Draft(tuple(tokens), tuple(probabilities), sources=(NAME,) * len(tokens))

    def learn(self, session: Session, round: Round) -> None:
        """It learns nothing; the next draft starts where its text and this one part."""

    def report(self) -> dict[str, Any]:
        return {"draft_model": self.model.path.name}

    def close(self) -> None:
        """Frees its session."""
        self._own.close()


class DraftModelArm:
    """A second model as the controller weighs it. It drafts from a draft vocabulary.

    Args:
        model: as for DraftModelDrafter.
        calibration: chances of acceptance by probability, kept by the controller.
        max_draft: most tokens in a draft.
    """

    def __init__(
        self,
        model: Model,
        calibration: AcceptanceChances,
        *,
        max_draft: int = 15,
    ) -> None:
        self.model = model
        self._own = OwnSession(model)
        self._vocabulary = DraftVocabulary(model, size=_VOCABULARY)
        self._expected = Expectations(NAME, calibration, max_draft)
        self._shortened = True  # whether it drafts from that vocabulary
        self._timed = False

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        """A text begins, whose prompt the session holds."""
        own = self._own.session_for(session)
        follow(own, session.tokens)
        if self._shortened:
            try:
                self._vocabulary.begin(own, prompt)
                if not self._timed:
                    _draft_one(own)  # only its graph tells whether the head can be served
            except BadInput:  # it drafts from all tokens
                self._shortened = False
                own.set_draft_vocabulary(())
        if self._timed:
            self._expected.begin_text()
        else:
            self._expected.restart(Prior(_ACCEPTED, _DRAFTED, seconds=_draft_one(own)))
            self._timed = True

    def plan(self, rate: float, times: StepTimes, n_pending: int, limit: int, spare: float) -> Plan:
        """See ``Arm.plan``."""
        return self._expected.plan(rate, times, n_pending, limit, spare)

    def draft(
        self, session: Session, pending: Sequence[int], limit: int, rate: float, times: StepTimes
    ) -> Draft:
        """See ``Arm.draft``."""
        own = self._own.session_for(session)
        text = [*session.tokens, *pending]
        if len(text) > own.n_ctx or not align(own, text):
            return Draft()
        if len(text) - len(own) > _MOST_UNREAD:
            own.read(text[len(own) : -1])
        draft = own.draft(
            NO_MASK,
            text[len(own) :],
            limit=limit,
            stop_probability=0.0,
            stop_path=self._expected.least_to_go_on(rate, times, len(pending)),
            least_path=self._expected.least_to_verify(rate, times, len(pending)),
            acceptance=self._expected.calibration.table(NAME),
            keep=True,
        )
        known = list(takewhile(lambda token: token < session.model.n_vocab, draft.tokens))
        n = len(known)
        return Draft(tuple(known), draft.probabilities[:n], sources=(NAME,) * n)

    def observe(self, round: Round) -> None:
        """See ``Arm.observe``."""
        self._expected.observe(round)
        own = self._own.session
        if own is not None:
            with contextlib.suppress(BadInput):
                self._vocabulary.observe(own, round.drawn)

    def report(self) -> dict[str, Any]:
        return {"draft_model": self.model.path.name}

    def close(self) -> None:
        """Frees its session."""
        self._own.close()


def _draft_one(session: Session) -> float:
    """Seconds of drafting one token, which is taken back."""
    began = time.perf_counter()
    session.draft(NO_MASK, session.tokens[-1:], limit=1, stop_probability=0.0)
    return time.perf_counter() - began


class OwnSession:
    """A second model's session, which follows texts of the first one's."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.session: Session | None = None

    def session_for(self, session: Session) -> Session:
        """One with as much room and as many threads, the same as long as they are."""
        own = self.session
        if own is None or own.n_ctx < session.n_ctx or own.threads != session.threads:
            self.close()
            own = self.session = Session(
                self.model, n_ctx=session.n_ctx, threads=session.threads, max_outputs=1
            )
        return own

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None


def follow(session: Session, text: Sequence[int]) -> bool:
    """Brings a session to a text that fits in it, reading no more than it must; the last token's
    logits are kept.

    Returns:
        Whether the session's model has all tokens of the text; if not, nothing was read.
    """
    if not align(session, text):
        return False
    session.read(text[len(session) :])
    return True


def align(session: Session, text: Sequence[int]) -> bool:
    """Takes a session back to where its text and this one part, and before the last token of it.

    Returns:
        Whether the session's model has all tokens of the text; if not, nothing was done.
    """
    known = min(len(session), len(text) - 1)
    if session.tokens[:known] != text[:known]:
        pairs = zip(session.tokens, text, strict=False)
        known = next(i for i, (held, wanted) in enumerate(pairs) if held != wanted)
    if max(text[known:]) >= session.model.n_vocab:
        return False
    try:
        session.rollback(known)
    except EdgeConflayersError:  # it has forgotten too much, or cannot forget at all
        session.clear()
    return True


def check_vocabulary(model: Model, draft_model: Model) -> None:
    """Finds out whether the tokens of two models are the same; a few may differ, as llama.cpp's own
    speculation has it.

    Raises:
        BadInput: they are not.
    """
    why = _difference(model.vocab, draft_model.vocab)
    if why is not None:
        raise BadInput(
            f"{draft_model.path.name} cannot draft for {model.path.name}: {why};"
            " give a smaller model of the same family"
        )


def _difference(vocab: Any, other: Any) -> str | None:
    if llama.llama_vocab_type(vocab) != llama.llama_vocab_type(other):
        return "its tokenizer is of another kind"
    for what, added, token in (
        ("begin", llama.llama_vocab_get_add_bos, llama.llama_vocab_bos),
        ("end", llama.llama_vocab_get_add_eos, llama.llama_vocab_eos),
    ):
        if added(vocab) != added(other) or (added(vocab) and token(vocab) != token(other)):
            return f"its texts {what} with another token"
    size, other_size = llama.llama_vocab_n_tokens(vocab), llama.llama_vocab_n_tokens(other)
    if abs(size - other_size) > _MOST_DIFFERENT_SIZE:
        return f"it has {other_size} tokens, not {size}"
    text = llama.llama_vocab_get_text
    for token in range(_FIRST_COMPARED, min(size, other_size)):
        if text(vocab, token) != text(other, token):
            return f"its token {token} is another"
    return None
