"""Keeps a server busy for a while with requests of all kinds, and reports whether it holds.

    python tools/soak.py smollm2-135m --minutes 60 --report soak.jsonl
    python tools/soak.py smollm2-135m --minutes 60 --pause 5 -- --parallel 2 --learn

Clients send streams, answers as a whole, long prompts, requests that they walk away from, and
bodies that the server must refuse. Every minute gives a line of JSON: memory of the server and of
the process that teaches (`serve --learn`), requests by kind, errors, and latencies of answers in
seconds. The last line sums up, with the slope of memory by least squares, the first minutes left
out. What follows `--` goes to `serve`. Linux only: it reads /proc. The exit code is 1 if there were
errors.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from serving import memory, serving

_WORDS = (
    *("sea", "wind", "lamp", "bread", "train", "garden", "violin", "winter"),
    *("market", "bridge", "moon", "river", "letter", "kitchen"),
)
_TIMEOUT = 300.0  # seconds for an answer
_EVERY = 10.0  # seconds between looks at memory
_MIB = 1 << 20


@dataclass
class Minute:
    """What happened in a minute."""

    requests: Counter[str] = field(default_factory=Counter)  # by kind
    errors: list[str] = field(default_factory=list)
    refused: int = 0  # with 429, as it should be where the queue is full
    latencies: list[float] = field(default_factory=list)  # of whole answers, in seconds
    first: list[float] = field(default_factory=list)  # to the first token of streams


class Record:
    """What the clients have seen since it was asked last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minute = Minute()

    @contextlib.contextmanager
    def change(self) -> Iterator[Minute]:
        with self._lock:
            yield self._minute

    def take(self) -> Minute:
        with self._lock:
            minute, self._minute = self._minute, Minute()
        return minute


class Client:
    """Sends requests, one after the other."""

    def __init__(self, port: int, record: Record, seed: int, *, pause: float) -> None:
        self._port = port
        self._record = record
        self._random = random.Random(seed)
        self._pause = pause
        self._kinds: list[tuple[str, int, Callable[[], None]]] = [
            ("chat", 4, self._chat),
            ("stream", 4, self._stream),
            ("completion", 2, self._completion),
            ("long prompt", 1, self._long_prompt),
            ("cancelled stream", 2, self._cancelled_stream),
            ("cancelled answer", 1, self._cancelled_answer),
            ("schema", 1, self._schema),
            ("bad body", 3, self._bad_body),
            ("about", 1, self._about),
        ]

    def run(self, until: float) -> None:
        """Goes on until then."""
        weights = [weight for _, weight, _ in self._kinds]
        while time.monotonic() < until:
            name, _, send = self._random.choices(self._kinds, weights)[0]
            try:
                send()
            except Exception as error:
                with self._record.change() as minute:
                    minute.errors.append(f"{name}: {type(error).__name__}: {error}"[:200])
            with self._record.change() as minute:
                minute.requests[name] += 1
            if self._pause:
                time.sleep(self._random.expovariate(1 / self._pause))

    def _text(self, words: int) -> str:
        return " ".join(self._random.choices(_WORDS, k=words))

    def _messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"Write about {self._text(4)}."}]

    @contextlib.contextmanager
    def _sent(
        self, body: bytes, place: str, *, timeout: float = _TIMEOUT
    ) -> Iterator[http.client.HTTPResponse]:
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        ) as connection:
            connection.request("POST", place, body, {"Content-Type": "application/json"})
            yield connection.getresponse()

    def _answer(self, place: str, **asked: Any) -> Any:
        """An answer as a whole; None if the queue is full."""
        begun = time.monotonic()
        with self._sent(json.dumps(asked).encode(), place) as response:
            text = response.read()
        if self._is_refused(response.status, text):
            return None
        with self._record.change() as minute:
            minute.latencies.append(time.monotonic() - begun)
        return json.loads(text)

    def _is_refused(self, status: int, text: bytes = b"") -> bool:
        if status == 429:
            with self._record.change() as minute:
                minute.refused += 1
            time.sleep(1)
            return True
        if status != 200:
            raise ValueError(f"{status} {text.decode(errors='replace')}")
        return False

    def _settings(self) -> dict[str, Any]:
        return {
            "max_tokens": self._random.randint(1, 96),
            "temperature": self._random.choice([0, 0.7, 1.2]),
            "seed": self._random.randint(0, 9),
        }

    def _chat(self) -> None:
        found = self._answer("/v1/chat/completions", messages=self._messages(), **self._settings())
        if found is not None and found["choices"][0]["finish_reason"] not in ("stop", "length"):
            raise ValueError(f"the answer ends by {found['choices'][0]['finish_reason']}")

    def _completion(self) -> None:
        self._answer("/v1/completions", prompt=self._text(12), logprobs=2, **self._settings())

    def _long_prompt(self) -> None:
        self._answer("/v1/completions", prompt=self._text(600), max_tokens=8)

    def _schema(self) -> None:
        kind = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        found = self._answer(
            "/v1/chat/completions",
            messages=self._messages(),
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": kind}},
            max_tokens=40,
        )
        if found is not None and found["choices"][0]["finish_reason"] == "stop":
            json.loads(found["choices"][0]["message"]["content"])

    def _events(self, response: http.client.HTTPResponse) -> Iterator[str]:
        for line in response:
            if line.startswith(b"data: "):
                yield line[6:].decode().strip()

    def _stream(self, most: int | None = None) -> None:
        """Reads a stream to its end, or walks away after so many events."""
        begun, count, last = time.monotonic(), 0, ""
        body = {"messages": self._messages(), "stream": True, **self._settings()}
        if most is not None:
            body["max_tokens"] = 400
        with self._sent(json.dumps(body).encode(), "/v1/chat/completions") as response:
            if self._is_refused(response.status):
                return
            for event in self._events(response):
                count, last = count + 1, event
                if count == 2:  # the first one says only who speaks
                    with self._record.change() as minute:
                        minute.first.append(time.monotonic() - begun)
                if count == most:
                    return
        if most is None and last != "[DONE]":
            raise ValueError(f"the stream ends by {last[:100]}")
        with self._record.change() as minute:
            minute.latencies.append(time.monotonic() - begun)

    def _cancelled_stream(self) -> None:
        self._stream(self._random.randint(1, 20))

    def _cancelled_answer(self) -> None:
        body = json.dumps({"prompt": self._text(12), "max_tokens": 400}).encode()
        with (
            contextlib.suppress(TimeoutError),
            self._sent(
                body, "/v1/completions", timeout=self._random.uniform(0.05, 0.5)
            ) as response,
        ):
            response.read()

    def _bad_body(self) -> None:
        """Is to be refused, by an error object."""
        body = self._random.choice(
            [
                b"{",
                b"\xff\xfe",
                b'{"prompt": 3}',
                b'{"prompt": "a", "model": "none"}',
                b'{"prompt": "a", "temperature": -1}',
                b'{"prompt": [999999999]}',
                b'{"prompt": "a", "json_schema": {"type": "nothing"}}',
                json.dumps({"prompt": self._text(20_000)}).encode(),
                b" " * (5 * _MIB),
            ]
        )
        try:
            with self._sent(body, "/v1/completions") as response:
                found = json.loads(response.read())
        except (BrokenPipeError, ConnectionResetError):
            if len(body) > 4 * _MIB:
                return  # refused before it was sent
            raise
        if not 400 <= response.status < 500 or "message" not in found["error"]:
            raise ValueError(f"a bad body is answered by {response.status}")

    def _about(self) -> None:
        for place in ("/v1/models", "/metrics", "/health"):
            with contextlib.closing(
                http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT)
            ) as connection:
                connection.request("GET", place)
                response = connection.getresponse()
                if response.status != 200 or not response.read():
                    raise ValueError(f"{place}: {response.status}")


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(each) for each in (task / "children").read_text().split()]
    return found


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    if not ordered:
        return {}
    last = len(ordered) - 1
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[math.ceil(s * last)], 3) for name, s in shares.items()}


def _slope(samples: Sequence[tuple[float, dict[str, float]]], name: str) -> float | None:
    """MiB an hour, by least squares; None for fewer than three samples."""
    points = [(hours, memory[name]) for hours, memory in samples if name in memory]
    if len(points) < 3:
        return None
    x, y = (sum(each[i] for each in points) / len(points) for i in (0, 1))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def _measured(pid: int) -> dict[str, float]:
    """Memory of the server, and of the process that teaches if there is one."""
    found = memory(pid)
    for child in _children(pid):
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            teacher = found.get("teacher_rss_mib", 0.0)
            found["teacher_rss_mib"] = teacher + memory(child)["rss_mib"]
    return {name: round(value, 1) for name, value in found.items()}


def _shown(seen: Minute) -> dict[str, Any]:
    """What the clients have seen, as it is written."""
    return {
        "requests": dict(seen.requests),
        "refused": seen.refused,
        "errors": seen.errors,
        "seconds": _percentiles(seen.latencies),
        "first_token_seconds": _percentiles(seen.first),
    }


def _soak(
    arguments: argparse.Namespace,
    options: Sequence[str],
    write: Callable[[Any], None],
) -> list[str]:
    """Returns the errors."""
    record, total = Record(), Minute()
    samples: list[tuple[float, dict[str, float]]] = []  # hours, memory
    with serving(arguments.model, options) as (pid, port):
        begun = time.monotonic()
        until = begun + 60 * arguments.minutes
        clients = [
            Client(port, record, seed, pause=arguments.pause) for seed in range(arguments.clients)
        ]
        threads = [threading.Thread(target=each.run, args=(until,)) for each in clients]
        for each in threads:
            each.start()
        for minute in range(1, arguments.minutes + 1):
            while (now := time.monotonic()) < begun + 60 * minute:
                if now - begun >= 60 * arguments.warm_up:
                    samples.append(((now - begun) / 3600, _measured(pid)))
                time.sleep(min(_EVERY, max(0.0, begun + 60 * minute - now)))
            seen = record.take()
            write({"minute": minute, **_measured(pid), **_shown(seen)})
            total.requests += seen.requests
            total.errors += seen.errors
            total.refused += seen.refused
            total.latencies += seen.latencies
            total.first += seen.first
        for each in threads:
            each.join()
        total.errors += record.take().errors
        names = ("rss_mib", "anonymous_mib", "teacher_rss_mib")
        slopes = {f"{name}_per_hour": _slope(samples, name) for name in names}
        last = _measured(pid)
    found = {name: round(slope, 1) for name, slope in slopes.items() if slope is not None}
    count = total.requests.total()
    about = {"minutes": arguments.minutes, "total": count}
    write({"summary": {**about, **last, **found, **_shown(total)}})
    return total.errors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], epilog="What follows -- goes to `serve`."
    )
    parser.add_argument("model", help="what `serve` takes")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument(
        "--warm-up", type=float, default=2.0, help="minutes that the slope of memory leaves out"
    )
    parser.add_argument(
        "--pause", type=float, default=0.0, help="mean seconds between a client's requests"
    )
    parser.add_argument("--report", type=Path, help="file of the lines [default: standard output]")
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    arguments = parser.parse_args(given[:end])
    options = given[end + 1 :]  # of `serve`
    with contextlib.ExitStack() as stack:
        file: TextIO = sys.stdout
        if arguments.report is not None:
            file = stack.enter_context(arguments.report.open("w", encoding="utf-8"))

        def write(line: Any) -> None:
            print(json.dumps(line), file=file, flush=True)

        errors = _soak(arguments, options, write)
    if errors:
        sys.exit(1)


if __name__ == "__main__":
    main()
