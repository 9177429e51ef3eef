"""A browser that looks at the server's page, and answers that are made up for it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from served import Server

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ANSWERS = "**/v1/chat/completions"
BEING_WRITTEN = re.compile(r"\bwriting\b")


def chromium(playwright: Any) -> str | None:
    """Playwright's own Chromium, or the machine's; None if there is none."""
    own: str = playwright.chromium.executable_path
    return own if Path(own).exists() else next(filter(None, map(shutil.which, _BROWSERS)), None)


class Visit:
    """The page in a browser.

    Attributes:
        page: Playwright's.
        asked: bodies of the requests for answers.
        complaints: what the browser complained of, but for refused requests.
        addresses: of everything that was asked for.
    """

    def __init__(self, page: Any, server: Server) -> None:
        self.page = page
        self.server = server
        self.asked: list[Any] = []
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        page.on("request", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._read)
        page.goto(server.url + "/")

    def _note(self, request: Any) -> None:
        self.addresses.append(request.url)
        if request.url.endswith("/v1/chat/completions"):
            self.asked.append(request.post_data_json)

    def _read(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def at(self, selector: str, **options: Any) -> Any:
        return self.page.locator(selector, **options)

    def send(self, text: str) -> None:
        self.at("#prompt").fill(text)
        self.at("#prompt").press("Enter")

    def until_written(self, turns: int = 1) -> None:
        """Waits for so many turns, and for the last one's answer."""
        from playwright.sync_api import expect

        expect(self.at(".turn")).to_have_count(turns)
        expect(self.at(".turn").last).not_to_have_class(BEING_WRITTEN, timeout=120_000)

    def answer_with(self, respond: Callable[[Any], None]) -> None:
        """Lets requests for answers be answered so, and not by the server."""
        self.page.unroute(ANSWERS)
        self.page.route(ANSWERS, respond)

    @property
    def turns(self) -> Any:
        """The conversation, as the browser keeps it."""
        return self.page.evaluate(
            "() => JSON.parse(localStorage.getItem('edge-conflayers.conversation') ?? '[]')"
        )

    @property
    def answer(self) -> Any:
        """The last answer, as the browser keeps it."""
        return self.turns[-1]["answer"]

    def overflow(self) -> list[str]:
        """What is wider than its place and would scroll sideways, code blocks left out."""
        found: list[str] = self.page.evaluate(
            """() => [document.documentElement, ...document.querySelectorAll("body *")]
                .filter((each) => each.scrollWidth > Math.ceil(each.clientWidth) + 1)
                .filter((each) => getComputedStyle(each).overflowX !== "visible")
                .filter((each) => !each.matches("pre, .table, .unseen, textarea, #model-name"))
                .map((each) => `${each.tagName} ${each.id} ${each.className}`)"""
        )
        return found

    def check(self) -> None:
        """That nothing went wrong, and nothing was asked of others."""
        assert not self.complaints
        assert self.addresses
        assert all(each.startswith((self.server.url, "data:")) for each in self.addresses)


Visiting = Callable[..., Visit]


def made_up(*pieces: str | tuple[str, str], **told: Any) -> Callable[[Any], None]:
    """An answer of these pieces, each a text or who drafted it and its text.

    Args:
        told: the last chunk's numbers of ``timings``.
    """
    pairs = [("full", each) if isinstance(each, str) else each for each in pieces]
    chunks: list[Any] = [_chunk({"role": "assistant"})]
    for i, (source, text) in enumerate(pairs, 1):
        ours = {"pieces": [{"text": text, "source": source}], "rounds": i, "drafted": 2 * i}
        chunks.append({**_chunk({"content": text}), "edge_conflayers": {**ours, "accepted": i}})
    timings = {"prompt_n": 9, "cache_n": 0, "prompt_ms": 50.0, "predicted_n": len(pairs)}
    timings |= {"predicted_per_second": 20.0, **told}
    ended = {**_chunk({}, told.get("reason", "stop")), "timings": timings}
    chunks.append(ended)
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return lambda route: route.fulfill(content_type="text/event-stream", body=body)


def refused(status: int, message: str, code: str | None = None) -> Callable[[Any], None]:
    """An error object in place of an answer."""
    error = {"message": message, "type": "some_error", "param": None, "code": code}
    return lambda route: route.fulfill(status=status, json={"error": error})


def _chunk(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}


def metric(text: str, name: str) -> float:
    """The sum of a metric over its labels, in Prometheus's text."""
    return sum(float(each) for each in re.findall(rf"^{name}{{.*}} (.+)$", text, re.M))


def joined(runs: Iterable[tuple[str, str]]) -> str:
    return "".join(text for _, text in runs)
