"""Requests of everyday tasks."""

from __future__ import annotations

from itertools import islice

import pytest
from steps import Tiny

from edge_conflayers.train.own_texts import own_texts
from edge_conflayers.tune.parallel_texts import FinishedText, ParallelTexts
from edge_conflayers.tune.task_requests import TaskRequests

TEMPLATE = "tokenizer.chat_template"


def test_later_tasks_are_about_earlier_answers(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", n_layer=3)
    monkeypatch.setitem(model.metadata, TEMPLATE, "{{ messages[0].content }}")
    answer = model.tokenize("Of whales and ships.", add_special=False)
    with ParallelTexts(model, n_parallel=1, n_ctx=2048, threads=1) as texts:
        tasks = TaskRequests(texts)
        prompts = []
        for request in islice(tasks, 60):
            assert texts.fits(request.prompt)
            prompts.append(model.text(request.prompt))
            tasks.finished(FinishedText(request, answer))
    assert sum("Of whales and ships." in prompt for prompt in prompts) >= 10


def test_where_nothing_fits_there_are_no_texts(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a template or without one, for heads and for training."""
    model = tiny("llama", n_layer=3)
    monkeypatch.setitem(model.metadata, TEMPLATE, "{{ messages[0].content }}" + 9 * " and so on")
    with ParallelTexts(model, n_parallel=1, n_ctx=32, threads=1) as texts:
        assert list(TaskRequests(texts)) == []
    assert list(own_texts(model, [], longest=32, threads=1)) == []
    monkeypatch.delitem(model.metadata, TEMPLATE)
    monkeypatch.setattr(model, "tokenize", lambda text, **options: [])
    with ParallelTexts(model, n_parallel=1, n_ctx=32, threads=1) as texts:
        assert list(TaskRequests(texts)) == []
