"""Counts for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_conflayers.decoding.stats import Stats
from edge_conflayers.tune.idle.teacher import IdleProgress

# Of no use here: they double the lines.
disable_created_metrics()  # type: ignore[no-untyped-call]
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
Load = Callable[[], Iterable[tuple[str, int, int]]]
"""Of each model: its name, and how many texts are written and wait."""


Learning = Callable[[], Iterable[tuple[str, IdleProgress]]]
"""Of each model that learns: its name, and what it has learned in idle time."""
_LEARNED = {
    "texts": "Texts that were learned from in idle time.",
    "tokens": "Tokens read and written to learn from.",
    "steps": "Steps of training.",
    "rounds": "Rounds of writing, learning and testing.",
    "better": "Better heads that were taken.",
}


class Metrics:
    """What the server has done, by model where that makes a difference."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"edge_conflayers_{name}", help, labels, registry=self.registry)

        def histogram(name: str, help: str) -> Histogram:
            return Histogram(
                f"edge_conflayers_{name}",
                help,
                ["model"],
                buckets=_SECONDS,
                registry=self.registry,
            )

        self.requests = counter("requests", "Requests by route and status.", "route", "status")
        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts.", "model")
        self.cached_tokens = counter("cached_tokens", "Those not read again.", "model")
        self.tokens = counter("tokens", "Tokens written, by who drafted them.", "model", "source")
        self.drafted = counter("drafted_tokens", "Tokens drafted.", "model")
        self.accepted = counter("accepted_tokens", "Drafted tokens accepted.", "model")
        self.stopped = counter("stopped_texts", "Texts ended early, by the client.", "model")
        self.seconds = histogram("text_seconds", "From asking for a text to its end.")
        self.first_token = histogram("first_token_seconds", "From asking to a text's first token.")

    def add_text(self, model: str, stats: Stats) -> None:
        """Counts a text."""
        self.prompt_tokens.labels(model).inc(stats.prompt_tokens)
        self.cached_tokens.labels(model).inc(stats.cached_tokens)
        self.drafted.labels(model).inc(stats.drafted)
        self.accepted.labels(model).inc(stats.accepted)
        for source in set(stats.sources):
            self.tokens.labels(model, source).inc(stats.sources.count(source))

    def watch(self, load: Load) -> None:
        """Tells the load as well, whenever it is asked for."""
        self.registry.register(_LoadCollector(load))

    def watch_learning(self, learning: Learning) -> None:
        """Tells what was learned in idle time as well, whenever it is asked for."""
        self.registry.register(_LearningCollector(learning))

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self.registry)


class _LoadCollector(Collector):
    def __init__(self, load: Load) -> None:
        self._load = load

    def collect(self) -> Iterable[GaugeMetricFamily]:
        writing = GaugeMetricFamily(
            "edge_conflayers_texts_writing", "Texts being written.", labels=["model"]
        )
        waiting = GaugeMetricFamily(
            "edge_conflayers_texts_waiting", "Texts waiting for a slot.", labels=["model"]
        )
        for model, now, later in self._load():
            writing.add_metric([model], now)
            waiting.add_metric([model], later)
        return writing, waiting


class _LearningCollector(Collector):
    def __init__(self, learning: Learning) -> None:
        self._learning = learning

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        found = list(self._learning())
        for name, help in _LEARNED.items():
            family = CounterMetricFamily(f"edge_conflayers_learned_{name}", help, labels=["model"])
            for model, progress in found:
                family.add_metric([model], getattr(progress, name))
            yield family
        foreseen = GaugeMetricFamily(
            "edge_conflayers_learned_foreseen",
            "Share of held-out tokens in four guesses, by the last better head and the one before.",
            labels=["model", "head"],
        )
        for model, progress in found:
            for head, share in (("last", progress.now), ("before", progress.before)):
                if share is not None:
                    foreseen.add_metric([model, head], share)
        yield foreseen


class RequestCounter:
    """Counts requests."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting)
