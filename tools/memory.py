"""Measures how much memory a process takes, by upstream's library and by ours.

Each case is a process of its own that loads the model, reads a prompt and decodes: token by token
(`plain`), or in rounds of 1 to N drafted tokens that are then verified with the logits of every
token (`drafting`; for upstream, which drafts nothing, the verifications alone). Reported are the
peak of resident memory, the resident memory at the end, and how much of that is anonymous; the rest
is the model file, whose pages the system can drop.

    python tools/memory.py smollm2-135m qwen2.5-coder-1.5b

Linux only: it reads /proc. Upstream's library is that of `make upstream`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_LIBRARY = "EDGE_CONFLAYERS_LIB"
_PROMPT = 512  # tokens
_PLAIN_STEPS = 20
_FIELDS = {"peak": "VmHWM", "resident": "VmRSS", "anonymous": "RssAnon"}
_CASES = [(library, kind) for kind in ("plain", "drafting") for library in ("upstream", "ours")]


def _memory() -> dict[str, float]:
    """Memory of this process, in 10^6 bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return {name: int(status[field].split()[0]) * 1024 / 1e6 for name, field in _FIELDS.items()}


def _run(path: str, kind: str, context: int, drafted: int) -> dict[str, float]:
    """Runs one case in this process."""
    from edge_conflayers.bench.upstream import UpstreamSession
    from edge_conflayers.engine import binding
    from edge_conflayers.engine.model import Model
    from edge_conflayers.engine.session import LayerMask, Session
    from edge_conflayers.engine.session.probe import probe

    with Model(path) as model:
        tokens = [100 + i % (model.n_vocab - 100) for i in range(_PROMPT)]
        make: Callable[..., Session] = Session if binding.PATCHED else UpstreamSession
        with make(model, n_ctx=context, threads=2) as session:
            session.read(tokens)
            for token in tokens[:_PLAIN_STEPS]:
                session.step([token])
            mask = LayerMask.layers(range(1, model.n_layer - 1, 2))
            for n in range(1, drafted + 1) if kind == "drafting" else ():
                begin = len(session)
                if binding.PATCHED:
                    draft = session.draft(mask, tokens[:1], limit=n, stop_probability=0.0)
                    session.verify(tokens[:1], draft)
                else:
                    session.step(tokens[: n + 1], outputs="all")
                session.rollback(begin + 1)
            if kind == "drafting" and binding.PATCHED:
                probe(session, tokens[:32])
            return _memory()


def _child(path: Path, library: str, kind: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Runs one case in a process of its own."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    environment.pop(_LIBRARY, None)
    if library == "upstream":
        environment[_LIBRARY] = str(arguments.upstream_lib)
    settings = [str(path), kind, str(arguments.context), str(arguments.drafted)]
    run = subprocess.run(
        [sys.executable, __file__, "--child", *settings],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(run.stdout)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        path, kind, context, drafted = sys.argv[2:]
        print(json.dumps(_run(path, kind, int(context), int(drafted))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help=".gguf files or registry names")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--drafted", type=int, default=26, help="most tokens of a draft")
    parser.add_argument("--upstream-lib", type=Path, default=Path("build/upstream/lib"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    from edge_conflayers.bench.upstream_client import find_library
    from edge_conflayers.hub import models

    arguments.upstream_lib = find_library(arguments.upstream_lib)
    report: dict[str, dict[str, dict[str, float]]] = {}
    for model in arguments.models:
        path = models.resolve(model)
        cases = {case: _child(path, *case, arguments) for case in _CASES}
        report[model] = {" ".join(case): found for case, found in cases.items()}
        print(f"{model}, {path.stat().st_size / 1e6:.0f} MB")
        for (library, kind), found in cases.items():
            upstream = cases["upstream", kind]
            cells = (
                f"{name} {value:7.1f} MB ({value / upstream[name] - 1:+6.1%})"
                for name, value in found.items()
            )
            print(f"  {kind:8} {library:8} {'  '.join(cells)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
