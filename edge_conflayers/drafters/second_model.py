"""A second model's session, which follows the text of the first, and the check that their
vocabularies are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session import TextSession
from edge_conflayers.errors import BadInput, EdgeConflayersError

# As in llama.cpp (common/speculative.cpp): vocabularies may differ in so many tokens of padding at
# the end, and in special tokens before the first one that is compared.
_MOST_DIFFERENT_SIZE = 128
_FIRST_COMPARED = 5


class OwnSession:
    """A second model's session, opened when it is first needed."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.session: TextSession | None = None

    def session_for(self, session: TextSession) -> TextSession:
        """The second model's session, with as much room and as many threads as the first one's."""
        own = self.session
        n_ctx = min(session.n_ctx, self.model.longest or session.n_ctx)
        if own is None or own.n_ctx < n_ctx or own.threads != session.threads:
            self.close()
            own = self.session = self.model.open_session(
                n_ctx=n_ctx, threads=session.threads, max_outputs=1
            )
        return own

    def close(self) -> None:
        """Frees the session."""
        if self.session is not None:
            self.session.close()
            self.session = None


def follow(session: TextSession, text: Sequence[int]) -> bool:
    """Makes a session hold a text, reading no more than it must, with the last token's logits.

    Args:
        text: at least one token, and no more than fit.

    Returns:
        Whether the session's model has all tokens of the text; if not, nothing was read.
    """
    if not align(session, text):
        return False
    session.read(text[len(session) :])
    return True


def align(session: TextSession, text: Sequence[int]) -> bool:
    """Rolls a session back to the longest common prefix with a text, less the text's last token.

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


def check_vocabulary(model: LanguageModel, draft_model: LanguageModel) -> None:
    """Checks that two models have the same vocabulary, but for a few tokens as in llama.cpp.

    Raises:
        BadInput: they have not.
    """
    why = _difference(model.vocab, draft_model.vocab)
    if why is not None:
        raise BadInput(
            f"{draft_model.path.name} cannot draft for {model.path.name}: {why};"
            " give a smaller model of the same family"
        )


def _difference(vocab: Any, other: Any) -> str | None:
    """How the second vocabulary differs, for a message; None if it does not."""
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
