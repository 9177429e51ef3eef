"""Graphs that stay alive while masks and batch sizes alternate."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from steps import RealModel, Tiny, assert_same_bits, decode, open_session, random_tokens, step

import edge_conflayers
from edge_conflayers.engine.session import LayerMask, Session

PACKAGE = Path(edge_conflayers.__file__).parent.parent  # installed, or the checkout
MAX_ALIVE = 10  # eight small ones, upstream's own, and the active one


def alternate(session: Session, tokens: list[int], masks: list[LayerMask]) -> None:
    """One round per mask: drafting token by token under it, then checking without."""
    for mask in masks:
        begin = len(session)
        session.set_mask(mask)
        for token in tokens[:4]:
            session.step([token])
        session.rollback(begin)
        session.set_mask(LayerMask())
        session.step(tokens[:5], outputs="all")
        session.rollback(begin)


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2moe"])
@pytest.mark.parametrize("flash", [True, False])
def test_switching_builds_nothing(tiny: Tiny, arch: str, flash: bool) -> None:
    model = tiny(arch)
    tokens = random_tokens(model, 40)
    with open_session(model, n_ctx=256, flash_attention=flash) as session:
        session.read(tokens)
        masks = [LayerMask.layers({1}), LayerMask.layers({2, 3})]
        alternate(session, tokens, masks)
        before = session.graph_stats()
        alternate(session, tokens, masks * 10)
        after = session.graph_stats()
    assert after.built == before.built
    assert after.build_seconds == before.build_seconds
    assert after.alive == before.alive <= MAX_ALIVE


def test_drafting_builds_nothing(tiny: Tiny) -> None:
    model = tiny("llama")
    tokens = random_tokens(model, 40)
    mask = LayerMask.layers({1, 2})
    with open_session(model, n_ctx=256) as session:
        session.read(tokens)

        def round_() -> None:
            session.draft(mask, [tokens[0]], limit=6, stop_probability=0.0)
            session.step([tokens[0], *tokens[:6]], outputs="all")
            session.rollback(40)

        round_()
        built = session.graph_stats().built
        for _ in range(20):
            round_()
        assert session.graph_stats().built == built


def test_a_longer_context_builds_each_graph_once_more(tiny: Tiny) -> None:
    """Graphs hold the padded length of the cache, which grows every 256 tokens."""
    model = tiny("llama")
    tokens = random_tokens(model, 300)
    with open_session(model, n_ctx=1024) as session:
        session.read(tokens[:200])
        alternate(session, tokens, [LayerMask.layers({1})] * 2)
        before = session.graph_stats().built
        session.read(tokens[200:300])
        prompt = session.graph_stats().built
        alternate(session, tokens, [LayerMask.layers({1})] * 5)
        assert session.graph_stats().built - prompt == 2
        assert prompt - before == 1


def test_only_the_latest_graphs_stay(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    tokens = random_tokens(model, 40)
    with open_session(model, n_ctx=256) as session:
        session.read(tokens)
        masks = [LayerMask.layers({i, j}) for i in range(6) for j in range(i)]
        for mask in masks:
            alternate(session, tokens, [mask])
            assert session.graph_stats().alive <= MAX_ALIVE
        built = session.graph_stats().built
        alternate(session, tokens, masks[-3:])
        assert session.graph_stats().built == built  # still alive
        alternate(session, tokens, masks[:1])
        assert session.graph_stats().built == built + 1  # long gone


def test_reused_graphs_compute_the_same(tiny: Tiny) -> None:
    """Every shape's graph is met again after others were used in between."""
    model = tiny("llama", n_layer=6)
    tokens = random_tokens(model, 70)
    masks = [LayerMask(), LayerMask.layers({1, 4}), LayerMask(frozenset({2}), frozenset({0}))]
    with open_session(model, n_ctx=256) as session:
        session.read(tokens[:40])
        for _ in range(3):
            for mask in masks:
                for sizes in ([1], [3], [8], [2, 1, 5]):
                    session.set_mask(mask)
                    found = decode(session, tokens[40:], sizes)
                    session.rollback(40)
                    with open_session(model, n_ctx=256) as fresh:
                        fresh.read(tokens[:40])
                        fresh.set_mask(mask)
                        assert_same_bits(found, decode(fresh, tokens[40:], sizes))


def test_outputs_are_part_of_a_graphs_name(tiny: Tiny) -> None:
    model = tiny("llama")
    tokens = random_tokens(model, 48)
    with open_session(model, n_ctx=256) as session:
        session.read(tokens[:40])
        every = step(session, tokens[40:])
        for _ in range(2):
            session.rollback(40)
            session.step(tokens[40:], outputs="last")
            assert_same_bits(session.logits(-1), every[-1])
            session.rollback(40)
            session.step(tokens[40:47], outputs="none")
            session.step(tokens[47:], outputs="all")
            assert_same_bits(session.logits(0), every[-1])


# Resident memory in KiB: after a prompt and one round, then after using more and more graphs.
_MEMORY = """
import sys
from pathlib import Path
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.probe import probe

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4

model = Model(Path(sys.argv[1]))
tokens = [i % 1000 + 300 for i in range(512)]
session = Session(model, n_ctx=2048, threads=1, flash_attention=True)
session.read(tokens)
for n in (1, 5):
    session.step(tokens[:n], outputs="all")
    session.rollback(512)
print(resident())
for round in range(40):
    session.set_mask(LayerMask.layers({round % 20 + 1, round % 7 + 3}))
    session.step(tokens[:1])
    session.set_mask(LayerMask())
    session.step(tokens[: round % 8 + 1], outputs="all")
    session.rollback(512)
    if round % 10 == 9:
        probe(session, tokens[:32])
        print(resident())
"""


@pytest.mark.model
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_stays_bounded(real_model: RealModel) -> None:
    """Once as many graphs are alive as ever will be, more of them cost nothing more."""
    run = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(real_model("smollm2-135m").path)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        cwd=PACKAGE,
        check=True,
        timeout=300,
        capture_output=True,
        text=True,
    )
    first, *later = (int(line) for line in run.stdout.split())
    assert max(later) <= 1.03 * later[0]  # graphs differ in size
    assert later[0] - first <= 18 * 1024  # eight graphs, more than a megabyte each
