"""Examines everything, in order; what goes wrong becomes a line of the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_conflayers import machine
from edge_conflayers.bench.about import now
from edge_conflayers.doctor.hardware import examine_machine, load
from edge_conflayers.doctor.section import Section
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.machine.memory_speed import MemoryReading

if TYPE_CHECKING:
    from edge_conflayers.engine.cpu_kernels import KernelChoice
    from edge_conflayers.engine.language_model import LanguageModel
    from edge_conflayers.engine.model_options import ModelOptions

_READ_SECONDS = 0.5  # of memory, before a model is loaded; not tuned


@dataclass
class Report:
    """What the doctor found.

    Attributes:
        sections: in the order in which they are shown.
        advice: what to do next.
    """

    sections: list[Section] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Everything that is broken."""
        return [problem for section in self.sections for problem in section.problems]

    def to_json(self) -> dict[str, Any]:
        return {
            "date": now(),
            **{section.name: section.to_json() for section in self.sections},
            "advice": self.advice,
            "broken": bool(self.problems),
        }


def examine(
    name: str | None,
    find: Callable[[str], Path],
    *,
    threads: int | None = None,
    gpu_layers: int = 0,
    kernels: KernelChoice | None = None,
    options: ModelOptions | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Report:
    """Examines this machine, and a model on it. Takes a second, and about a hundred of the model's
    steps.

    Args:
        name: the model as a user names it; None for none.
        find: gives its file or folder.
        threads, gpu_layers, kernels, options: as for ``run``.
        on_stage: called with what is begun.

    Raises:
        BadInput: more threads than the machine has.
    """
    threads = machine.threads_to_use(threads)
    report, busy = Report(), load()
    library = _library()
    on_stage("reading memory")
    reading = MemoryReading(threads)
    reading.read_for(_READ_SECONDS)
    of_model: list[Section] = []
    if name is not None and not library.problems:

        def load_model() -> LanguageModel:
            from edge_conflayers.onnx.opening import open_model

            path = find(name)
            on_stage("loading the model")
            return open_model(
                path, gpu_layers=gpu_layers, kernels=kernels, threads=threads, options=options
            )

        of_model = list(_model_sections(report, name, load_model, threads, reading, on_stage))
    hardware = examine_machine(threads, reading, busy)
    report.sections = [library, hardware, *of_model]
    report.advice = _about_build(library, hardware, gpu_layers) + report.advice
    return report


def _library() -> Section:
    try:
        from edge_conflayers.doctor.library import examine_library

        return examine_library()
    except EdgeConflayersError as error:
        set_by_user = os.environ.get("EDGE_CONFLAYERS_LIB")
        instead = "unset EDGE_CONFLAYERS_LIB" if set_by_user else "install it with `pip install .`"
        return Section("library", problems=[f"{error}: {instead}"])


def _about_build(library: Section, hardware: Section, gpu_layers: int) -> list[str]:
    if library.problems:
        return []
    from edge_conflayers.doctor.advice import about_build

    return about_build(
        hardware.data["features"],
        library.data["compiled_for"],
        library.data["devices"],
        layers=gpu_layers,
    )


def _model_sections(
    report: Report,
    name: str,
    load_model: Callable[[], LanguageModel],
    threads: int,
    reading: MemoryReading,
    on_stage: Callable[[str], None],
) -> Iterator[Section]:
    """The sections about a model; where one fails, its problem ends them."""
    done: list[str] = []
    try:
        with load_model() as model:
            for section in _examined(report, name, model, threads, reading, on_stage):
                done.append(section.name)
                yield section
    except (EdgeConflayersError, OSError, MemoryError) as error:
        yield Section("model" if not done else f"after {done[-1]}", problems=[_told(error)])


def _told(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out of memory: close programs, or use a smaller model"
    return str(error)


def _examined(
    report: Report,
    name: str,
    model: LanguageModel,
    threads: int,
    reading: MemoryReading,
    on_stage: Callable[[str], None],
) -> Iterator[Section]:
    from edge_conflayers.doctor.advice import about_model
    from edge_conflayers.doctor.known import examine_known
    from edge_conflayers.doctor.memory import examine_memory
    from edge_conflayers.doctor.model_file import examine_model
    from edge_conflayers.doctor.quantization import examine_quantization
    from edge_conflayers.doctor.steps import examine_steps
    from edge_conflayers.engine import binding
    from edge_conflayers.engine.model import Model
    from edge_conflayers.learned import Learned

    section, uses = examine_model(model)
    yield section
    on_stage("measuring steps")
    weights = sum(use.bytes_read for use in uses) if uses else None
    steps, facts = examine_steps(model, threads, weights, reading)
    yield steps
    yield examine_memory(model, section.data.get("weight_bytes", _file_bytes(model.path)))
    verdict = None
    if isinstance(model, Model) and not model.on_gpu:
        formats = binding.kernels(model.kernels)["formats"]
        quantization, verdict = examine_quantization(uses, formats, reading.fastest)
        yield quantization
    known = examine_known(Learned(model, threads))
    yield known
    report.advice = about_model(name, facts, verdict, known.data)


def _file_bytes(path: Path) -> int:
    """Of a file, or of what is in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files if each.is_file())
