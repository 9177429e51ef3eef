"""Sends a server many requests at once, and tells what became of them.

    python tools/load_test.py smollm2-135m --requests 200

Starts `serve MODEL` on a free port, asks for a few texts one after another, and then for all of
them at once, every second one streamed. Reported are errors, texts that are not those that came
alone, the time to the first token and to the end (the waiting in the queue included), tokens per
second, and the server's memory. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from serving import memory, serving

_PROMPTS = 10  # different ones
_TIMEOUT = 1800.0  # seconds that a request may wait


@dataclass
class Reply:
    """What a request brought.

    Attributes:
        first, whole: seconds to the first token and to the end.
        why: the error, if it is one.
    """

    prompt: int
    text: str = ""
    tokens: int = 0
    first: float = 0.0
    whole: float = 0.0
    why: str = ""


def ask(port: int, prompt: int, max_tokens: int, *, stream: bool) -> Reply:
    """Asks for one text."""
    question = f"Tell a short story about the number {prompt}, then count to {prompt + 5}."
    body = {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "temperature": 0.8,
        "seed": prompt,
        "stream": stream,
        "stream_options": {"include_usage": True},
    }
    reply, begun = Reply(prompt), time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {"Content-Type": "application/json"},
        )
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"HTTP {response.status}: {response.read(200)!r}")
        if stream:
            _take_chunks(response, reply, begun)
        else:
            found = json.loads(response.read())
            reply.text = found["choices"][0]["message"]["content"]
            reply.tokens = found["usage"]["completion_tokens"]
    except Exception as error:
        reply.why = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    reply.whole = time.monotonic() - begun
    return reply


def _take_chunks(response: http.client.HTTPResponse, reply: Reply, begun: float) -> None:
    for line in response:
        data = line.removeprefix(b"data: ").strip()
        if not data:
            continue
        if data == b"[DONE]":
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise RuntimeError(chunk["error"]["message"])
        for choice in chunk["choices"]:
            text = choice["delta"].get("content") or ""
            if text and not reply.first:
                reply.first = time.monotonic() - begun
            reply.text += text
        if chunk.get("usage"):
            reply.tokens = chunk["usage"]["completion_tokens"]
    raise RuntimeError("the stream ends without [DONE]")


def seconds(values: Sequence[float]) -> str:
    """Median, 95th percentile and maximum."""
    if len(values) < 2:
        return "none"
    p95 = statistics.quantiles(values, n=20)[-1]
    return f"p50 {statistics.median(values):.1f} s, p95 {p95:.1f} s, max {max(values):.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--parallel", type=int, default=2, help="slots of the server")
    options = parser.parse_args()
    slots = ("-np", str(options.parallel), "--queue", str(options.requests))
    with serving(options.model, slots) as (server, port):
        alone = [ask(port, n, options.max_tokens, stream=False) for n in range(_PROMPTS)]
        before = memory(server)
        begun = time.monotonic()
        with ThreadPoolExecutor(options.requests) as threads:
            replies = list(
                threads.map(
                    lambda n: ask(port, n % _PROMPTS, options.max_tokens, stream=n % 2 == 0),
                    range(options.requests),
                )
            )
        took = time.monotonic() - begun
        after = memory(server)
    errors = [each for each in (*alone, *replies) if each.why]
    other = [each for each in replies if not each.why and each.text != alone[each.prompt].text]
    tokens = sum(each.tokens for each in replies)
    print(f"{len(replies)} requests at once over {options.parallel} slots, {took:.1f} s")
    print(f"errors: {len(errors)}{''.join(f'; {each.why}' for each in errors[:3])}")
    print(f"texts that are not those that came alone: {len(other)}")
    print(f"first token (streamed): {seconds([each.first for each in replies if each.first])}")
    print(f"whole text: {seconds([each.whole for each in replies])}")
    print(f"tokens: {tokens}, {tokens / took:.1f} tokens/s")
    print(
        f"server's memory: {before['rss_mib']:.0f} MiB before, {after['rss_mib']:.0f} MiB after,"
        f" {after['peak_mib']:.0f} MiB at most"
    )
    return 1 if errors or other else 0


if __name__ == "__main__":
    sys.exit(main())
