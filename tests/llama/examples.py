"""llama-cpp-python's documented examples, for either class.

    python examples.py MODEL llama_cpp|edge_conflayers

Prints what each example returns as one JSON object. The first imports the ``llama_cpp`` that is
found, the second this package.
"""

from __future__ import annotations

import json
import sys
from typing import Any

SCHEMA = {
    "type": "object",
    "properties": {"team_name": {"type": "string", "maxLength": 12}},
    "required": ["team_name"],
}
USER_DETAIL = {
    "type": "function",
    "function": {
        "name": "UserDetail",
        "parameters": {
            "type": "object",
            "title": "UserDetail",
            "properties": {
                "name": {"title": "Name", "type": "string", "maxLength": 10},
                "age": {"title": "Age", "type": "integer", "minimum": 0, "maximum": 150},
            },
            "required": ["name", "age"],
        },
    },
}
ASSISTANT = "You are an assistant who perfectly describes images."
KEPT = ("model_path", "n_ctx", "n_threads", "seed", "lora_path", "chat_format", "verbose")
ARITHMETIC = 'root ::= "The answer is " [0-9] [0-9]? "."'


def examples(llm: Any, grammar: Any) -> dict[str, Any]:
    """What the examples of the README and the docstrings return."""
    found: dict[str, Any] = {}
    planets = "Q: Name the planets in the solar system? A: "
    found["text"] = llm(planets, max_tokens=32, stop=["Q:", "\n"], echo=True, temperature=0.0)
    found["completion"] = llm.create_completion(
        "The quick brown fox jumps ", max_tokens=24, temperature=0.0
    )
    found["sampled"] = llm("Once upon a time", max_tokens=32, seed=1337)
    found["sampled again"] = llm("Once upon a time", max_tokens=16)
    found["penalties"] = llm(
        "one one one", max_tokens=24, seed=3, repeat_penalty=1.3, presence_penalty=0.4
    )
    found["mirostat"] = llm("Rain", max_tokens=24, seed=3, mirostat_mode=2)
    found["mirostat 1"] = llm("Rain", max_tokens=16, seed=3, mirostat_mode=1)
    found["biased"] = llm("Rain", max_tokens=8, temperature=0.0, logit_bias={"30": 100.0})
    found["tokens"] = llm(llm.tokenize(b"Hello, world!"), max_tokens=8, temperature=0.0)
    found["stream"] = list(llm(planets, max_tokens=16, stop=["Q:"], stream=True, temperature=0.0))
    found["logprobs"] = llm(planets, max_tokens=6, logprobs=3, temperature=0.0)
    found["echoed logprobs"] = llm("A b c", max_tokens=2, logprobs=2, echo=True, temperature=0.0)
    found["grammar"] = llm("2+2? ", max_tokens=24, grammar=grammar, temperature=0.0)
    chat = [
        {"role": "system", "content": ASSISTANT},
        {"role": "user", "content": "Describe this image in detail please."},
    ]
    found["chat"] = llm.create_chat_completion(messages=chat, max_tokens=24, temperature=0.0)
    found["chat stream"] = list(
        llm.create_chat_completion(messages=chat, max_tokens=12, temperature=0.0, stream=True)
    )
    found["chat logprobs"] = llm.create_chat_completion(
        messages=chat, max_tokens=4, temperature=0.0, logprobs=True, top_logprobs=2
    )
    found["json schema"] = llm.create_chat_completion(
        messages=[{"role": "user", "content": "Who won the world series in 2020"}],
        response_format={"type": "json_object", "schema": SCHEMA},
        temperature=0.0,
        max_tokens=64,
    )
    extract = {
        "messages": [{"role": "user", "content": "Extract Jason is 25 years old"}],
        "tools": [USER_DETAIL],
        "tool_choice": {"type": "function", "function": {"name": "UserDetail"}},
        "temperature": 0.0,
        "max_tokens": 64,
    }
    found["tool"] = llm.create_chat_completion(**extract)
    found["tool stream"] = list(llm.create_chat_completion(**extract, stream=True))
    llm.set_seed(11)
    once = llm.tokenize(b"Once upon a time")
    found["generated"] = [token for token, _ in zip(llm.generate(once), range(12), strict=False)]
    llm.reset()
    llm.eval(once[:2])
    llm.eval(once[2:])
    found["steps"] = [llm.sample(temp=0.0), llm.n_tokens, list(llm.eval_tokens)]
    found["steps"] += [llm.scores[: llm.n_tokens].argmax(axis=1).tolist(), len(llm.eval_logits)]
    llm.n_tokens = 2
    found["steps"].append(list(llm.eval_tokens))
    tokens = llm.tokenize(b"Hello, world!")
    found["about"] = [
        tokens,
        llm.detokenize(tokens).decode(),
        llm.n_vocab(),
        llm.n_ctx(),
        llm.n_embd(),
        llm.token_eos(),
        llm.token_bos(),
        llm.token_nl(),
        llm.metadata["general.architecture"],
        llm.tokenizer().encode("Hello, world!"),
        sorted(name for name in llm.__getstate__() if name in KEPT),
    ]
    return found


def embeddings(llm: Any) -> dict[str, Any]:
    """What the example of embeddings returns."""
    one = llm.create_embedding("Hello, world!")
    return {"embedding": one, "several": llm.create_embedding(["Hello, world!", "Goodbye, world!"])}


def main(path: str, package: str) -> None:
    settings: dict[str, Any] = {
        "model_path": path,
        "n_ctx": 1024,
        "n_threads": 1,
        "seed": 1337,
        "verbose": False,
        "flash_attn": True,
        "logits_all": True,
    }
    if package == "llama_cpp":
        from llama_cpp import Llama, LlamaGrammar

        grammar: Any = LlamaGrammar.from_string(ARITHMETIC)
    else:
        from edge_conflayers import Llama  # type: ignore[assignment]

        settings |= {"kernels": "upstream", "fresh": True}
        grammar = ARITHMETIC
    llm = Llama(**settings)
    found = examples(llm, grammar)
    llm.close()
    settings.pop("logits_all")
    found["embeddings"] = embeddings(Llama(**settings, embedding=True))
    print(json.dumps(found, default=float))


if __name__ == "__main__":
    main(*sys.argv[1:])
