"""What is taught in idle time: rounds of writing, learning and testing, in this process."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import Tiny, random_tokens

from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.learned import Learned
from edge_conflayers.next_state.head import NextStateHead
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.tune.idle.messages import Better, FromProcess, Progress, Sizes
from edge_conflayers.tune.idle.rounds import Heard, Rounds
from edge_conflayers.tune.lessons import Lessons, Said
from edge_conflayers.tune.parallel_texts import FinishedText, ParallelTexts, Request

SIZES = Sizes(parallel=4, new=1200, held_out=64, fruitless=2)


@given(st.lists(st.integers(-3, 5)))
def test_what_was_heard_is_read_in_order_and_never_too_much_of_it(steps: list[int]) -> None:
    """Positive steps add so many texts, others take one."""
    heard, expected, added = Heard(most=4), [], 0
    for step in steps:
        for _ in range(step):
            heard.add(Said((added,), 0))
            expected.append(added)
            added += 1
        expected = expected[-4:]
        if step <= 0:
            found = next(heard, None)
            assert found == (Said((expected.pop(0),), 0) if expected else None)
        assert heard._is_new.is_set() == bool(expected)
    assert heard.count == added


def test_waiting_ends_with_the_next_text() -> None:
    heard = Heard()
    waiting = threading.Thread(target=heard.wait, daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    heard.add(Said((1, 2), 1))
    waiting.join(10)
    assert not waiting.is_alive()


def test_what_is_said_meanwhile_is_read_and_answered_again(tiny: Tiny) -> None:
    """Only what was not known before, in parts, in turn with what there is besides."""
    model = tiny("llama", n_layer=3, layer_gain=0.1)
    heard, prompts = Heard(), [random_tokens(model, 5, i) for i in range(3)]
    with ParallelTexts(model, n_parallel=2, n_ctx=64, threads=1) as texts:
        lessons = Lessons(texts, prompts, said=heard)
        requests = lessons.requests()  # tasks do not fit here
        first = next(requests)
        tokens = random_tokens(model, 80, 7)
        heard.add(Said(tokens, prompt=20, known=10))
        heard.add(Said(random_tokens(model, 50, 8), prompt=40))  # its prompt does not fit
        rest = list(requests)
    assert first.prompt == prompts[0]
    asked = [each.prompt for each in rest]
    of_said = [tokens[10:42], tokens[42:74], tokens[74:80], *[tokens[:20]] * 4]
    assert [each for each in asked if each in of_said] == of_said
    assert asked.count(prompts[1]) == 4
    assert asked.index(prompts[1]) < asked.index(tokens[42:74]) < asked.index(tokens[:20])
    assert {each.max_tokens for each in rest if len(each.prompt) > 20} == {0}


def test_one_text_of_sixteen_is_held_out_as_a_whole(tiny: Tiny) -> None:
    """Also where a round ends in the middle of it."""
    model = tiny("llama", n_layer=3, layer_gain=0.1)
    heard = Heard()
    for i in range(32):
        heard.add(Said(random_tokens(model, 60, i), prompt=9))
    with ParallelTexts(model, n_parallel=3, n_ctx=64, threads=1) as texts:
        lessons = Lessons(texts, said=heard)
        written = texts.write(lessons.requests())
        tested: set[tuple[int, ...]] = set()
        for each in written:
            held_out = lessons.is_held_out(each.request)
            if held_out:
                tested.add(tuple(each.request.prompt))
            before = len(lessons.held_out), len(lessons.learned)
            lessons.take(each)
            lessons.finish()  # a round ends
            after = len(lessons.held_out), len(lessons.learned)
            assert after == before or (after[0] > before[0]) == held_out
            assert lessons.is_held_out(each.request) == (
                held_out and not isinstance(each, FinishedText)
            )
    texts_tested = [random_tokens(model, 60, i) for i in (15, 31)]
    assert tested == {
        tuple(part) for text in texts_tested for part in (text[:32], text[32:], text[:9])
    }
    assert 0 < len(lessons.held_out) < len(lessons.learned) / 8


class Taught:
    """Rounds over a tiny model, whose better heads are saved as the program would save them."""

    def __init__(self, tiny: Tiny, folder: Path, sizes: Sizes = SIZES) -> None:
        self.model = tiny("llama", n_layer=3, layer_gain=0.1)
        self.learned = Learned(self.model, 1, ProfileStore(folder))
        self.heard = Heard()
        self.told: list[FromProcess] = []
        self.rounds = Rounds(
            *(self.model, self.learned, self.heard, self.tell), threads=1, sizes=sizes
        )

    def tell(self, message: FromProcess) -> None:
        self.told.append(message)
        if isinstance(message, Better):
            sizes = self.model.n_embd, self.model.n_vocab
            self.learned.save_head(NextStateHead.from_bytes(message.head, *sizes))

    @property
    def better(self) -> list[Better]:
        return [each for each in self.told if isinstance(each, Better)]


def test_a_round_finds_a_head_and_the_next_goes_on_from_it(tiny: Tiny, tmp_path: Path) -> None:
    taught = Taught(tiny, tmp_path)
    taught.heard.add(Said(random_tokens(taught.model, 40), prompt=9))
    with taught.rounds as rounds:
        assert rounds.round()
        (first,) = taught.better
        assert first.before is None and first.foreseen > 0
        known = taught.learned.load_head()
        assert known is not None and known.chances
        assert known.written.total() >= 1100
        is_better = rounds.round()
        assert len(taught.better) == 1 + is_better
    last = taught.told[-1]
    assert isinstance(last, Progress)
    assert last.rounds == 2 and last.texts == 1 and last.tokens > 2400 and last.steps > 0
    if is_better:
        assert taught.better[1].before is not None
        assert taught.better[1].foreseen > taught.better[1].before
        after = taught.learned.load_head()
        assert after is not None  # each token counts once
        assert known.written.total() < after.written.total() <= last.tokens


def test_what_others_taught_meanwhile_is_what_it_has_to_beat(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = Taught(tiny, tmp_path)
    with taught.rounds as rounds:
        assert rounds.round()
        other = taught.learned.load_head()
        assert other is not None
        others = NextStateHead(other.weights * 0.5, other.written)
        taught.learned.save_head(others)
        known = []
        teacher, tested = rounds._teacher, rounds._teacher.tested
        monkeypatch.setattr(teacher, "tested", lambda: (known.append(teacher.known), tested())[1])
        rounds.round()
        assert known[0].weights == pytest.approx(others.weights, abs=0.05)


def test_it_waits_for_texts_where_rounds_bring_nothing(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = Taught(tiny, tmp_path)
    results = iter([True, False, True, False, False, False, False])
    said_in = {3, 4}  # texts come during these rounds
    ended: list[int] = []

    class Enough(Exception):
        pass

    def round() -> bool:
        number = len(ended)
        ended.append(number)
        if number in said_in:
            taught.heard.add(Said((1, 2), 0))
            next(taught.heard)  # and are read
        return next(results)

    def wait() -> None:
        raise Enough

    monkeypatch.setattr(taught.rounds, "round", round)
    monkeypatch.setattr(taught.heard, "wait", wait)
    with taught.rounds, pytest.raises(Enough):
        taught.rounds.run()
    assert len(ended) == 7  # two that brought nothing after the last text


def test_without_anything_to_write_it_says_so(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lessons, "requests", lambda self: iter(()))
    with (
        Taught(tiny, tmp_path).rounds as rounds,
        pytest.raises(EdgeConflayersError, match="nothing to write"),
    ):
        rounds.run()


def test_what_is_kept_is_bounded(tiny: Tiny, tmp_path: Path) -> None:
    """By the bytes of states, however long it goes on."""
    model = tiny("llama", n_layer=3, layer_gain=0.1)
    most = 1200  # tokens
    sizes = Sizes(
        parallel=4, new=1100, new_share=0.0, held_out=64, most_bytes=4 * model.n_embd * most
    )
    taught = Taught(tiny, tmp_path, sizes)
    longest = taught.rounds._texts.n_ctx
    with taught.rounds as rounds:
        for _ in range(3):
            rounds.round()
            lessons = rounds._lessons
            assert len(lessons.learned) <= most + longest
            assert len(lessons.held_out) <= most + longest
            assert not lessons.texts and len(lessons._parts) <= sizes.parallel
    assert lessons.tokens > 3300


def test_requests_are_told_apart() -> None:
    assert Request([1], 0) != Request([1], 0)
