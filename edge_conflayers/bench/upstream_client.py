"""Decoding by upstream's own library, in a process of its own: starts it and asks it for texts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import edge_conflayers
from edge_conflayers.bench.runner import Generation
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.model_options import ModelOptions
from edge_conflayers.engine.native import LIBRARY_VARIABLE
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.errors import BadInput, EdgeConflayersError

# The folder of the package: a checkout, or an environment's packages.
_ROOT = Path(edge_conflayers.__file__).resolve().parent.parent
_BUILT = Path("build") / "upstream" / "lib"
_STOP_SECONDS = 5.0  # that the process has to end by itself; not tuned


def find_library(given: Path | None) -> Path:
    """The folder of the unpatched library: the one given, else what ``make upstream`` built in this
    package's checkout or in the current folder.

    Raises:
        BadInput: there is none.
    """
    folders = [given] if given else [_ROOT / _BUILT, Path.cwd() / _BUILT]
    for folder in folders:
        if any(folder.glob("libllama.*")) or (folder / "llama.dll").exists():
            return folder.resolve()
    if given is not None:
        raise BadInput(f"{given} holds no llama library; run `make upstream` and give its folder")
    raise BadInput(
        "upstream's own library is not built; run `make upstream`, or give its folder with"
        " --upstream-lib"
    )


class UpstreamEngine:
    """An ``Engine`` that runs ``edge_conflayers.bench.upstream``, which computes only when asked.

    Args:
        model: the .gguf file.
        library: folder of the unpatched library.
        lookup: whether to draft by llama-cpp-python's prompt lookup; else it decodes plainly.
        n_ctx, threads: as for ``Session``.
        options: as for ``Model``; the same mean the same in upstream's library.

    Raises:
        BadInput: the library is not upstream's, or what ``Model`` and ``Session`` raise.
        EdgeConflayersError: the process does not start, or ends.
    """

    def __init__(
        self,
        model: Path,
        library: Path,
        sampling: SamplerSettings,
        *,
        lookup: bool = False,
        n_ctx: int | None = None,
        threads: int | None = None,
        gpu_layers: int = 0,
        options: ModelOptions | None = None,
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge_conflayers.bench.upstream"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            cwd=_ROOT,  # -m imports from here first: this very package
            env={**os.environ, LIBRARY_VARIABLE: str(library)},
            start_new_session=True,  # Ctrl-C is for this process; it ends the other one
        )
        try:
            self._ask(
                {
                    "do": "load",
                    "model": str(model.resolve()),
                    "gpu_layers": gpu_layers,
                    "options": (options or ModelOptions()).to_json(),
                    "n_ctx": n_ctx,
                    "threads": threads,
                    "sampling": asdict(sampling),
                    "lookup": lookup,
                }
            )
        except BaseException:
            self.close()
            raise

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generation:
        answer = self._ask({"do": "generate", "prompt": list(prompt), "max_tokens": max_tokens})
        return Generation(tuple(answer["tokens"]), Stats(**answer["stats"]))

    def restart(self) -> None:
        pass

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # a request that it no longer reads
                stream.close()
        self._log.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EdgeConflayersError(f"upstream's process ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = BadInput if answer["exit_code"] == BadInput.exit_code else EdgeConflayersError
            raise kind(f"upstream: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        code = self._process.wait(_STOP_SECONDS)
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {code}"
