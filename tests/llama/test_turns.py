"""One ``Llama`` and several threads, as LangChain's ``batch`` uses it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from steps import TinyPath

from edge_conflayers import EdgeConflayersError, Llama

GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 24}


@pytest.fixture
def llm(tiny_path: TinyPath) -> Iterator[Llama]:
    path = tiny_path("llama", n_layer=4, layer_gain=0.2)
    with Llama(path, n_ctx=512, n_threads=1, verbose=False, fresh=True, method="lookup") as found:
        yield found


def text(found: Any) -> str:
    answer: str = found["choices"][0]["text"]
    return answer


def test_texts_of_several_threads_are_written_one_after_another(llm: Llama) -> None:
    prompts = [f"{i} one two three four {i} one two" for i in range(8)]
    expected = [text(llm(prompt, **GREEDY)) for prompt in prompts]

    def written(prompt: str) -> str:
        if prompt.startswith(("1", "4")):
            return "".join(text(each) for each in llm(prompt, stream=True, **GREEDY))
        return text(llm(prompt, **GREEDY))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(written, prompts * 2)) == expected * 2


def test_a_stream_that_is_not_at_its_end_is_waited_for(llm: Llama) -> None:
    expected = text(llm("one two", **GREEDY))
    stream = iter(llm("three four", stream=True, **GREEDY))
    next(stream)
    results: list[str] = []
    other = threading.Thread(target=lambda: results.append(text(llm("one two", **GREEDY))))
    other.start()
    other.join(0.3)
    assert other.is_alive() and not results
    del stream  # as it goes when nobody reads it on
    other.join(20)
    assert results == [expected]


def test_a_thread_does_not_wait_for_itself(llm: Llama) -> None:
    expected = text(llm("one two", **GREEDY))
    stream = iter(llm("three four", stream=True, **GREEDY))
    next(stream)
    assert text(llm("one two", **GREEDY)) == expected
    with pytest.raises(EdgeConflayersError, match="another text was begun"):
        list(stream)


def test_a_stream_may_end_in_another_thread(llm: Llama) -> None:
    stream = iter(llm("three four", stream=True, **GREEDY))
    first = text(next(stream))
    with ThreadPoolExecutor(1) as threads:
        rest = threads.submit(lambda: "".join(text(each) for each in stream)).result(20)
        whole = threads.submit(lambda: text(llm("three four", **GREEDY))).result(20)
    assert first + rest == whole
