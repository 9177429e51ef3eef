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
    sentence = answer.split(". ")[0]
    over = [text for text in tasks if sentence in text]
    assert 50 <= len(over) <= 80
    rest = [text.replace(answer, "").replace(sentence, "") for text in tasks]
    assert not any("{" in text for text in rest)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_a_seed_gives_the_same_tasks_and_few_of_them_twice(seed: int) -> None:
    one, again = ([task.text for task in islice(EverydayTasks(seed), 120)] for _ in range(2))
    assert one == again
    assert len(set(one)) > 100
