"""Opens the models that are to be served."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_conflayers import machine
from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.model_options import ModelOptions
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.engine.session.kv_cache import context_for
from edge_conflayers.errors import BadInput
from edge_conflayers.onnx.opening import open_model
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.server.idle_time import IdleTime
from edge_conflayers.server.metrics import Metrics
from edge_conflayers.server.options import ServerOptions
from edge_conflayers.server.serving import ServedModel, Service
from edge_conflayers.text_generator import TextGenerator
from edge_conflayers.tune.idle.teacher import IdleTeacher


@dataclass(frozen=True)
class Opening:
    """How models are opened.

    Attributes:
        parallel: slots of each.
        sampling: settings that requests do not give, by the names of ``SamplerSettings``.
        threads: CPU threads of each slot; None for the machine's physical cores, shared out.
        learn: teach the models while nobody waits for them.
        tell: is told what was learned, in one line.

    The others are as for ``TextGenerator``; a context does not grow while it serves.

    Raises:
        BadInput: settings that cannot be used.
    """

    parallel: int = 1
    sampling: Mapping[str, Any] = field(default_factory=dict)
    n_ctx: int | None = None
    threads: int | None = None
    gpu_layers: int = 0
    options: ModelOptions | None = None
    kernels: KernelChoice | None = None
    provider: str | None = None
    method: str = "auto"
    draft_model: Path | None = None
    epsilon: float | None = None
    exact_reuse: bool = True
    fresh: bool = False
    learn: bool = False
    tell: Callable[[str], None] = lambda line: None
    profiles: ProfileStore | None = None

    def __post_init__(self) -> None:
        SamplerSettings(**self.sampling)

    def teacher(self, name: str, generator: TextGenerator) -> IdleTeacher | None:
        """Teaches a model if it is to learn: with all threads, as all slots are idle then.

        Raises:
            BadInput: the model cannot be taught.
        """
        if not self.learn:
            return None
        threads = machine.threads_to_use(self.threads)
        return IdleTeacher(
            *(generator.model, generator.learned, threads),
            tell=lambda line: self.tell(f"{name}: {line}"),
        )

    def generator(self, path: Path) -> TextGenerator:
        """The generator of a model's first slot; its model is to be closed after it."""
        threads = self.threads or max(1, machine.default_threads() // self.parallel)
        with ExitStack() as stack:
            model = stack.enter_context(
                open_model(
                    path,
                    gpu_layers=self.gpu_layers,
                    kernels=self.kernels,
                    provider=self.provider,
                    threads=threads,
                    options=self.options,
                )
            )
            generator = TextGenerator(
                model,
                method=self.method,
                n_ctx=context_for(model, 0, 0, self.n_ctx),
                threads=threads,
                kernels=self.kernels,
                provider=self.provider,
                draft_model=self.draft_model,
                epsilon=self.epsilon,
                exact_reuse=self.exact_reuse,
                fresh=self.fresh,
                profiles=self.profiles,
            )
            stack.pop_all()
        return generator


def open_service(paths: Mapping[str, Path], opening: Opening, options: ServerOptions) -> Service:
    """Opens models.

    Args:
        paths: by the names that requests call them by.

    Raises:
        BadInput: one cannot be opened.
    """
    metrics, idle_time = Metrics(), IdleTime()
    with ExitStack() as stack:
        models = [
            stack.enter_context(_open_model(name, path, opening, options, metrics, idle_time))
            for name, path in paths.items()
        ]
        stack.pop_all()
    return Service(models, options, metrics)


def _open_model(
    name: str,
    path: Path,
    opening: Opening,
    options: ServerOptions,
    metrics: Metrics,
    idle_time: IdleTime,
) -> ServedModel:
    with ExitStack() as stack:
        generator = opening.generator(path)
        stack.enter_context(generator.model)
        stack.enter_context(generator)
        teacher = opening.teacher(name, generator)
        if teacher is not None:
            stack.enter_context(teacher)
        served = ServedModel(
            name,
            generator,
            parallel=opening.parallel,
            sampling=opening.sampling,
            options=options,
            metrics=metrics,
            idle_time=idle_time,
            teacher=teacher,
        )
        stack.pop_all()
    return served


def names_of(models: Sequence[str]) -> dict[str, str]:
    """The models that a user gives, by what requests call them by.

    Raises:
        BadInput: two would be called the same.
    """
    found: dict[str, str] = {}
    for model in models:
        name = name_of(model)
        if name in found:
            raise BadInput(f"two models would be called {name!r}; rename one of the files")
        found[name] = model
    return found


def name_of(model: str) -> str:
    """What requests call a model by that the user gives so: as it is, a file without its folder and
    ending."""
    path = Path(model)
    if path.suffix == ".gguf" or path.is_dir():
        return path.name.removesuffix(".gguf")
    return model
