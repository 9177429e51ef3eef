"""What a text cost, in one line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edge_conflayers.cli.terminal import console

if TYPE_CHECKING:
    from edge_conflayers.decoding.stats import Stats


def show_stats(stats: Stats, method: str, *, random_seed: int | None = None) -> None:
    """Prints the line on standard error.

    Args:
        random_seed: the seed, where one was drawn.
    """
    parts = [f"{stats.tokens} tokens", f"{stats.tokens_per_second:.1f} tokens/s"]
    if method != "plain":
        rate = stats.acceptance_rate
        parts += [
            f"{stats.tokens_per_round:.2f} tokens/round",
            f"{'no' if rate is None else f'{rate:.0%} of'} drafted tokens accepted",
        ]
        attention, mlp = (
            len(stats.drafter.get(f"{kind}_dropped", ())) for kind in ("attention", "mlp")
        )
        if attention or mlp:
            parts.append(f"{attention} attention and {mlp} MLP layers dropped")
        parts.append(f"draft {stats.draft_seconds:.2f} s")
    parts.append(f"verify {stats.verify_seconds:.2f} s")
    if method != "plain":
        parts.append(f"learning {stats.search_seconds:.2f} s")
    cached = f" ({stats.cached_tokens} cached)" if stats.cached_tokens else ""
    parts.append(f"prompt {stats.prompt_tokens} tokens{cached} in {stats.prompt_seconds:.2f} s")
    if random_seed is not None:
        parts.append(f"seed {random_seed}")
    if stats.finish_reason == "interrupted":
        parts.append("interrupted")
    elif stats.finish_reason == "context":
        parts.append("stopped: the context is full (-c)")
    console(sys.stderr).print(f"[dim]{method}: {', '.join(parts)}[/dim]")
