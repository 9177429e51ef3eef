"""Damages model files, and sees what a process does that loads one and writes with it.

As a program: ``damaged_models.py FOLDER SEED COUNT [ARCHITECTURE...]`` damages tiny models at
random, COUNT times, and prints a line of JSON for each that ended otherwise than it may: with its
text, or with one line that says what is wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import struct
import sys
import time
from pathlib import Path

import gguf
from gguf_models import write_tiny_model

from edge_conflayers.decoding.speculate import generate
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import EdgeConflayersError

_FORMATS = {
    gguf.GGUFValueType.UINT32: "<I",
    gguf.GGUFValueType.INT32: "<i",
    gguf.GGUFValueType.FLOAT32: "<f",
    gguf.GGUFValueType.UINT64: "<Q",
    gguf.GGUFValueType.BOOL: "<?",
}
_SIZES = (0, 1, 2, 3, 5, 17, 2**31 - 1, 2**31, 2**32 - 1)
_LONG_SIZES = (0, 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
_SECONDS = 60


def with_value(source: Path, key: str, value: float, target: Path) -> Path:
    """A copy of a model with another number for a metadata key that it has."""
    field = gguf.GGUFReader(str(source)).fields[key]
    at = field.offset + 8 + len(field.parts[1]) + 4
    form = _FORMATS[field.types[0]]
    data = bytearray(source.read_bytes())
    struct.pack_into(form, data, at, float(value) if form == "<f" else value)
    target.write_bytes(data)
    return target


def damaged(data: bytes, header: int, rng: random.Random) -> bytes:
    """The bytes of a model, damaged somewhere before ``header``, mostly near the beginning: most
    of a header is vocabulary."""
    new = bytearray(data)
    end = header if rng.random() < 0.5 else min(1400, header)
    at = rng.randrange(end)
    kind = rng.randrange(7)
    if kind == 0:
        for _ in range(rng.choice((1, 1, 2, 8))):
            new[rng.randrange(end)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del new[rng.randrange(len(new)) :]
    elif kind == 2:
        n = rng.choice((1, 4, 8))
        new[at : at + n] = rng.choice((b"\0", b"\xff", b"\x7f", rng.randbytes(1))) * n
    elif kind == 3:
        new[at : at + 4] = rng.choice(_SIZES).to_bytes(4, "little")
    elif kind == 4:
        new[at : at + 8] = rng.choice(_LONG_SIZES).to_bytes(8, "little")
    elif kind == 5:
        del new[at : at + rng.randrange(1, 64)]
    else:
        new[at:at] = rng.randbytes(rng.randrange(1, 32))
    return bytes(new)


def _write_with(path: Path) -> None:
    with Model(path) as model, Session(model, n_ctx=64, threads=1) as session:
        sampler = Sampler(model, SamplerSettings())
        prompt = model.tokenize("ab") or [1]
        model.text(list(generate(session, prompt, sampler, max_tokens=4)))
        sampler.close()


def end_of(path: Path) -> str | None:
    """What is wrong with the end of a process that writes with a model; None if nothing is.

    Right are exit code 0 and no output, and any other code with one line on standard error.
    """
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(out_end, 1)
        os.dup2(err_end, 2)
        code = 99
        try:
            _write_with(path)
            code = 0
        except EdgeConflayersError as error:
            os.write(2, f"{error}\n".encode())
            code = error.exit_code
        except BaseException as error:
            os.write(2, f"Traceback: {type(error).__name__} {error}\n".encode())
        finally:
            os._exit(code)
    os.close(out_end)
    os.close(err_end)
    said = {out: b"", err: b""}
    still, end = set(said), time.monotonic() + _SECONDS
    while still and time.monotonic() < end:
        for pipe in select.select(list(still), [], [], 0.5)[0]:
            if data := os.read(pipe, 1 << 16):
                said[pipe] += data
            else:
                still.discard(pipe)
    if still:
        os.kill(child, 9)
    status = os.waitpid(child, 0)[1]
    for pipe in said:
        os.close(pipe)
    code = os.waitstatus_to_exitcode(status)
    text = said[err].decode(errors="replace")
    if still:
        return f"hangs: {text}"
    if said[out] or code not in (0, 1, 2) or "Traceback" in text:
        return f"exit code {code}, on standard output {said[out]!r}: {text}"
    if text.count("\n") != (code != 0):
        return f"exit code {code} with other than one line: {text}"
    return None


def main(folder: Path, seed: int, count: int, architectures: list[str]) -> None:
    """Damages models in turn; prints what is wrong."""
    models = []
    for arch in architectures or ["llama", "qwen2", "gemma3", "mamba", "qwen2moe", "phi3"]:
        path = write_tiny_model(folder / f"{arch}.gguf", arch, n_layer=2, n_vocab=262)
        models.append((arch, path.read_bytes(), gguf.GGUFReader(str(path)).data_offset))
    for i in range(seed, seed + count):
        arch, data, header = models[i % len(models)]
        path = folder / "damaged.gguf"
        path.write_bytes(damaged(data, header, random.Random(i)))
        wrong = end_of(path)
        if wrong is not None:
            with contextlib.suppress(OSError):
                path.rename(folder / f"damaged-{i}.gguf")
            print(json.dumps({"arch": arch, "seed": i, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
