"""Everyday tasks."""

from __future__ import annotations

from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_conflayers.tune.everyday_tasks import EverydayTasks


def test_tasks_over_passages_hold_what_was_answered() -> None:
    """Whatever the answer: braces are no fields."""
    answer = 'In {topic}, {0} and {} were "found". Then nothing.'
    tasks = []
    for task in islice(EverydayTasks(), 240):
        tasks.append(task.text)
        if task.answered is not None:
            task.answered(answer)
    over = [text for text in tasks if answer in text or answer.split(". ")[0] in text]
    assert 60 <= len(over) <= 120
    assert not any("{" in text.replace(answer, "").replace(answer[:38], "") for text in tasks)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_a_seed_gives_the_same_tasks_and_few_of_them_twice(seed: int) -> None:
    one, again = ([task.text for task in islice(EverydayTasks(seed), 120)] for _ in range(2))
    assert one == again
    assert len(set(one)) > 100
