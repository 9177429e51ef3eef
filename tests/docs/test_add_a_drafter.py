"""The worked example of docs/add-a-drafter.md, as it stands on the page."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

import pytest
from doc_pages import DOCS, python_blocks
from steps import RealModel, Tiny, random_tokens

from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.methods import METHODS, make_method

SAMPLERS = {"greedy": SamplerSettings(), "seed": SamplerSettings(temperature=0.7, seed=5)}


@pytest.fixture
def page() -> Any:
    """The page's Python but for its last block, which needs a real model; and that block."""
    *blocks, trial = python_blocks(DOCS / "add-a-drafter.md")
    known = dict(METHODS)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block.text, block.where, "exec"), names)
    yield names, trial
    METHODS.clear()
    METHODS.update(known)


def write(model: Model, drafter: Any, settings: SamplerSettings) -> tuple[list[int], Stats]:
    stats = Stats()
    prompt = random_tokens(model, 12) * 3
    with Session(model, n_ctx=256, threads=1) as session:
        sampler = Sampler(model, settings)
        text = list(generate(session, prompt, sampler, drafter=drafter, max_tokens=96, stats=stats))
        sampler.close()
    return text, stats


@pytest.mark.parametrize("settings", SAMPLERS.values(), ids=SAMPLERS)
def test_its_text_is_plains(page: Any, tiny: Tiny, settings: SamplerSettings) -> None:
    names, _ = page
    model = tiny("llama", n_layer=6, layer_gain=0.2)
    plain, _ = write(model, None, settings)
    text, stats = write(model, names["PairDrafter"](), settings)
    assert text == plain
    assert stats.drafted > 0


def test_drafted_tokens_are_accepted(page: Any, tiny: Tiny) -> None:
    names, _ = page
    model = tiny("llama", n_layer=6, layer_gain=0.2)
    text, stats = write(model, names["PairDrafter"](), SamplerSettings())
    assert stats.accepted >= 10
    assert stats.rounds + stats.accepted <= len(text) + 1
    assert stats.drafter["pairs"] > 0


def test_the_method_is_in_the_table(page: Any, tiny: Tiny) -> None:
    names, _ = page
    method = make_method("pairs", tiny("llama", n_layer=6, layer_gain=0.2))
    assert isinstance(method.drafter, names["PairDrafter"])


@pytest.mark.model
def test_the_trial_shows_what_the_page_says(page: Any, real_model: RealModel) -> None:
    real_model("smollm2-135m")
    names, trial = page
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        exec(compile(trial.text, trial.where, "exec"), names)
    assert "same text: True" in shown.getvalue()
    counted = re.search(r"(\d+) of (\d+) drafted tokens accepted", shown.getvalue())
    assert counted is not None
    assert int(counted[1]) >= 10
