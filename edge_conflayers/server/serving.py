"""Models that are served, their slots and their queues."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

from edge_conflayers.completions.answers import Write
from edge_conflayers.completions.openai import Response
from edge_conflayers.completions.request import Piece, TextRequest
from edge_conflayers.completions.slots import Slots
from edge_conflayers.completions.writing import write
from edge_conflayers.engine.closing import Closing
from edge_conflayers.server.asking import Asked, Limits
from edge_conflayers.server.embedding import Embeddings
from edge_conflayers.server.failures import Busy, Ending, NoSuchModel
from edge_conflayers.server.idle_time import IdleTime
from edge_conflayers.server.jobs import Job, Stopped
from edge_conflayers.server.metrics import Metrics
from edge_conflayers.server.options import ServerOptions
from edge_conflayers.server.replies import Report, joined, usage_chunk
from edge_conflayers.text_generator import TextGenerator
from edge_conflayers.tune.idle.teacher import IdleTeacher

log = logging.getLogger("edge_conflayers.server")
_SAVE_EVERY = 60.0  # seconds between savings of what was learned; not tuned


class ServedModel(Closing):
    """A model that is served.

    A text is written in a thread; there are as many as slots, and what comes meanwhile waits.

    Args:
        name: that requests call it by.
        generator: of its first slot; closed with this, as its model is.
        parallel: slots.
        sampling: settings that requests do not give.
        idle_time: of all models.
        teacher: learns from what was written; closed with this. None for no learning.

    Raises:
        BadInput: no memory for the slots' contexts.
    """

    def __init__(
        self,
        name: str,
        generator: TextGenerator,
        *,
        parallel: int,
        sampling: Mapping[str, Any],
        options: ServerOptions,
        metrics: Metrics,
        idle_time: IdleTime,
        teacher: IdleTeacher | None = None,
    ) -> None:
        self.name = name
        self.teacher = teacher
        self._idle_time = idle_time
        self.created = int(time.time())
        with ExitStack() as stack:
            stack.enter_context(generator.model)
            self.slots = stack.enter_context(Slots(generator, parallel))
            self.model = self.slots.model
            self.limits = Limits(
                self._open_all(parallel), options.max_tokens, sampling, generator.threads
            )
            self.embeddings = stack.enter_context(
                Embeddings(self.model, self.limits.n_ctx, generator.threads)
            )
            if teacher is not None:
                stack.enter_context(teacher)
            self._open = stack.pop_all()
        self.parallel = parallel
        self._queue = options.queue
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix=f"slot of {name}")
        self._jobs: set[Job[Response]] = set()
        self._admitted = 0  # texts that are written or wait
        self._lock = threading.Lock()
        self._ending = False
        self._saved = time.monotonic()

    def _open_all(self, parallel: int) -> int:
        """Opens the slots' contexts, so that no text has to wait for that; returns their size."""
        with ExitStack() as stack:
            taken = [stack.enter_context(self.slots.take(())) for _ in range(parallel)]
            return min(each.open(0, 0).n_ctx for each in taken if each is not None)

    def admit(self) -> None:
        """Takes one more text; ``release`` or a job ends that.

        Raises:
            Busy: too many are written and wait.
            Ending: the server ends.
        """
        with self._lock:
            if self._ending:
                raise Ending("the server ends; ask again once it is back")
            if self._admitted >= self.parallel + self._queue:
                raise Busy(f"{self._queue} texts wait already; ask again later")
            self._admitted += 1
        self._idle_time.end()

    def release(self) -> None:
        """Ends what ``admit`` began."""
        with self._lock:
            self._admitted -= 1
        self._idle_time.begin(self.teacher)

    @property
    def load(self) -> tuple[str, int, int]:
        """The name, and how many texts are written and wait."""
        with self._lock:
            admitted = self._admitted
        return self.name, min(admitted, self.parallel), max(admitted - self.parallel, 0)

    def write(self, asked: Asked) -> Job[Response]:
        """Writes what was admitted, text after text; the job's results are the responses."""
        begun = time.monotonic()
        job = Job(lambda stopped: self._responses(asked, stopped, begun), self._done)
        self._jobs.add(job)
        job.start(self._threads)
        return job

    def _done(self, job: Job[Response]) -> None:
        self._jobs.discard(job)
        self.release()

    def _responses(
        self, asked: Asked, stopped: threading.Event, begun: float
    ) -> Generator[Response, None, None]:
        reports: list[Report] = []
        whole: list[Response] = []
        try:
            for number, text in enumerate(asked.texts):
                report = Report(text.request.sampling.seed, number, repeated=text.repeated)
                reports.append(report)
                since = time.monotonic() if number else begun
                for response in text.responses(self._writing(report, stopped, since)):
                    told = report.complete(response)
                    if asked.stream:
                        yield told
                    else:
                        whole.append(told)
            if not asked.stream:
                yield joined(whole, reports)
            elif asked.include_usage:
                yield usage_chunk(asked.header, asked.kind, reports)
        except Stopped:
            self._metrics.stopped.labels(self.name).inc()
            raise
        finally:
            for report in reports:
                self._metrics.add_text(self.name, report.stats)
            self._metrics.seconds.labels(self.name).observe(_since(begun))

    def _writing(self, report: Report, stopped: threading.Event, begun: float) -> Write:
        """What writes a text, which was asked for then, and notes its pieces."""

        def check() -> None:
            if stopped.is_set():
                raise Stopped

        def pieces(request: TextRequest) -> Iterator[Piece]:
            request = replace(request, before_batch=check)
            with self.slots.take(request.prompt) as generator:
                assert generator is not None, "take() waits without a timeout"
                if self.teacher is not None and self.teacher.head is not None:
                    generator.use_head(self.teacher.head)
                report.method = generator.method_name
                with closing(write(generator, request)) as written:
                    for piece in written:
                        if report.stats.tokens == 0:
                            self._metrics.first_token.labels(self.name).observe(_since(begun))
                        report.add(piece)
                        check()
                        yield piece
                self._save(generator)
                if self.teacher is not None:
                    self.teacher.hear(generator, report.stats.prompt_tokens)

        return pieces

    def _save(self, generator: TextGenerator) -> None:
        """Keeps what was learned, now and then: a server may end without notice."""
        with self._lock:
            if time.monotonic() - self._saved < _SAVE_EVERY:
                return
            self._saved = time.monotonic()
        generator.save()

    def refuse(self) -> None:
        """Takes no more texts."""
        with self._lock:
            self._ending = True

    def stop(self) -> None:
        """Ends all texts early. To be called on the event loop."""
        self.refuse()
        for job in list(self._jobs):
            job.stop(Ending("the server ends before the text does; ask again once it is back"))

    def join(self, seconds: float) -> bool:
        """Waits for its threads; returns whether they have come to an end."""
        end = time.monotonic() + seconds
        while self._jobs and time.monotonic() < end:
            time.sleep(0.01)
        return not self._jobs

    def close(self) -> None:
        """Keeps what was learned, and frees the model; no text may be in the writing."""
        self._threads.shutdown()
        self._open.close()


class Service(Closing):
    """All that is served: closes its models.

    Args:
        models: the first one is taken where a request names none.
    """

    def __init__(
        self, models: Iterable[ServedModel], options: ServerOptions, metrics: Metrics
    ) -> None:
        self.models = {each.name: each for each in models}
        self.options = options
        self.metrics = metrics
        metrics.watch(lambda: [each.load for each in self.models.values()])
        metrics.watch_learning(
            lambda: [
                (each.name, each.teacher.progress)
                for each in self.models.values()
                if each.teacher is not None
            ]
        )

    def model(self, name: str | None) -> ServedModel:
        """The model of this name.

        Raises:
            NoSuchModel: there is none.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            known = ", ".join(self.models)
            raise NoSuchModel(f"there is no model {name!r} here; choose from {known}")
        return self.models[name]

    def close(self) -> None:
        """Closes the models."""
        with ExitStack() as stack:
            for each in self.models.values():
                stack.callback(each.close)


def _since(begun: float) -> float:
    return time.monotonic() - begun
