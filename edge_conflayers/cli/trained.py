"""How far ``train`` is, and what it has made, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.terminal import print_table

if TYPE_CHECKING:
    from edge_conflayers.train.layerskip import Report, Stage


class TrainingStages:
    """Shows the stages of training, and a line that stays whenever the held-out texts were run."""

    def __init__(self, progress: Progress, *, quiet: bool) -> None:
        self._progress = progress
        self._quiet = quiet
        self._stage = ""

    def show(self, now: Stage) -> None:
        if now.name != self._stage:
            self._stage = now.name
            self._progress.begin(now.name, 1.0, "share", at_once=True)
        step = now.step
        self._progress.update(now.done, more=f"step {step.step}" if step is not None else "")
        if step is not None and step.quality is not None and not self._quiet:
            half = _half(step.quality.agreement)
            click.echo(
                f"step {step.step}: loss of the full model {step.quality.full_loss:.3f},"
                f" exit after {half} layers agrees with it {step.quality.agreement[half]:.0%}",
                err=True,
            )


def _half(exits: Iterable[int]) -> int:
    """The exit in the middle."""
    ordered = sorted(exits)
    return ordered[len(ordered) // 2]


def report_json(report: Report) -> dict[str, Any]:
    """A report, JSON-able: losses in nats, agreement by the layers before an exit."""
    trained = report.trained
    qualities = {"before": trained.before, "trained": trained.after, "stored": report.stored}
    return {
        "path": str(report.path),
        "bytes": report.path.stat().st_size,
        "steps": trained.steps,
        "tokens": trained.tokens,
        "texts": report.texts,
        "texts_tokens": report.tokens,
        "interrupted": trained.interrupted,
        "quality": {
            name: {"loss": each.full_loss, "agreement": dict(each.agreement), "tokens": each.tokens}
            for name, each in qualities.items()
        },
    }


def show_report(report: Report) -> None:
    """Prints how good the model was, is and is as stored."""
    trained, stored = report.trained, report.stored
    qualities = (trained.before, trained.after, stored)
    rows = [
        (
            f"full model, loss of {stored.tokens} held-out tokens",
            *(f"{q.full_loss:.3f}" for q in qualities),
        ),
        *(
            (f"exit after {exit} layers agrees", *(f"{q.agreement[exit]:.0%}" for q in qualities))
            for exit in stored.agreement
        ),
    ]
    print_table(("", "before", "trained", "as stored"), rows)
    click.echo(
        f"{report.path}  {report.path.stat().st_size / 1e6:.0f} MB, after {trained.steps} steps"
        f" over {trained.tokens} tokens ({report.tokens} of {report.texts} texts)"
    )
