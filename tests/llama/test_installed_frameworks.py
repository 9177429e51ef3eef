"""LangChain, LlamaIndex, outlines and instructor over this package, where they are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from installed import PACKAGE
from steps import RealModel

HEAD = """
import edge_conflayers
edge_conflayers.install_as_llama_cpp()
MODEL = {model!r}
"""

LANGCHAIN = """
from langchain_community.chat_models import ChatLlamaCpp
from langchain_community.embeddings import LlamaCppEmbeddings
from langchain_community.llms import LlamaCpp
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel, Field

class Tokens(BaseCallbackHandler):
    def __init__(self):
        self.seen = []
    def on_llm_new_token(self, token, **kwargs):
        self.seen.append(token)

llm = LlamaCpp(model_path=MODEL, n_ctx=1024, temperature=0.0, max_tokens=24, verbose=False)
assert isinstance(llm.client, edge_conflayers.Llama)
text = llm.invoke("The capital of France is")
heard = Tokens()
assert llm.invoke("The capital of France is", config={"callbacks": [heard]}) == text and text
assert "".join(heard.seen) == text
assert "".join(llm.stream("The capital of France is")) == text
assert llm.batch(["The capital of France is", "One, two,"])[0] == text
stop = text[4:7]
assert llm.invoke("The capital of France is", stop=[stop]) == text[: text.index(stop)]
assert llm.get_num_tokens("one two three") >= 3
ruled = LlamaCpp(
    model_path=MODEL, n_ctx=256, verbose=False, max_tokens=4, grammar='root ::= "yes" | "no"'
)
assert ruled.invoke("Is Paris in France?") in ("yes", "no")

chat = ChatLlamaCpp(
    model_path=MODEL, n_ctx=2048, temperature=0.0, max_tokens=64, verbose=False,
    repeat_penalty=1.0, rope_freq_scale=0.0, rope_freq_base=0.0,
)
messages = [SystemMessage("Answer in one word."), HumanMessage("What is the capital of France?")]
answer = chat.invoke(messages)
assert "Paris" in answer.content, answer
assert "".join(each.content for each in chat.stream(messages)) == answer.content
assert [each.content for each in chat.batch([messages, messages])] == [answer.content] * 2
heard = Tokens()
chat.invoke(messages, config={"callbacks": [heard]})
assert "".join(heard.seen) == answer.content
chain = ChatPromptTemplate.from_messages([("human", "Say {word}.")]) | chat | StrOutputParser()
assert isinstance(chain.invoke({"word": "hello"}), str)

@tool
def get_weather(city: str) -> str:
    "Get the current weather in a city."
    return "green"

ask = HumanMessage("What is the weather in Paris? Call the tool.")
able = chat.bind_tools([get_weather])
called = able.invoke([ask])
(call,) = called.tool_calls
assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"}), called
whole = None
for chunk in able.stream([ask]):
    whole = chunk if whole is None else whole + chunk
assert [(c["name"], c["args"]) for c in whole.tool_calls] == [("get_weather", {"city": "Paris"})]
after = able.invoke([ask, called, ToolMessage("green", tool_call_id=call["id"])])
assert isinstance(after, AIMessage)

class Capital(BaseModel):
    "The capital of a country."
    city: str = Field(max_length=12)
    country: str = Field(max_length=12)

structured = chat.with_structured_output(Capital)
found = structured.invoke("What is the capital of France?")
assert isinstance(found, Capital) and found.city == "Paris", found
streamed = list(structured.stream("What is the capital of France?"))
assert streamed[-1] == found, streamed
whole = chat.with_structured_output(Capital, include_raw=True)
raw = whole.invoke("What is the capital of France?")
assert raw["parsed"] == found and raw["parsing_error"] is None

embeddings = LlamaCppEmbeddings(model_path=MODEL, n_ctx=256, verbose=False)
assert len(embeddings.embed_query("hello")) == len(embeddings.embed_documents(["a", "b"])[0])
"""

LLAMA_INDEX = """
from llama_index.core.llms import ChatMessage
from llama_index.llms.llama_cpp import LlamaCPP

llm = LlamaCPP(
    model_path=MODEL, temperature=0.0, max_new_tokens=24, context_window=1024, verbose=False
)
text = llm.complete("The capital of France is").text
assert text
assert [each.text for each in llm.stream_complete("The capital of France is")][-1] == text
answer = llm.chat([ChatMessage(role="user", content="What is the capital of France?")])
assert answer.message.content
parts = list(llm.stream_chat([ChatMessage(role="user", content="What is the capital of France?")]))
assert parts[-1].message.content == answer.message.content
assert llm.metadata.context_window == 1024
"""

OUTLINES = """
import json
from typing import Literal
import outlines
from llama_cpp import Llama
from pydantic import BaseModel, Field

class Capital(BaseModel):
    city: str = Field(max_length=10)

llm = Llama(MODEL, n_ctx=512, verbose=False)
model = outlines.from_llamacpp(llm)
found = model("The capital of France, as JSON: ", Capital, max_tokens=32, temperature=0.0)
assert json.loads(found).keys() == {"city"}, found
assert model("Is Paris in France? ", Literal["yes", "no"], max_tokens=4) in ("yes", "no")
assert "".join(model.stream("One, two,", max_tokens=8, temperature=0.0))
"""

INSTRUCTOR = """
import instructor
from llama_cpp import Llama
from pydantic import BaseModel, Field

class Capital(BaseModel):
    city: str = Field(max_length=10)

llm = Llama(MODEL, n_ctx=1024, verbose=False)
create = instructor.patch(
    create=llm.create_chat_completion_openai_v1, mode=instructor.Mode.JSON_SCHEMA
)
question = [{"role": "user", "content": "What is the capital of France?"}]
found = create(messages=question, response_model=Capital, max_tokens=48, temperature=0.0)
assert found.city == "Paris", found
"""


def available(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.model
@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("langchain_community", LANGCHAIN),
        ("llama_index.llms.llama_cpp", LLAMA_INDEX),
        ("outlines", OUTLINES),
        ("instructor", INSTRUCTOR),
    ],
)
def test_it_works(module: str, code: str, real_model: RealModel, tmp_path: Path) -> None:
    if not available(module):
        pytest.skip(f"{module} is not installed")
    model = str(real_model("qwen2.5-coder-0.5b").path)
    env = {**os.environ, "PYTHONPATH": str(PACKAGE), "EDGE_CONFLAYERS_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEAD.format(model=model) + code],
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
