from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.bench.copied import copied_tokens

tokens = st.lists(st.integers(0, 2), max_size=24)


def test_counts_each_token_of_overlapping_stretches_once():
    assert copied_tokens([1, 2, 3, 4, 5], [9, 1, 2, 3, 4, 9, 4, 5, 1], run=3) == 4


def test_a_shorter_stretch_is_not_copied():
    assert copied_tokens([1, 2, 3], [1, 2, 9, 2, 3], run=3) == 0


@given(tokens, tokens, st.integers(1, 4))
def test_is_what_marking_the_tokens_says(prompt, text, run):
    marked = set()
    for i in range(len(text) - run + 1):
        for j in range(len(prompt) - run + 1):
            if text[i : i + run] == prompt[j : j + run]:
                marked.update(range(i, i + run))
    assert copied_tokens(prompt, text, run) == len(marked)
