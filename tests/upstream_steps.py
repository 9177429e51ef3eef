"""Writes a model's logits, step by step, with the library that EDGE_CONFLAYERS_LIB names.

    python upstream_steps.py MODEL TOKENS.npy SIZES OUT.npy FLASH KV_TYPE THREADS

Upstream's own library is driven through llama.h, ours through a session.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from steps import Logits

from edge_conflayers.engine import binding
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.native import llama

_N_CTX = 1024
_KV_TYPES = {"f16": 1, "q8_0": 8}


def upstream(
    model: Model, tokens: list[int], sizes: list[int], flash: bool, kv_type: Any, threads: int
) -> Logits:
    params = llama.llama_context_default_params()
    params.n_ctx = _N_CTX
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = int(flash)
    params.type_k = params.type_v = _KV_TYPES[kv_type]
    params.swa_full = False
    context = llama.llama_init_from_model(model.handle, params)
    batch = llama.llama_batch_init(512, 0, 1)
    rows, begin = [], 0
    for size in sizes:
        batch.n_tokens = size
        for i in range(size):
            batch.token[i] = tokens[begin + i]
            batch.pos[i] = begin + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1
        assert llama.llama_decode(context, batch) == 0
        logits = llama.llama_get_logits(context)
        rows.append(np.ctypeslib.as_array(logits, shape=(size, model.n_vocab)).copy())
        begin += size
    llama.llama_batch_free(batch)
    llama.llama_free(context)
    return np.concatenate(rows)


def ours(
    model: Model, tokens: list[int], sizes: list[int], flash: bool, kv_type: Any, threads: int
) -> Logits:
    from steps import decode, open_session

    settings: dict[str, Any] = {"flash_attention": flash, "kv_type": kv_type, "threads": threads}
    with open_session(model, n_ctx=_N_CTX, **settings) as session:
        return decode(session, tokens, sizes)


def main(path: str, tokens: str, sizes: str, out: str, flash: str, kv: str, threads: str) -> None:
    with Model(Path(path)) as model:
        run = ours if binding.PATCHED else upstream
        logits = run(
            model,
            np.load(tokens).tolist(),
            [int(n) for n in sizes.split(",")],
            flash == "on",
            kv,
            int(threads),
        )
    np.save(out, logits)


if __name__ == "__main__":
    main(*sys.argv[1:])
