"""Compares the steps of a model by ONNX Runtime, by our library and by upstream's, in one run.

    edge-conflayers export smollm2-135m smollm2-onnx
    python tools/runtimes.py smollm2-135m=smollm2-onnx

Each runtime is a process of its own that has read 128 tokens. In every round each of them makes a
few steps of each kind, in turn; medians are reported, and ratios are medians of the rounds' own.
`t1` is a one-token step as plain decoding makes it, V(n) a step over n tokens that verifies a
draft, c(half) a one-token step with every second layer dropped. Loading takes the model's file from
the page cache. Memory is the peak of the resident set. Linux only: it reads /proc. Upstream's
library is that of `make upstream`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

_LIBRARY = "EDGE_CONFLAYERS_LIB"
_WORKER = "--worker"
_READ = 128  # tokens before the steps
_SIZES = (2, 4, 8)
_HALF = "half"
_STEPS = 5  # of a kind in a round
_KINDS = ("plain", *map(str, _SIZES), _HALF)
_TEXT = "The lighthouse keeper counted 47 ships that autumn, and wrote each name in a ledger. "


def _work(runtime: str, path: str, threads: int) -> None:
    """Answers each line of standard input, a kind of step, with the seconds of some such steps."""
    from edge_conflayers.bench.upstream import UpstreamSession
    from edge_conflayers.engine.model import Model
    from edge_conflayers.engine.session import LayerMask
    from edge_conflayers.onnx.opening import open_model

    began = time.perf_counter()
    if runtime == "upstream":
        llama = Model(path)
        model: Any = llama
        session: Any = UpstreamSession(llama, n_ctx=512, threads=threads)
    else:
        model = open_model(path, threads=threads)
        session = model.open_session(n_ctx=512, threads=threads)
    tokens = model.repeated(_TEXT, _READ + max(_SIZES))
    session.step(tokens[:1], outputs="all")
    loaded = time.perf_counter() - began
    session.rollback(0)
    session.read(tokens[:_READ])
    print(json.dumps(loaded), flush=True)
    half = LayerMask.layers(range(1, model.n_layer, 2))
    for line in sys.stdin:
        kind = line.strip()
        if kind == "memory":
            status = Path("/proc/self/status").read_text()
            print(int(status.partition("VmHWM:")[2].split()[0]) * 1024, flush=True)
            continue
        if kind == _HALF:
            session.set_mask(half)
        n = 1 if kind in ("plain", _HALF) else int(kind)
        seconds = []
        for _ in range(_STEPS):
            step_began = time.perf_counter()
            session.step(tokens[_READ : _READ + n], outputs="all")
            seconds.append(time.perf_counter() - step_began)
            session.rollback(_READ)
        if kind == _HALF:
            session.set_mask(LayerMask())
        print(json.dumps(median(seconds)), flush=True)


class _Runtime:
    """A process that makes steps when it is asked."""

    def __init__(self, name: str, path: str, threads: int, library: Path | None) -> None:
        self.name = name
        environment = dict(os.environ)
        if library is not None:
            environment[_LIBRARY] = str(library)
        self._process = subprocess.Popen(
            [sys.executable, __file__, _WORKER, name, path, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.loaded = self._answer()
        self.kinds = [kind for kind in _KINDS if name != "upstream" or kind != _HALF]
        self.rounds: list[dict[str, float]] = []

    def _answer(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: its process ended; run it alone with {_WORKER}")
        return float(json.loads(line))

    def ask(self, what: str) -> float:
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        return self._answer()

    def round(self) -> None:
        self.rounds.append({kind: self.ask(kind) for kind in self.kinds})

    def row(self, size: int) -> list[str]:
        plain = median(each["plain"] for each in self.rounds)
        ratios = [
            f"{median(each[kind] / each['plain'] for each in self.rounds):.2f}"
            if kind in self.kinds
            else ""
            for kind in _KINDS[1:]
        ]
        memory = self.ask("memory")
        milliseconds = f"{plain * 1e3:.1f}"
        sizes = (f"{self.loaded:.2f}", f"{size / 1e6:.0f}", f"{memory / 1e6:.0f}")
        return [self.name, milliseconds, f"{1 / plain:.1f}", *ratios, *sizes]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def _size(path: Path) -> int:
    return sum(
        each.stat().st_size for each in ([path] if path.is_file() else path.rglob("*.onnx*"))
    )


def _compare(gguf: Path, folder: Path, rounds: int, threads: int, library: Path) -> None:
    runtimes: list[_Runtime] = []
    try:
        for name, path in (("upstream", gguf), ("ours", gguf), ("ONNX Runtime", folder)):
            runtimes.append(
                _Runtime(name, str(path), threads, library if name == "upstream" else None)
            )
        for _ in range(rounds):
            for runtime in runtimes:
                runtime.round()
        head = ["runtime", "t1 ms", "tokens/s", *(f"V({n})" for n in _SIZES), "c(half)"]
        _print([*head, "load s", "size MB", "memory MB"])
        _print(["---"] * (len(head) + 3))
        for runtime in runtimes:
            _print(runtime.row(_size(folder if runtime.name == "ONNX Runtime" else gguf)))
    finally:
        for runtime in runtimes:
            runtime.close()


def _print(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    if sys.argv[1:2] == [_WORKER]:
        _work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    from edge_conflayers import machine
    from edge_conflayers.bench.upstream_client import find_library
    from edge_conflayers.cli.pulling import find_model

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", metavar="MODEL=DIR", help="a model and its export")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=machine.threads_to_use(None))
    parser.add_argument("--upstream-lib", type=Path)
    arguments = parser.parse_args()
    library = find_library(arguments.upstream_lib)
    for pair in arguments.pairs:
        model, _, folder = pair.partition("=")
        print(f"\n{model}, {arguments.threads} threads\n")
        _compare(find_model(model), Path(folder), arguments.rounds, arguments.threads, library)


if __name__ == "__main__":
    main()
