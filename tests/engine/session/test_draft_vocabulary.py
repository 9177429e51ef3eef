"""Drafts in a draft vocabulary: the same logits for its tokens, and the same text."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import RandomSkipSetDrafter
from steps import RealModel, Tiny, TinyPath, open_session, random_tokens

import edge_conflayers
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session
from edge_conflayers.errors import BadInput

PACKAGE = Path(edge_conflayers.__file__).parent.parent  # installed, or the checkout
VOCABULARY = 700
MASK = LayerMask(attention=frozenset({1}), mlp=frozenset({1, 2}))


@pytest.fixture(params=[True, False], ids=["our-kernels", "upstream-kernels"])
def kernels(request: pytest.FixtureRequest) -> bool:
    """Whether the test's model has ours."""
    return bool(request.param)


def some_tokens(model: Model, n: int, seed: int = 0) -> list[int]:
    rng = np.random.default_rng(seed)
    return sorted(int(t) for t in rng.choice(model.n_vocab, n, replace=False))


def check_logits(
    session: Session, prompt: list[int], mask: LayerMask, sizes: Sequence[int]
) -> None:
    """Each vocabulary's logits against the same step with all of them."""
    session.read(prompt[:-1])
    session.set_mask(mask)
    session.step(prompt[-1:])
    everything = session.logits().copy()
    session.rollback(len(prompt) - 1)
    session.set_mask(NO_MASK)
    for seed, size in enumerate(sizes):
        tokens = some_tokens(session.model, size, seed)
        session.set_draft_vocabulary(tokens[::-1])
        assert session.draft_vocabulary == tuple(tokens)
        found = session.draft(mask, prompt[-1:], limit=1, stop_probability=0.0, runners_up=size - 1)
        logits = everything[tokens]
        order = np.argsort(-logits, kind="stable")  # of equal logits the lower token first
        assert found.tokens == tuple(tokens[i] for i in order)
        weights = np.exp(logits[order].astype(np.float64) - logits[order[0]])
        assert found.probabilities == pytest.approx(weights / weights.sum(), rel=1e-5)


@pytest.mark.parametrize("quant", ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q8_0"])
@pytest.mark.parametrize(
    "arch",
    ["llama", "gemma2", "gpt2", "qwen2moe"],  # gemma2: tied, and logits are capped
)
def test_logits_are_those_of_the_whole_head(
    tiny_path: TinyPath, arch: str, quant: str, kernels: bool
) -> None:
    path = tiny_path(arch, n_embd=128, quant=quant, n_vocab=VOCABULARY)
    choice: KernelChoice = "ecl" if kernels else "upstream"
    with Model(path, kernels=choice) as model, open_session(model, n_ctx=256) as session:
        tokens = random_tokens(model, 20)
        for mask in (NO_MASK, MASK):
            session.clear()
            try:
                # A graph of an earlier vocabulary must not be taken for one of a later.
                check_logits(session, tokens, mask, (1, 40, 333, 40, 64, VOCABULARY))
            except BadInput as error:
                # Upstream's own repacked weights cannot be read back.
                assert "cannot be read back from the buffer" in str(error)
                assert not kernels and arch != "gemma2"
                assert session.draft_vocabulary == ()


@pytest.mark.model
@pytest.mark.parametrize(
    "name",
    [
        "smollm2-135m",
        "gemma3-270m",
        "qwen2.5-coder-0.5b",
        pytest.param("qwen2.5-coder-1.5b", marks=pytest.mark.large),
    ],
)
def test_logits_of_real_models(real_model: RealModel, name: str) -> None:
    model = real_model(name)
    prompt = model.tokenize("The capital of France is Paris, and the capital of Germany is")
    with open_session(model, n_ctx=256, threads=2) as session:
        check_logits(session, prompt, LayerMask.layers({2, 3}), (4000, 31))


def test_a_vocabulary_of_all_tokens_changes_nothing(tiny: Tiny) -> None:
    model = tiny("llama", quant="q4_0", n_embd=128)
    tokens = random_tokens(model, 30)

    def drafts() -> list[Draft]:
        return [
            session.draft(MASK, tokens[-n:], limit=8, stop_probability=0.0) for n in (1, 2, 1, 5)
        ]

    with open_session(model, n_ctx=256) as session:
        session.read(tokens[:-5])
        plain = drafts()
        session.set_draft_vocabulary(range(model.n_vocab))
        assert drafts() == plain
        session.set_draft_vocabulary([])
        assert drafts() == plain


def test_tokens_outside_it_are_never_drafted(tiny: Tiny) -> None:
    model = tiny("llama", n_vocab=VOCABULARY)
    prompt = random_tokens(model, 20)
    with open_session(model, n_ctx=256) as session:
        session.read(prompt[:-1])
        plain = session.draft(MASK, prompt[-1:], limit=8, stop_probability=0.0)
        left_out = plain.tokens[0]
        session.set_draft_vocabulary(set(range(model.n_vocab)) - {left_out})
        other = session.draft(MASK, prompt[-1:], limit=8, stop_probability=0.0)
        assert left_out not in other.tokens
        again = session.draft(
            MASK, prompt[-1:], limit=8, stop_probability=0.0, full_vocabulary=True
        )
        assert again == plain
        # Steps of the full model know nothing of it.
        session.step(prompt[-1:])
        assert session.logits().shape == (VOCABULARY,)
        assert session.tokens == prompt


def test_switching_between_vocabulary_and_all_tokens_builds_nothing(tiny: Tiny) -> None:
    model = tiny("llama")
    tokens = random_tokens(model, 40)
    with open_session(model, n_ctx=256) as session:
        session.read(tokens)
        session.set_draft_vocabulary(range(100))

        def round_() -> None:
            for full in (False, True):
                session.draft(MASK, tokens[:1], limit=4, stop_probability=0.0, full_vocabulary=full)
            session.step(tokens[:5], outputs="all")
            session.rollback(40)

        round_()
        built = session.graph_stats().built
        for _ in range(5):
            round_()
        assert session.graph_stats().built == built


def test_tokens_that_do_not_exist(tiny: Tiny) -> None:
    model = tiny("llama")
    prompt = random_tokens(model, 20)
    with open_session(model, n_ctx=256) as session:
        session.read(prompt)
        session.set_draft_vocabulary([5, 6])
        for wrong in ([-1, 5], [5, model.n_vocab]):
            with pytest.raises(BadInput, match="outside its own vocabulary of 320"):
                session.set_draft_vocabulary(wrong)
            assert session.draft_vocabulary == ()
            # and the old one is gone
            assert session.draft(MASK, [7], limit=1, stop_probability=0.0) == session.draft(
                MASK, [7], limit=1, stop_probability=0.0, full_vocabulary=True
            )


def test_a_bias_of_the_head_is_refused_by_name(tiny: Tiny) -> None:
    model = tiny("qwen2", output_bias=True)
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 20))
        session.set_draft_vocabulary(range(100))
        with pytest.raises(BadInput, match=r"'qwen2' cannot be served by a draft .* ADD"):
            session.draft(MASK, [7], limit=4, stop_probability=0.0)
        session.set_draft_vocabulary([])
        assert session.draft(MASK, [7], limit=4, stop_probability=0.0).tokens


def write(
    model: Model, prompt: list[int], kind: dict[str, Any], vocabulary: Sequence[int] | None
) -> tuple[list[int], Stats]:
    """A text of 40 tokens; drafted in that vocabulary, or plain (None)."""
    stats = Stats()
    drafter = None if vocabulary is None else RandomSkipSetDrafter(seed=len(prompt))
    with Session(model, n_ctx=512, threads=2) as session:
        session.set_draft_vocabulary(vocabulary or ())
        sampler = Sampler(model, SamplerSettings(**kind))
        try:
            text = list(
                generate(session, prompt, sampler, drafter=drafter, max_tokens=40, stats=stats)
            )
        finally:
            sampler.close()
    return text, stats


SAMPLERS: tuple[dict[str, Any], ...] = ({}, {"temperature": 0.8, "top_k": 40, "seed": 42})


@pytest.mark.parametrize("kind", SAMPLERS, ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    ("arch", "quant"), [("llama", "q4_0"), ("gemma2", "q8_0"), ("gemma3", "f16")]
)
def test_the_text_is_plain_decodings(
    tiny: Tiny, arch: str, quant: str, kind: dict[str, Any]
) -> None:
    model = tiny(arch, n_layer=6, n_embd=128, quant=quant, layer_gain=0.2)
    accepted = 0
    for seed in range(3):
        prompt = random_tokens(model, 20 + seed, seed)
        plain, _ = write(model, prompt, kind, None)
        found, stats = write(model, prompt, kind, sorted({*plain[::2], *some_tokens(model, 99)}))
        assert found == plain
        accepted += stats.accepted
    assert accepted > 0


@pytest.mark.model
@pytest.mark.parametrize("kind", SAMPLERS, ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_the_text_of_real_models(real_model: RealModel, name: str, kind: dict[str, Any]) -> None:
    model = real_model(name)
    prompt = model.tokenize("Write a Python function that merges two sorted lists.\n")
    plain, _ = write(model, prompt, kind, None)
    found, _ = write(model, prompt, kind, range(4000))
    assert found == plain


# Resident memory in KiB: without a vocabulary, with one, after many, without again, and after more
# sessions that had one.
_MEMORY = """
import sys
from pathlib import Path
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask, Session

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4

def draft(n):
    session.set_draft_vocabulary(range(n, n + 30_000 if n else 0))
    session.draft(LayerMask.layers({3}), [7], limit=2, stop_probability=0.0)

model = Model(Path(sys.argv[1]))
session = Session(model, n_ctx=256, threads=1)
session.read([i + 300 for i in range(32)])
draft(1)
draft(0)
print(resident())
draft(1)
print(resident())
for turn in range(12):
    draft(turn + 1)
print(resident())
draft(0)
print(resident())
for turn in range(6):
    session.close()
    session = Session(model, n_ctx=256, threads=1)
    session.read([i + 300 for i in range(32)])
    draft(turn + 1)
draft(0)
print(resident())
"""


@pytest.mark.model
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_its_memory_is_freed(real_model: RealModel) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(real_model("smollm2-135m").path)],
        # glibc otherwise keeps what was freed, more or less of it from run to run.
        env={**os.environ, "PYTHONPATH": str(PACKAGE), "MALLOC_MMAP_THRESHOLD_": "1000000"},
        cwd=PACKAGE,
        check=True,
        timeout=300,
        capture_output=True,
        text=True,
    )
    without, one, many, none, sessions = (int(line) for line in run.stdout.split())
    rows = one - without
    assert rows > 8 * 1024  # 30,000 rows of 576 weights in at least 4 bits
    assert many - without < 1.5 * rows
    assert none - without < 0.5 * rows
    assert sessions - without < 0.5 * rows
