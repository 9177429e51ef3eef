"""The server's addresses, as an application in this process, with a tiny model."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from steps import TinyPath

from edge_conflayers.completions.request import TextRequest
from edge_conflayers.completions.writing import write
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.errors import BadInput
from edge_conflayers.generating import generate
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.server.app import make_app
from edge_conflayers.server.jobs import Stopped
from edge_conflayers.server.opening import Opening, names_of, open_service
from edge_conflayers.server.options import ServerOptions, hosts_of, read_keys
from edge_conflayers.server.serving import Service
from edge_conflayers.text_generator import TextGenerator

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]
CITY = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
REPEATING = "one two three four five six one two three four five six one two"

Client = Callable[..., TestClient]


@pytest.fixture(scope="module")
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", n_layer=4, layer_gain=0.2)


@pytest.fixture(scope="module")
def opened(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens a service with these options, and a client of it."""
    store = ProfileStore(tmp_path_factory.mktemp("profiles"))
    with ExitStack() as stack:

        def make(parallel: int = 1, **options: Any) -> tuple[TestClient, Service]:
            opening = Opening(
                parallel=parallel,
                n_ctx=1024,
                threads=1,
                method="lookup",
                sampling={"seed": -1},
                profiles=store,
            )
            service = open_service({"tiny": path}, opening, ServerOptions(**options))
            stack.enter_context(service)
            return TestClient(make_app(service), raise_server_exceptions=False), service

        yield make


@pytest.fixture(scope="module")
def usual(opened: Callable[..., Any]) -> tuple[TestClient, Service]:
    found: tuple[TestClient, Service] = opened(parallel=2, queue=100, max_body=100_000)
    return found


@pytest.fixture(scope="module")
def client(usual: tuple[TestClient, Service]) -> TestClient:
    return usual[0]


def post(client: TestClient, place: str, status: int = 200, **body: Any) -> Any:
    found = client.post(place, json=body)
    assert found.status_code == status, found.text
    return found.json()


def events(client: TestClient, place: str, **body: Any) -> list[Any]:
    """The chunks of a streamed text, [DONE] left out."""
    found = client.post(place, json={"stream": True, **body})
    assert found.headers["content-type"].startswith("text/event-stream"), found.text
    lines = [line.removeprefix("data: ") for line in found.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def alone(path: Path, tmp_path: Path, prompts: list[str], **settings: Any) -> list[str]:
    """The texts as a plain generator writes them, with nothing else going on."""
    store = ProfileStore(tmp_path / "alone")
    texts = []
    with TextGenerator(path, method="plain", n_ctx=1024, threads=1, profiles=store) as one:
        for prompt in prompts:
            tokens = one.model.tokenize(prompt, parse_special=True)
            request = TextRequest(tokens, SamplerSettings(**settings), max_tokens=40)
            texts.append("".join(piece.text for piece in write(one, request)))
    return texts


def test_a_completion(client: TestClient) -> None:
    found = post(client, COMPLETIONS, prompt=REPEATING, max_tokens=20)
    (choice,) = found["choices"]
    assert found["object"] == "text_completion" and found["model"] == "tiny"
    assert choice["finish_reason"] == "length"
    assert found["usage"]["completion_tokens"] == 20
    ours, timings = found["edge_conflayers"], found["timings"]
    assert "".join(each["text"] for each in ours["pieces"]) == choice["text"]
    assert sum(ours["sources"].values()) == timings["predicted_n"] == 20
    assert timings["prompt_n"] + timings["cache_n"] == found["usage"]["prompt_tokens"]
    assert timings["draft_n"] == ours["drafted"] and ours["method"] == "lookup"


@pytest.mark.parametrize("place", [CHAT, COMPLETIONS])
def test_a_streamed_text_is_the_same(client: TestClient, place: str) -> None:
    asked: dict[str, Any] = {"max_tokens": 30, "temperature": 1.0, "seed": 5}
    asked |= {"messages": HELLO} if place == CHAT else {"prompt": "hello"}
    whole = post(client, place, **asked)
    chunks = events(client, place, **asked, stream_options={"include_usage": True})
    usage = chunks.pop()
    assert usage["choices"] == [] and usage["usage"] == whole["usage"]
    assert usage["id"] == chunks[0]["id"] and usage["object"] == chunks[0]["object"]
    choices = [chunk["choices"][0] for chunk in chunks]
    if place == CHAT:
        text = "".join(each["delta"].get("content", "") for each in choices)
        assert text == whole["choices"][0]["message"]["content"]
    else:
        text = "".join(each["text"] for each in choices)
        assert text == whole["choices"][0]["text"]
    told = [
        each for chunk in chunks for each in chunk.get("edge_conflayers", {"pieces": ()})["pieces"]
    ]
    # Who drafts changes with what was learned meanwhile.
    assert [each["text"] for each in told] == [
        each["text"] for each in whole["edge_conflayers"]["pieces"]
    ]
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert chunks[-1]["timings"]["predicted_n"] == whole["timings"]["predicted_n"]
    assert chunks[-1]["edge_conflayers"]["method"] == "lookup"


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "seed": 7}])
def test_many_texts_at_a_time_are_what_they_are_alone(
    client: TestClient, path: Path, tmp_path: Path, settings: Any
) -> None:
    prompts = [f"{i} {REPEATING} {i} " * 2 for i in range(12)]
    expected = alone(path, tmp_path, prompts, **settings)

    def written(i: int) -> Any:
        asked = {"prompt": prompts[i], "max_tokens": 40, **settings}
        if i % 3 == 0:
            chunks = events(client, COMPLETIONS, **asked)
            text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
            return text, chunks[-1]["edge_conflayers"]["accepted"]
        found = post(client, COMPLETIONS, **asked)
        return found["choices"][0]["text"], found["edge_conflayers"]["accepted"]

    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(written, range(12)))
    assert [text for text, _ in found] == expected
    assert len(set(expected)) > 6
    assert sum(accepted for _, accepted in found) > 0


def test_a_text_without_a_seed_tells_the_one_it_drew(client: TestClient) -> None:
    asked: dict[str, Any] = {"prompt": "a", "max_tokens": 20, "temperature": 1.5}
    one, other = (post(client, COMPLETIONS, **asked) for _ in range(2))
    assert one["choices"][0]["text"] != other["choices"][0]["text"]
    again = post(client, COMPLETIONS, **asked, seed=one["edge_conflayers"]["seed"])
    assert again["choices"][0]["text"] == one["choices"][0]["text"]


def test_stop_strings_echo_tokens_and_logprobs(client: TestClient) -> None:
    asked: dict[str, Any] = {"prompt": "hello", "max_tokens": 20}
    text = post(client, COMPLETIONS, **asked)["choices"][0]["text"]
    stop = text[4:6]
    (choice,) = post(client, COMPLETIONS, **asked, stop=stop)["choices"]
    assert choice["finish_reason"] == "stop" and choice["text"] == text[: text.index(stop)]
    echoed = post(client, COMPLETIONS, **asked, echo=True)["choices"][0]["text"]
    assert echoed == "hello" + text
    assert events(client, COMPLETIONS, **asked, echo=True)[0]["choices"][0]["text"] == "hello"
    tokens = post(client, "/tokenize", content="hello", add_special=True)["tokens"]
    assert post(client, COMPLETIONS, **{**asked, "prompt": tokens})["choices"][0]["text"] == text
    table = post(client, COMPLETIONS, **asked, logprobs=2)["choices"][0]["logprobs"]
    assert len(table["tokens"]) == 20 and all(each <= 0 for each in table["token_logprobs"])
    found = post(client, CHAT, messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2)
    assert len(found["choices"][0]["logprobs"]["content"]) == 3


def test_an_answer_follows_a_schema(client: TestClient) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "n", "schema": CITY}}
    asked: dict[str, Any] = {
        "messages": HELLO,
        "response_format": response_format,
        "max_tokens": 400,
        "temperature": 1.0,
        "seed": 1,
    }
    found = post(client, CHAT, **asked)
    if found["choices"][0]["finish_reason"] == "stop":
        assert json.loads(found["choices"][0]["message"]["content"]).keys() == {"n"}
    assert found["choices"][0]["message"]["content"].lstrip().startswith("{")


def test_a_forced_tool_is_called(client: TestClient) -> None:
    tool = {"type": "function", "function": {"name": "count", "parameters": CITY}}
    choice = {"type": "function", "function": {"name": "count"}}
    asked: dict[str, Any] = {"messages": HELLO, "tools": [tool], "max_tokens": 40}
    (call,) = post(client, CHAT, **asked, tool_choice=choice)["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "count"
    chunks = events(client, CHAT, **asked, tool_choice=choice)
    calls = [each for c in chunks for each in c["choices"][0]["delta"].get("tool_calls") or ()]
    streamed = "".join(each["function"]["arguments"] for each in calls)
    assert streamed == call["function"]["arguments"]
    error = post(client, CHAT, 400, **asked)["error"]
    assert "has no place for tools" in error["message"]


@pytest.mark.parametrize(
    ("place", "body", "status", "code", "why"),
    [
        (CHAT, {"messages": []}, 400, None, "no message"),
        (CHAT, {"messages": [{"content": "x"}]}, 400, None, "has no role"),
        (CHAT, {}, 400, None, "messages: Field required"),
        (CHAT, {"messages": HELLO, "n": 129}, 400, None, "1 to 128 texts"),
        (CHAT, {"messages": HELLO, "functions": []}, 400, None, "tools instead"),
        (CHAT, {"messages": HELLO, "model": "gpt"}, 404, "model_not_found", "choose from tiny"),
        (CHAT, {"messages": HELLO, "top_logprobs": 21, "logprobs": True}, 400, None, "20"),
        (CHAT, {"messages": HELLO, "response_format": {"type": "x"}}, 400, None, "type 'x'"),
        (COMPLETIONS, {"prompt": "a", "temperature": -1}, 400, None, "temperature"),
        (COMPLETIONS, {"prompt": "a", "seed": 2**40}, 400, None, "seed is"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"x": 1}}, 400, None, "logit_bias is"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"9999": 1}}, 400, None, "no token 9999"),
        (COMPLETIONS, {"prompt": "a", "grammar": "root ::= ("}, 400, None, "grammar"),
        (COMPLETIONS, {"prompt": "a", "stop": [""]}, 400, None, "stop"),
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 65}, 400, None, "1 to 128 texts"),
        (COMPLETIONS, {"prompt": "a", "n": 0}, 400, None, "n is 0"),
        (COMPLETIONS, {"prompt": "a", "n": 2, "best_of": 3}, 400, None, "best_of is 3"),
        (COMPLETIONS, {"prompt": ["a", 5]}, 400, None, "prompt"),
        (COMPLETIONS, {"prompt": [[5], []]}, 400, None, "prompt is empty"),
        (COMPLETIONS, {"prompt": [5, -1]}, 400, None, "no token -1"),
        (COMPLETIONS, {"prompt": []}, 400, None, "prompt is empty"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, 400, None, "suffix"),
        (COMPLETIONS, {"prompt": "a " * 3000}, 400, "context_length_exceeded", "holds 1024"),
        ("/detokenize", {"tokens": [10**6]}, 400, None, "no token 1000000"),
        ("/nowhere", {}, 404, None, "Not Found"),
    ],
)
def test_what_cannot_be_served_is_refused(
    client: TestClient, place: str, body: Any, status: int, code: str | None, why: str
) -> None:
    for stream in (False, True):
        error = post(client, place, status, **{**body, "stream": stream})["error"]
        assert why in error["message"] and "\n" not in error["message"]
        assert error["code"] == code and error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"null", b"\xff", b"[" * 50_000, b'{"messages": "\\ud800"}', b"1" * 9000]
)
def test_malformed_bodies_are_refused(client: TestClient, body: bytes) -> None:
    found = client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 400 and found.json()["error"]["type"] == "invalid_request_error"


def test_bodies_that_are_too_large_are_refused(client: TestClient) -> None:
    large = b"x" * 60_000
    sized = client.post(CHAT, content=large * 2)
    in_parts = client.post(CHAT, content=iter([large, large]))
    for found in (sized, in_parts):
        assert found.status_code == 413
        assert found.json()["error"]["code"] == "request_too_large"
    assert client.post(CHAT, content=large).status_code == 400


def test_a_text_is_no_longer_than_allowed(opened: Callable[..., Any]) -> None:
    client, _ = opened(max_tokens=5)
    assert post(client, CHAT, messages=HELLO)["usage"]["completion_tokens"] == 5
    error = post(client, CHAT, 400, messages=HELLO, max_completion_tokens=6)["error"]
    assert "at most 5" in error["message"]


def test_keys_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\none\n\n two \n")
    assert read_keys(file) == ["one", "two"]
    file.write_text("# none\n")
    with pytest.raises(BadInput, match="holds no API key"):
        read_keys(file)
    with pytest.raises(BadInput, match="is empty"):
        ServerOptions(api_keys=[""])


def test_keys(opened: Callable[..., Any]) -> None:
    client, _ = opened(api_keys=["secret", "schlüssel"])
    for header in (None, "Bearer", "Bearer secre", "Bearer secret2", "Basic secret"):
        headers = {} if header is None else {"Authorization": header}
        found = client.get("/v1/models", headers=headers)
        assert found.status_code == 401
        assert found.json()["error"]["code"] == "invalid_api_key"
        assert found.headers["www-authenticate"] == "Bearer"
    for key in (b"secret", "schlüssel".encode()):
        found = client.get("/v1/models", headers={"Authorization": b"Bearer " + key})
        assert found.status_code == 200
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/metrics").status_code == 401


def test_pages_of_others_may_use_it_only_if_allowed(
    client: TestClient, opened: Callable[..., Any]
) -> None:
    origin = {"Origin": "http://page.example"}
    asks = {**origin, "Access-Control-Request-Method": "POST"}
    allowing, _ = opened(cors=["http://page.example"], api_keys=["k"])
    name = "access-control-allow-origin"
    assert name not in client.get("/health", headers=origin).headers
    assert client.options(CHAT, headers=asks).status_code == 405
    assert allowing.get("/health", headers=origin).headers[name] == origin["Origin"]
    assert allowing.options(CHAT, headers=asks).status_code == 200
    assert allowing.options(CHAT, headers={**asks, "Origin": "http://b"}).status_code == 400


def test_other_names_that_lead_here_are_refused(opened: Callable[..., Any]) -> None:
    client, _ = opened(hosts=hosts_of("127.0.0.1", ()))
    for host in ("localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"):
        assert client.get("/health", headers={"Host": host}).status_code == 200
    for host in ("page.example", "page.example:8080", "127.0.0.1.page.example", "[::2]:8080"):
        found = client.get("/health", headers={"Host": host})
        assert found.status_code == 403 and found.json()["error"]["code"] == "wrong_host"
    assert not hosts_of("127.0.0.1", ["key"]) and not hosts_of("0.0.0.0", ())


def test_more_than_the_queue_holds_is_refused(opened: Callable[..., Any]) -> None:
    client, service = opened(queue=1)
    (model,) = service.models.values()
    results: list[Any] = []
    with model.slots.take(()):  # so that texts wait

        def wait() -> None:
            results.append(post(client, COMPLETIONS, prompt="a", max_tokens=2))

        threads = [threading.Thread(target=wait) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_for(lambda: model.load[1:] == (1, 1))
        gauges = client.get("/metrics").text
        assert 'edge_conflayers_texts_waiting{model="tiny"} 1.0' in gauges
        found = client.post(COMPLETIONS, json={"prompt": "a"})
        assert found.status_code == 429 and int(found.headers["retry-after"]) > 0
        assert found.json()["error"]["type"] == "rate_limit_error"
    for thread in threads:
        thread.join()
    assert len(results) == 2
    wait_for(lambda: model.load[1:] == (0, 0))
    assert post(client, COMPLETIONS, 400, prompt="a", n=0) and model.load[1:] == (0, 0)


async def ask(client: TestClient, body: Any, receive: Any, send: Any) -> None:
    """Asks for a completion, as a client that receives and sends so after its request."""
    unread = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive_after() -> Any:
        return unread.pop() if unread else await receive()

    scope = {
        "type": "http",
        "method": "POST",
        "path": COMPLETIONS,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await client.app(scope, receive_after, send)  # type: ignore[arg-type]


async def never() -> None:
    await asyncio.Event().wait()


def test_a_client_that_reads_slowly_holds_up_no_slot(usual: tuple[TestClient, Service]) -> None:
    client, service = usual
    model = service.model("tiny")
    sent: list[bytes] = []

    async def slow() -> None:
        reads = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                sent.append(message["body"])
                await reads.wait()

        body = {"prompt": "hello", "max_tokens": 200, "stream": True}
        asking = asyncio.create_task(ask(client, body, never, send))
        while not sent or model.load[1]:
            await asyncio.sleep(0.01)
        assert len(sent) == 1  # the text is written, and nothing but its beginning is read
        reads.set()
        await asking

    asyncio.run(asyncio.wait_for(slow(), 20))
    assert len(sent) > 100 and b"[DONE]" in b"".join(sent)


def test_a_client_that_goes_away_leaves_the_queue(opened: Callable[..., Any]) -> None:
    client, service = opened(queue=1)
    model = service.model("tiny")

    async def impatient() -> None:
        leaves = asyncio.Event()

        async def gone() -> Any:
            await leaves.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None: ...

        body = {"prompt": "hello", "max_tokens": 2}
        with model.slots.take(()):
            patient = asyncio.create_task(ask(client, body, never, send))
            while model.load[1] < 1:
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(ask(client, body, gone, send))
            while model.load[2] < 1:
                await asyncio.sleep(0.01)
            leaves.set()
            await waiting
            assert model.load[1:] == (1, 0)
        await patient

    asyncio.run(asyncio.wait_for(impatient(), 20))
    wait_for(lambda: model.load[1:] == (0, 0))


def wait_for(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def test_a_fault_of_the_program_is_not_shown(
    usual: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = usual

    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("secret of the program")

    monkeypatch.setattr("edge_conflayers.server.serving.write", fail)
    for stream in (False, True):
        error = post(client, CHAT, 500, messages=HELLO, stream=stream)["error"]
        assert error["type"] == "server_error" and "secret" not in error["message"]
    monkeypatch.setattr("edge_conflayers.server.routes.texts.ask_chat", fail)
    assert "secret" not in str(post(client, CHAT, 500, messages=HELLO))
    monkeypatch.undo()
    assert post(client, CHAT, messages=HELLO, max_tokens=1)
    wait_for(lambda: all(each.load[1:] == (0, 0) for each in service.models.values()))


def test_models_tokens_and_counts(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert model["id"] == "tiny" and model["meta"]["n_ctx"] == 1024
    assert client.get("/v1/models/tiny").json() == model
    assert client.get("/v1/models/other").status_code == 404
    tokens = post(client, "/tokenize", content="héllo")["tokens"]
    assert post(client, "/detokenize", tokens=tokens)["content"].strip() == "héllo"
    pieces = post(client, "/tokenize", content="h\u0129", with_pieces=True)["tokens"]
    assert any(isinstance(each["piece"], list) for each in pieces)
    post(client, COMPLETIONS, prompt=REPEATING, max_tokens=30)
    counts = client.get("/metrics").text
    assert 'edge_conflayers_tokens_total{model="tiny",source="full"}' in counts
    assert 'edge_conflayers_requests_total{route="/v1/models",status="200"}' in counts


def test_conversations_that_take_turns_keep_their_caches(client: TestClient) -> None:
    texts = [f"{name} " + "word " * 130 for name in ("Ann", "Bob")]
    cached = [
        post(client, COMPLETIONS, prompt=text, max_tokens=2)["timings"]["cache_n"]
        for text in (*texts, texts[0] + "and", texts[1] + "and")
    ]
    assert cached[2] >= 512 and cached[3] >= 512


def test_a_prompt_is_read_no_further_once_nobody_wants_its_text(path: Path) -> None:
    with TextGenerator(path, method="lookup", n_ctx=2048, threads=1, fresh=True) as one:
        prompt = one.model.tokenize("word " * 300)
        assert len(prompt) > 1024
        expected = list(one.generate(prompt, max_tokens=5))
        session = one.session()
        session.clear()

        def check() -> None:
            if session.tokens:
                raise Stopped

        with pytest.raises(Stopped):
            list(one.generate(prompt, max_tokens=5, before_batch=check))
        assert len(session.tokens) == 512
        assert list(one.generate(prompt, max_tokens=5)) == expected


def test_several_models_are_served(path: Path, tiny_path: TinyPath, tmp_path: Path) -> None:
    other = tiny_path("qwen2", n_layer=2)
    opening = Opening(n_ctx=512, threads=1, method="lookup", profiles=ProfileStore(tmp_path))
    with open_service({"one": path, "two": other}, opening, ServerOptions()) as service:
        client = TestClient(make_app(service))
        asked: dict[str, Any] = {"prompt": "hello", "max_tokens": 12}
        texts = {
            name: post(client, COMPLETIONS, **asked, **model)["choices"][0]["text"]
            for name, model in (("one", {"model": "one"}), ("two", {"model": "two"}), ("", {}))
        }
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["one", "two"]
    assert texts["one"] == texts[""] != texts["two"]
    for name, file in (("one", path), ("two", other)):
        with TextGenerator(file, method="plain", n_ctx=512, threads=1, fresh=True) as alone:
            assert generate(alone, "hello", max_tokens=12) == texts[name]


def test_two_models_are_not_called_the_same() -> None:
    assert names_of(["a/one.gguf", "org/two:Q4_0"]) == {
        "one": "a/one.gguf",
        "org/two:Q4_0": "org/two:Q4_0",
    }
    with pytest.raises(BadInput, match="called 'one'"):
        names_of(["a/one.gguf", "b/one.gguf"])


def test_embeddings(client: TestClient) -> None:
    texts = ["hello there", "hello", "hello there"]
    found = post(client, "/v1/embeddings", input=texts)
    one, other, again = (np.array(each["embedding"]) for each in found["data"])
    assert found["usage"]["prompt_tokens"] > 3 and [each["index"] for each in found["data"]] == [
        0,
        1,
        2,
    ]
    assert np.allclose([one @ one, other @ other], 1) and not np.allclose(one, other)
    assert np.allclose(one, again, atol=1e-6)
    (coded,) = post(client, "/v1/embeddings", input=texts[1], encoding_format="base64")["data"]
    assert np.allclose(np.frombuffer(base64.b64decode(coded["embedding"]), "<f4"), other, atol=1e-6)
    for wrong in ([], [5], "x " * 3000, {}, None):
        post(client, "/v1/embeddings", 400, input=wrong)
    post(client, "/v1/embeddings", 400, input="a", dimensions=5)
