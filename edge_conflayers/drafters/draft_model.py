"""A second, smaller model drafts (Leviathan et al., arXiv 2211.17192): the usual alternative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_conflayers.binding import llama
from edge_conflayers.draft import Draft, Round
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.model import Model
from edge_conflayers.session import Session

NAME = "draft-model"

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
        self._session: Session | None = None

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        follow(self._session_for(session), session.tokens)

    def draft(self, session: Session, pending: Sequence[int], limit: int) -> Draft:
        own = self._session_for(session)
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
        if self._session is not None:
            self._session.close()
            self._session = None

    def _session_for(self, session: Session) -> Session:
        own = self._session
        if own is None or own.n_ctx < session.n_ctx or own.threads != session.threads:
            self.close()
            own = self._session = Session(
                self.model, n_ctx=session.n_ctx, threads=session.threads, max_outputs=1
            )
        return own


def follow(session: Session, text: Sequence[int]) -> bool:
    """Brings a session to a text that fits in it, reading no more than it must; the last token's
    logits are kept.

    Returns:
        Whether the session's model has all tokens of the text; if not, nothing was read.
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
    session.read(text[len(session) :])
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
