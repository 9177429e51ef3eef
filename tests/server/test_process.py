"""The server as a process, used by the ``openai`` package and by clients that behave badly."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from click.testing import CliRunner
from installed import PACKAGE
from served import Server, command, environment, serving
from steps import RealModel, TinyPath

from edge_conflayers.cli import main

ENDLESS: dict[str, Any] = {"temperature": 0, "logit_bias": {"2": -100}}  # the tiny model's end
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(scope="module")
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", n_layer=4, layer_gain=0.2)


@pytest.fixture(scope="module")
def server(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("data"), path, "-np", 2, "--queue", 4, "-t", 1) as found:
        yield found
    assert found.process.returncode == 0 and not found.errors


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server) as found:
        yield found


def client_of(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60)


def metric(server: Server, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = httpx2.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(each.split()[-1]) for each in lines if each.startswith(name + "{"))


def wait_for(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def name_of(server: Server) -> str:
    return str(httpx2.get(f"{server.url}/v1/models").json()["data"][0]["id"])


def test_the_openai_package_streams(server: Server, client: openai.OpenAI) -> None:
    model = client.models.list().data[0].id
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "max_tokens": 20, "seed": 1}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert whole.edge_conflayers["sources"]  # type: ignore[attr-defined]
    completion = client.completions.create(model=model, prompt="hello", max_tokens=4, logprobs=1)
    assert completion.choices[0].logprobs and len(completion.choices[0].logprobs.tokens or ()) == 4


def test_a_client_that_goes_away_ends_its_text(server: Server, client: openai.OpenAI) -> None:
    before = metric(server, "edge_conflayers_stopped_texts_total")
    stream = client.completions.create(
        model=name_of(server), prompt="a", max_tokens=4000, stream=True, **ENDLESS
    )
    for _, _chunk in zip(range(5), stream, strict=False):
        pass
    stream.close()
    wait_for(lambda: metric(server, "edge_conflayers_stopped_texts_total") == before + 1)
    assert metric(server, "edge_conflayers_texts_writing") == 0


def test_a_client_that_waits_no_longer_ends_its_text(server: Server) -> None:
    before = metric(server, "edge_conflayers_stopped_texts_total")
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{server.url}/v1/completions",
            json={"prompt": "a", "max_tokens": 4000, **ENDLESS},
            timeout=0.3,
        )
    wait_for(lambda: metric(server, "edge_conflayers_stopped_texts_total") == before + 1)


def connect(server: Server) -> socket.socket:
    found = urllib.parse.urlsplit(server.url)
    return socket.create_connection((found.hostname, found.port), timeout=20)


def test_names_that_a_page_lets_lead_here_are_refused(server: Server) -> None:
    found = httpx2.get(f"{server.url}/v1/models", headers={"Host": "page.example"})
    assert found.status_code == 403


def test_what_is_not_http_and_what_never_comes(server: Server) -> None:
    with connect(server) as wrong, connect(server) as silent:
        wrong.sendall(b"\x16\x03\x01nonsense\r\n\r\n")
        assert b"400" in wrong.recv(1000)
        silent.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        )
        assert httpx2.get(f"{server.url}/health").status_code == 200


def test_what_the_queue_does_not_hold_is_refused(server: Server) -> None:
    def ask(i: int) -> int:
        body = {"prompt": f"{i}", "max_tokens": 600, **ENDLESS}
        found = httpx2.post(f"{server.url}/v1/completions", json=body, timeout=120)
        if found.status_code == 429:
            assert int(found.headers["retry-after"]) > 0
        else:
            assert found.json()["usage"]["completion_tokens"] == 600
        return found.status_code

    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(ask, range(16)))
    assert set(statuses) == {200, 429} and statuses.count(200) >= 6
    assert metric(server, "edge_conflayers_texts_waiting") == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(path: Path, tmp_path: Path, sent: signal.Signals) -> None:
    with serving(tmp_path, path, "-t", 1) as server:
        client = client_of(server)
        asked: dict[str, Any] = {"model": name_of(server), "prompt": "a"}
        short = client.completions.create(**asked, max_tokens=300, stream=True, **ENDLESS)
        assert next(iter(short)).choices
        begun = time.monotonic()
        server.process.send_signal(sent)
        assert sum(len(chunk.choices) for chunk in short) > 200  # it may end
        assert server.process.wait(20) == 0 and time.monotonic() - begun < 8
    assert not server.errors
    assert list(tmp_path.rglob("*.json")), "what was learned is kept"


def test_a_signal_cuts_long_texts_off(path: Path, tmp_path: Path) -> None:
    with serving(tmp_path, path, "-t", 1, "-c", 200_000, "--method", "plain") as server:
        client = client_of(server)
        asked: dict[str, Any] = {"model": name_of(server), "prompt": "a", "max_tokens": 190_000}
        long = client.completions.create(**asked, stream=True, **ENDLESS)
        assert next(iter(long)).choices
        begun = time.monotonic()
        server.process.terminate()
        with pytest.raises(openai.APIError, match="the server ends"):
            list(long)
        assert server.process.wait(20) == 0 and time.monotonic() - begun < 8
    assert not server.errors


def test_at_a_terminal_it_says_what_it_waits_for(path: Path, tmp_path: Path) -> None:
    if not hasattr(os, "openpty"):
        pytest.skip("there are no terminals to open here")
    ours, theirs = os.openpty()
    given = command("serve", path, "-t", 1, "-c", 200_000, "--method", "plain", "--port", 0)
    process = subprocess.Popen(given, env=environment(tmp_path), cwd=PACKAGE, stderr=theirs)
    os.close(theirs)
    shown = b""

    def until(pattern: bytes) -> bytes:
        nonlocal shown
        while (found := re.search(pattern, shown)) is None:
            shown += os.read(ours, 4096)
        return found[1]

    try:
        url = until(rb"at (http://\S+)/v1;").decode()
        body = {"prompt": "a", "max_tokens": 190_000, "stream": True, **ENDLESS}
        with httpx2.stream("POST", f"{url}/v1/completions", json=body) as texts:
            lines = texts.iter_lines()  # which ends the request when it is collected
            next(lines)
            process.send_signal(signal.SIGINT)
            assert until(rb"texts still to be written: (\d+)") == b"1"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 128 + signal.SIGINT
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_client_that_says_nothing_keeps_it_from_ending_for_seconds_only(
    path: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, path, "-t", 1) as server, connect(server) as silent:
        silent.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
        silent.sendall(b"Content-Length: 9\r\n\r\n{")
        assert httpx2.get(f"{server.url}/health").status_code == 200
        begun = time.monotonic()
        server.process.terminate()
        assert server.process.wait(20) == 0 and time.monotonic() - begun < 9
    assert not server.errors


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_conflayers.extras.find_spec", lambda name: None)
    done = CliRunner().invoke(main, ["serve", "model.gguf"])
    assert done.exit_code == 2 and done.output.count("\n") == 1
    assert "pip install 'edge-conflayers[server]'" in done.output


def failing(data: Path, *arguments: object) -> str:
    """What `serve` says when it does not start."""
    done = subprocess.run(
        command("serve", *arguments),
        env=environment(data),
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (1, 2) and not done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_keeps_it_from_starting(path: Path, tmp_path: Path, server: Server) -> None:
    port = urllib.parse.urlsplit(server.url).port
    assert "choose another --host or --port" in failing(tmp_path, path, "--port", port)
    assert "cannot listen on nowhere.invalid" in failing(
        tmp_path, path, "--host", "nowhere.invalid"
    )
    assert "top-p" in failing(tmp_path, path, "--port", 0, "--top-p", 3)
    assert "API keys" in failing(tmp_path, path, "--port", 0, "--api-key-file", tmp_path / "none")
    assert "neither a file nor a known model" in failing(tmp_path, "no-model", "--port", 0)


@pytest.mark.model
def test_a_model_calls_a_tool_by_itself(real_model: RealModel, tmp_path: Path) -> None:
    path = real_model("qwen2.5-coder-0.5b").path
    question = "What is the weather in Paris? Call the tool."
    weather: Any = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
    with serving(tmp_path, path) as server, client_of(server) as client:
        asked: dict[str, Any] = {
            "model": name_of(server),
            "messages": [{"role": "user", "content": question}],
            "tools": [weather],
            "max_tokens": 64,
        }
        choice = client.chat.completions.create(**asked).choices[0]
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls or ()
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        chunks = list(client.chat.completions.create(**asked, stream=True))
        calls = [each for c in chunks for each in c.choices[0].delta.tool_calls or ()]
        assert "".join(each.function.arguments or "" for each in calls) == call.function.arguments
        assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.model
def test_a_real_model_writes_what_run_writes(real_model: RealModel, tmp_path: Path) -> None:
    path = real_model("smollm2-135m").path
    settings = {"temperature": 0.8, "seed": 11}
    questions = [f"Name {n} colours, then count to {n}." for n in ("three", "four", "five", "six")]
    expected = []
    for each in questions:
        done = subprocess.run(
            command("run", path, "-p", each, "-n", 48, "--temp", 0.8, "-s", 11, "-q"),
            env=environment(tmp_path),
            cwd=PACKAGE,
            capture_output=True,
            text=True,
            timeout=300,
        )
        expected.append(done.stdout.removesuffix("\n"))
    with serving(tmp_path, path, "-np", 3) as server, client_of(server) as client:
        model = name_of(server)

        def ask(question: str) -> Any:
            return client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                max_tokens=48,
                **settings,  # type: ignore[call-overload]
            )

        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(ask, questions * 2))
        assert [each.choices[0].message.content for each in found] == expected * 2
        assert sum(each.edge_conflayers["accepted"] for each in found) > 0
        city = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Which city is the capital of France?"}],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "city", "schema": CITY},
            },
            max_tokens=60,
        )
        assert json.loads(city.choices[0].message.content or "").keys() == {"city"}
        weather: Any = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
        called = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "What is the weather in Paris?"}],
            tools=[weather],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            max_tokens=60,
        )
        (call,) = called.choices[0].message.tool_calls or ()
        assert json.loads(call.function.arguments).keys() == {"city"}
