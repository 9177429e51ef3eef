"""Counts how often a token's logits depend on how many tokens are evaluated with it.

Text equal to plain decoding needs a verification step over n tokens to give each of them the bits
that a one-token step gives. For each batch size, this program counts the positions whose logits
differ and those whose most likely token differs, and names the operators that are the cause.

    python tools/batch_invariance.py smollm2-135m --prefix 32 600 --kernels upstream-as-is

CPU only: it reads the tensors' memory. EDGE_CONFLAYERS_LIB chooses the library that is measured.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from operator_watch import Cause, OperatorWatch

from edge_conflayers.engine import binding, native
from edge_conflayers.hub import models

_TEXT = Path(__file__).read_text(encoding="utf-8")
_FLASH = {"auto": -1, "off": 0, "on": 1}
_KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2, "bf16": 30}


@dataclass(frozen=True)
class Settings:
    """Settings of the library."""

    flash: str = "auto"
    kv_type: str = "f16"
    repack: bool = True
    threads: int = 2


@dataclass
class SizeCount:
    """Counts for one batch size.

    Attributes:
        positions: compared.
        logits: positions that differ in any logit.
        argmax: positions whose most likely token differs.
        largest: largest difference of a logit.
    """

    positions: int = 0
    logits: int = 0
    argmax: int = 0
    largest: float = 0.0


@dataclass
class Report:
    """Counts by batch size, and causes by batch size and operator with operand types."""

    sizes: dict[int, SizeCount] = field(default_factory=dict)
    causes: dict[int, dict[str, Cause]] = field(default_factory=dict)


class Context:
    """A model and a context of it, by our library or upstream's, with its operators watched."""

    def __init__(self, path: Path, settings: Settings, n_ctx: int) -> None:
        self.llama = llama = native.llama
        self.watch = OperatorWatch(llama)
        params = llama.llama_model_default_params()
        params.use_extra_bufts = settings.repack
        params.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise SystemExit(f"{path} cannot be loaded")
        self.n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        context = llama.llama_context_default_params()
        context.n_ctx = n_ctx
        context.n_batch = context.n_ubatch = 512
        context.n_threads = context.n_threads_batch = settings.threads
        context.flash_attn_type = _FLASH[settings.flash]
        context.type_k = context.type_v = _KV_TYPES[settings.kv_type]
        context.swa_full = False
        self._watched = context
        self._watched.cb_eval = self.watch.callback
        self.handle = llama.llama_init_from_model(self.model, self._watched)
        if not self.handle:
            raise SystemExit(f"no context for {path} with {settings}")
        self.memory = llama.llama_get_memory(self.handle)
        self._batch = llama.llama_batch_init(512, 0, 1)

    def tokenize(self, text: str) -> list[int]:
        vocab = self.llama.llama_model_get_vocab(self.model)
        data = text.encode()
        buffer = (ctypes.c_int32 * (len(data) + 8))()
        n = self.llama.llama_tokenize(vocab, data, len(data), buffer, len(buffer), True, False)
        return list(buffer[:n])

    def decode(self, tokens: Sequence[int], begin: int, *, mode: str = "off") -> npt.NDArray[Any]:
        """Runs one step and returns every token's logits, float32 [tokens, n_vocab].

        Args:
            begin: position of the first token.
            mode: of the watch: "off", "record" or "compare".
        """
        self.watch.begin(mode)
        if self._step(tokens, begin) != 0:
            raise SystemExit("a step failed")
        self.watch.mode = "off"
        rows = self.llama.llama_get_logits(self.handle)
        return np.array(np.ctypeslib.as_array(rows, shape=(len(tokens), self.n_vocab)))

    def _step(self, tokens: Sequence[int], begin: int) -> int:
        """Runs a step as our library verifies drafts, or as upstream decodes."""
        if binding.PATCHED:
            array = (ctypes.c_int32 * len(tokens))(*tokens)
            every = binding.OUTPUTS_ALL
            return int(binding.ecl_step(self.handle, array, len(tokens), begin, 0, every))
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = begin + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1
        return int(self.llama.llama_decode(self.handle, batch))

    def forget(self, begin: int) -> None:
        if not self.llama.llama_memory_seq_rm(self.memory, 0, begin, -1):
            raise SystemExit("this model cannot forget tokens")

    def close(self) -> None:
        self.llama.llama_batch_free(self._batch)
        self.llama.llama_free(self.handle)
        self.llama.llama_model_free(self.model)


def measure(
    context: Context, prefix: int, sizes: Sequence[int], groups: int, trace_groups: int
) -> Report:
    """Compares batched steps with one-token steps over equal caches.

    Args:
        prefix: tokens in the cache before the first compared position.
        sizes: batch sizes.
        groups: how often to compare, over ``max(sizes)`` further positions each.
        trace_groups: groups whose operators are compared as well.
    """
    report = Report({n: SizeCount() for n in sizes}, {n: {} for n in sizes})
    tokens = context.tokenize(_TEXT)
    most = max(sizes)
    while len(tokens) < prefix + groups * most:
        tokens += tokens[1:]
    for begin in range(0, prefix, 512):
        context.decode(tokens[begin : min(begin + 512, prefix)], begin)
    for group in range(groups):
        begin = prefix + group * most
        window = tokens[begin : begin + most]
        trace = group < trace_groups
        # Once before, so that the masked cells of later tokens hold the same keys below.
        for i, token in enumerate(window):
            context.decode([token], begin + i)
        context.forget(begin)
        context.watch.single.clear()
        mode = "record" if trace else "off"
        single = np.concatenate(
            [context.decode([t], begin + i, mode=mode) for i, t in enumerate(window)]
        )
        recorded = context.watch.single
        for n in sizes:
            context.forget(begin)
            batched = context.decode(window[:n], begin)
            _count(report.sizes[n], batched, single[:n])
            if trace:
                context.forget(begin)
                context.watch.single = recorded[:n]
                context.watch.found = report.causes[n]
                context.decode(window[:n], begin, mode="compare")
        context.forget(begin)
        for i, token in enumerate(window):  # the next group starts from one-token steps' cache
            context.decode([token], begin + i)
    return report


def _count(count: SizeCount, batched: npt.NDArray[Any], single: npt.NDArray[Any]) -> None:
    count.positions += len(single)
    count.logits += int((batched.view(np.uint32) != single.view(np.uint32)).any(axis=1).sum())
    count.argmax += int((batched.argmax(axis=1) != single.argmax(axis=1)).sum())
    count.largest = max(count.largest, float(np.abs(batched - single).max()))


def _print(prefix: int, report: Report) -> None:
    print(f"\nfrom position {prefix}")
    print("  n   positions  logits differ  argmax differs  largest difference")
    for n, count in report.sizes.items():
        print(
            f"  {n:<3} {count.positions:9}  {count.logits:13}  {count.argmax:14}"
            f"  {count.largest:18.3g}"
        )
    rows: dict[str, dict[int, Cause]] = collections.defaultdict(dict)
    for n, causes in report.causes.items():
        for key, cause in causes.items():
            rows[key][n] = cause
    if not rows:
        print("  no operator depends on the batch size")
    for key, by_size in rows.items():
        first = next(iter(by_size.values()))
        where = ", ".join(f"{n}: {c.nodes} nodes/{c.values} values" for n, c in by_size.items())
        worst = max(c.largest for c in by_size.values())
        print(f"  {key} at {first.example}, up to {worst:.3g}; {where}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .gguf file or a registry name")
    parser.add_argument("--prefix", type=int, nargs="+", default=[32], help="tokens before")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 3, 4, 5, 6, 7, 8])
    parser.add_argument("--groups", type=int, default=8, help="of max(sizes) positions each")
    parser.add_argument("--trace", type=int, default=1, help="groups whose operators are compared")
    parser.add_argument("--flash", choices=_FLASH, default="auto")
    parser.add_argument("--kv-type", choices=_KV_TYPES, default="f16")
    parser.add_argument("--no-repack", action="store_true", help="weights as they are in the file")
    parser.add_argument("--kernels", choices=["ecl", "upstream", "upstream-as-is"], default="ecl")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = Settings(
        arguments.flash, arguments.kv_type, not arguments.no_repack, arguments.threads
    )
    path = models.resolve(arguments.model)
    reports = {}
    for prefix in arguments.prefix:
        n_ctx = prefix + arguments.groups * max(arguments.sizes) + 16
        with binding.loading_for(arguments.kernels):
            context = Context(path, settings, n_ctx)
        reports[prefix] = measure(
            context, prefix, arguments.sizes, arguments.groups, arguments.trace
        )
        context.close()
        _print(prefix, reports[prefix])
        sys.stdout.flush()
    if arguments.json:
        arguments.json.write_text(
            json.dumps(reports, default=lambda value: value.__dict__, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
