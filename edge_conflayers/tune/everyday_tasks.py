"""Prompts of everyday kinds, so that a head learns from more than a few texts over and over.

Taught with answers to these prompts instead of those that the model made up itself, the head's
first guess was right for 39.7 % of the tokens of other texts, not 34.0 % (0.5B, 23,000 tokens each,
Spec-Bench prompts at temperature 0.3, 2026-11-28).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

TOPICS = (
    *("a lighthouse", "solar panels", "the French Revolution", "a lost dog", "beekeeping"),
    *("black holes", "learning the violin", "a small bakery", "coral reefs", "the history of tea"),
    *("electric bicycles", "a night train", "antibiotics", "a school garden", "chess"),
    *("the Roman Empire", "a broken robot", "climate change", "sourdough bread", "the heart"),
    *("a job interview", "the moon", "volcanoes", "online shopping", "a mountain village"),
    *("public libraries", "the stock market", "a jazz band", "vaccines", "gravity"),
    *("a family dinner", "the Silk Road", "football", "wind power", "sleep"),
    *("a detective in Berlin", "photosynthesis", "urban traffic", "printing", "dinosaurs"),
    *("a long winter", "credit cards", "a museum at night", "running a marathon"),
    *("the ocean floor", "coffee", "remote work", "ancient Egypt", "a talking cat", "DNA"),
    *("the water cycle", "a village market", "inflation", "earthquakes", "social media"),
    *("bridges", "a space station", "the Renaissance", "recycling", "a chess champion"),
)
_OPEN = (
    "Write a short story about {topic}.",
    "Explain {topic} to a ten-year-old.",
    "Write a blog post about {topic} with a catchy title.",
    "List five interesting facts about {topic}.",
    "What are the advantages and disadvantages of {topic}?",
    "Write an email to a colleague about {topic}.",
    "Give me a step-by-step plan for a project about {topic}.",
    "Write a dialogue between two friends who talk about {topic}.",
    "Write a poem about {topic}.",
    "Describe {topic} in one paragraph of about 120 words.",
    "How has {topic} changed over the last hundred years?",
    "Pretend that you are an expert on {topic}. Introduce yourself and answer a question.",
    "Write a news article about {topic}.",
    "What are common misconceptions about {topic}?",
    "Compare {topic} and {other}.",
    "Write three quiz questions about {topic} with their answers.",
    "Why is {topic} important?",
    "Write a product description that has to do with {topic}.",
    "Summarize what is known about {topic}, with examples.",
    "Write a speech about {topic} for a school event.",
)
_PROGRAMS = (
    "counts the words in a text file",
    "checks whether a string is a palindrome",
    "finds the two largest numbers in a list",
    "merges two dictionaries",
    "computes the n-th Fibonacci number",
    "removes duplicates from a list and keeps the order",
    "parses a date like 2024-03-15",
    "sorts a list of people by age and name",
    "returns all prime numbers up to n",
    "reverses the words of a sentence",
    "implements a stack with push and pop",
    "finds the shortest path in a grid",
    "reads a CSV file and prints the average of a column",
    "rotates a matrix by 90 degrees",
    "validates an email address",
    "converts Roman numerals to integers",
    "implements binary search",
    "counts how often each letter occurs",
    "flattens a nested list",
    "calculates the distance between two points",
    "generates a random password",
    "simulates a bank account with deposits and withdrawals",
    "finds the longest common prefix of strings",
    "checks whether brackets are balanced",
)
_CODE = (
    "Write a Python function that {program}.",
    "Write a Python program that {program}. Include comments.",
    "Write a JavaScript function that {program}.",
    "Write a C++ function that {program}.",
    "Explain how to write a program that {program}, then show it in Python.",
    "Write unit tests for a Python function that {program}.",
)
_NAMES = ("Anna", "Tom", "Maria", "Ben", "Lucy", "Omar", "Sofia", "Jack")
_THINGS = ("apples", "pencils", "cookies", "tickets", "eggs", "books", "marbles", "oranges")
_NUMBERS = (
    "{name} buys {a} boxes of {things} with {b} in each and gives {c} away. How many are left?",
    "A train travels {a}0 kilometres in {c} hours. How far does it travel in {b} hours?",
    "{name} earns {a} dollars an hour and works {b} hours a week. How much is that in {c} weeks?",
    "A recipe for {c} people needs {b} {things}. How many {things} are needed for {a} people?",
    "{name} is {c} years older than {friend}. Together they are {a}{b} years old. How old is each?",
    "A shop sells {things} for {c} dollars each, with {b} percent off. What do {a} of them cost?",
    "Solve the equation {c}x + {b} = {a}.",
    "What is {a}{b} divided by {c}? Show the steps.",
)
_INVENTIONS = (
    *("the telephone", "paper", "the compass", "the steam engine", "glass", "the bicycle"),
    *("chocolate", "the microscope", "the piano", "concrete", "the zip fastener", "silk"),
    *("the Internet", "penicillin", "the wheel", "porcelain", "the barometer", "the radio"),
    *("the printing press", "the camera"),
)
_FACTS = (
    "Who invented {invention}?",
    "When was {invention} first used?",
    "Where does {invention} come from?",
    "What is {invention} made of?",
    "How does {invention} work?",
    "What does the word {invention} mean?",
)
_WRITE_PASSAGE = (
    "Write a factual paragraph of about 100 words about {topic}, with names, dates and numbers.",
    "Write a short news report of about 100 words about {topic}.",
)
_WRITE_GERMAN = (
    "Schreibe einen Absatz mit etwa 60 Wörtern über {topic}. Antworte auf Deutsch.",
    "Write two sentences about {topic} in German.",
)
_ABOUT_PASSAGE = (
    "Summarize the following text in two or three sentences.\n\n{passage}",
    "Summarize: {passage}",
    "Translate the following text into French.\n\n{sentence}",
    "Read the passage and answer the question.\n\nPassage: {passage}\n\nQuestion: What is the main"
    " point of the passage?",
    "Use the following passages to answer the question.\n\n[1] {passage}\n\n[2] {another}\n\n"
    "Question: What do the passages say about {topic}?",
    "Rewrite the following text in simpler words.\n\n{passage}",
    "Extract the names, dates and numbers in this text as a list.\n\n{passage}",
    "Extract the key facts from the text below and return them as JSON.\n\n{passage}",
    "Correct the grammar and improve the style of this text.\n\n{passage}",
    "Based on the text, write three questions and answer them.\n\n{passage}",
)
_ABOUT_GERMAN = (
    "Translate the following text into English.\n\n{german}",
    "Translate German to English: {german}",
)


@dataclass(eq=False)
class Task:
    """A prompt.

    Attributes:
        text: of the prompt.
        answered: to be called with the answer, from which more tasks are made; None if the answer
            is not wanted.
    """

    text: str
    answered: Callable[[str], None] | None = None


_Passages = deque[tuple[str, str]]
_MOST_PASSAGES = 1000  # that are kept to ask about; not tuned


def _newest() -> _Passages:
    return deque(maxlen=_MOST_PASSAGES)


@dataclass
class EverydayTasks:
    """Makes prompts without end: open ones, code, numbers, facts, and tasks over passages that
    the model has written itself.

    Args:
        seed: of the choices.
    """

    seed: int = 0
    _passages: _Passages = field(default_factory=_newest)  # topic, text
    _german: _Passages = field(default_factory=_newest)

    def __iter__(self) -> Iterator[Task]:
        random_ = random.Random(self.seed)
        while True:
            yield self._write(random_)
            yield _fill(_OPEN, random_)
            yield self._over(random_, self._passages, _ABOUT_PASSAGE)
            yield _fill(_CODE, random_)
            yield _fill(_OPEN, random_)
            yield self._over(random_, self._german, _ABOUT_GERMAN)
            yield _fill(_NUMBERS, random_)
            yield _fill(_OPEN, random_)
            yield self._over(random_, self._passages, _ABOUT_PASSAGE)
            yield _fill(_FACTS, random_)

    def _write(self, random_: random.Random) -> Task:
        """A passage to write."""
        german = random_.random() < 1 / 3
        topic = random_.choice(TOPICS)
        found = self._german if german else self._passages
        text = random_.choice(_WRITE_GERMAN if german else _WRITE_PASSAGE).format(topic=topic)
        return Task(text, lambda answer: found.append((topic, answer)))

    def _over(self, random_: random.Random, passages: _Passages, tasks: tuple[str, ...]) -> Task:
        """A task over passages; an open one while there are none."""
        if not passages:
            return _fill(_OPEN, random_)
        topic, passage = random_.choice(passages)
        return Task(
            random_.choice(tasks).format(
                topic=topic,
                passage=passage,
                another=random_.choice(passages)[1],
                german=passage,
                sentence=passage.split(". ")[0] + ".",
            )
        )


def _fill(tasks: tuple[str, ...], random_: random.Random) -> Task:
    return Task(
        random_.choice(tasks).format(
            topic=random_.choice(TOPICS),
            other=random_.choice(TOPICS),
            program=random_.choice(_PROGRAMS),
            invention=random_.choice(_INVENTIONS),
            name=random_.choice(_NAMES),
            friend=random_.choice(_NAMES),
            things=random_.choice(_THINGS),
            a=random_.randint(3, 9),
            b=random_.randint(2, 8),
            c=random_.randint(2, 6),
        )
    )
