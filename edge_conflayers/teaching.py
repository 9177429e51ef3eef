"""Teaches a model's next-state head by texts that the model writes itself: answers to the user's
prompts, and to prompts that it makes up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice

import numpy as np

from edge_conflayers.model import Model
from edge_conflayers.next_state import Lessons, NextStateHead
from edge_conflayers.parallel_texts import ParallelTexts, Written
from edge_conflayers.session.next_state import next_tokens, set_next_state, token_embedding
from edge_conflayers.vocabulary import DraftVocabulary

_TOGETHER = 16
_MOST_TOKENS = 160  # of a text
_MADE_UP_TOKENS = 48  # of a made-up prompt
_INVENTING = 0.1  # most of the time that making up prompts takes
_HELD_OUT = 16  # one text of so many tests what the others have taught
_MOST_TESTED = 1024
_WIDTH = 4
_MARK = "\u2063prompt\u2063"  # stands for the prompt in a chat template


@dataclass(frozen=True)
class Progress:
    """Where teaching is: seconds since it began, and tokens so far."""

    seconds: float
    tokens: int


@dataclass(frozen=True)
class Taught:
    """A head and what it is worth.

    Attributes:
        head: taught.
        tokens: that it was taught by.
        foreseen: the share of tokens of other texts that were the likeliest by it, and among its
            four likeliest.
        interrupted: whether it was cut short.
    """

    head: NextStateHead
    tokens: int
    foreseen: tuple[float, float]
    interrupted: bool = False


def teach(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    seconds: float,
    known: NextStateHead | None = None,
    threads: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Taught | None:
    """Writes texts for some time and learns from them. An interrupt ends the writing; what was
    written counts.

    Args:
        prompts: tokens of each; answered in turn with those that the model makes up. Long ones are
            left out.
        known: an earlier head, which is kept if it foresees more.

    Returns:
        None if there was too little text.

    Raises:
        BadInput: the model cannot be served by a next-state head.
    """
    school = _School(model)
    began = time.monotonic()
    interrupted = False
    with ParallelTexts(model, most=_TOGETHER, threads=threads) as texts:
        token_embedding(texts.context, 0, model.n_embd)  # finds out whether it can be had
        try:
            made_up = make_up_prompts(texts, began + seconds * _INVENTING)
            usable = [list(filter(texts.fits, some)) for some in (prompts, made_up)]
            for each in texts.write(_in_turn(usable), _MOST_TOKENS):
                spent = time.monotonic() - began
                if isinstance(each, Written):
                    school.hear(texts, each)
                on_progress(Progress(spent, len(school.lessons)))
                if spent > seconds:
                    break
        except KeyboardInterrupt:
            interrupted = True
        taught = school.examine(texts, known) if school.lessons.enough else None
    if taught is None and interrupted:
        raise KeyboardInterrupt
    return None if taught is None else replace(taught, interrupted=interrupted)


def make_up_prompts(texts: ParallelTexts, deadline: float) -> list[list[int]]:
    """Prompts that the model writes in the user's place, as it was trained to read them: tokens in
    its chat template. Without a template a single one, the beginning of any text."""
    model = texts.model
    if model.chat_template is None:
        return [model.tokenize("") or model.tokenize("\n")]
    template = model.format_chat([{"role": "user", "content": _MARK}])
    if template.count(_MARK) != 1:
        return []
    opening = model.tokenize(template.partition(_MARK)[0], parse_special=True)
    made_up = []
    for each in texts.write(iter([opening] * _TOGETHER * 4), _MADE_UP_TOKENS):
        if not isinstance(each, Written) and (text := model.text(each.tokens).strip()):
            chat = model.format_chat([{"role": "user", "content": text}])
            made_up.append(model.tokenize(chat, parse_special=True))
        if time.monotonic() > deadline:
            break
    return made_up


def _in_turn(kinds: Sequence[Sequence[Sequence[int]]]) -> Iterator[Sequence[int]]:
    """Every prompt of every kind again and again, the kinds alternating."""
    endless = [cycle(kind) for kind in kinds if kind]
    return chain.from_iterable(zip(*endless, strict=True)) if endless else iter(())


@dataclass
class _School:
    model: Model
    lessons: Lessons = field(init=False)
    _tests: list[Written] = field(default_factory=list)  # of held-out texts

    def __post_init__(self) -> None:
        self.lessons = Lessons(self.model.n_embd)

    def hear(self, texts: ParallelTexts, written: Written) -> None:
        if written.text % _HELD_OUT == _HELD_OUT - 1:
            self._tests.append(written)
            return
        embedding = token_embedding(texts.context, written.token, self.model.n_embd)
        self.lessons.add(written.state, written.token, embedding, written.next_state)

    def examine(self, texts: ParallelTexts, known: NextStateHead | None) -> Taught:
        """Learns, and asks the new head and the known one what followed in the held-out texts."""
        head = self.lessons.learn()
        vocabulary = DraftVocabulary(self.model)
        vocabulary.expect(head.written)
        texts.context.set_draft_vocabulary(vocabulary.tokens(vocabulary.size))
        heads = [head] if known is None else [head, known]
        results = [Taught(each, len(self.lessons), self._foreseen(texts, each)) for each in heads]
        return max(results, key=lambda each: each.foreseen[-1])

    def _foreseen(self, texts: ParallelTexts, head: NextStateHead) -> tuple[float, float]:
        set_next_state(texts.context, head.weights)
        pairs = list(islice(self._followed(), _MOST_TESTED))
        hits = np.zeros(_WIDTH)
        for written, follower in pairs:
            guesses, _ = next_tokens(texts.context, written.state, written.token, _WIDTH)
            hits += np.array(guesses) == follower
        shares = hits.cumsum() / max(1, len(pairs))
        return float(shares[0]), float(shares[-1])

    def _followed(self) -> Iterator[tuple[Written, int]]:
        """Of held-out texts each token and the one that came after it."""
        before: dict[int, Written] = {}
        for written in self._tests:
            if written.text in before:
                yield before[written.text], written.token
            before[written.text] = written
