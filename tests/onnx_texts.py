"""Texts that other runtimes generate from an exported folder, against llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from steps import open_session, step

from edge_conflayers.chat import ChatTemplate, Message
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.special_tokens import SpecialTokens

TIE = 1e-3
"""Logits closer than this may be told apart either way: llama.cpp caches in float16."""

TINY_TIE = 5e-3
"""The same in tiny random models, whose best logits are close to each other."""

PROMPTS = ("The capital of France is", "def fibonacci(n):", "Once upon a time, in a small village,")
MESSAGES: list[Message] = [{"role": "user", "content": "Who wrote Hamlet?"}]


def assert_follows(
    model: Model, prompt: str, tokens: Sequence[int], n: int, *, tie: float = TIE
) -> int:
    """Greedy decoding gives these tokens after a prompt, up to a tie; fewer than ``n`` only if the
    text ends.

    Returns:
        how many were compared.
    """
    assert 0 < len(tokens) <= n
    with open_session(model, n_ctx=512) as session:
        logits = step(session, model.tokenize(prompt))[-1]
        for count, token in enumerate(tokens):
            best = int(logits.argmax())
            if token != best:
                assert logits[best] - logits[token] < tie, (prompt, count)
                return count
            if model.ends_text(token):
                assert count == len(tokens) - 1
                return count
            logits = step(session, [token])[-1]
        # GenAI does not give back the token that ended the text.
        assert len(tokens) == n or model.ends_text(int(logits.argmax()))
    return len(tokens)


def rendered(model: Model) -> str:
    """MESSAGES in the model's chat template; empty without one."""
    if model.chat_template is None:
        return ""
    special = SpecialTokens(model)
    template = ChatTemplate(
        model.chat_template,
        name=str(model.path),
        bos=special.name(special.bos),
        eos=special.name(special.eos),
    )
    return template.render(MESSAGES).text
