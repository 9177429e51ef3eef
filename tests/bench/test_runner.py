"""In which order methods run, what they remember, and what an interrupt leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gguf_models import write_tiny_model

from edge_conflayers.bench.runner import (
    Generation,
    LocalEngine,
    Task,
    context_for,
    make_task,
    run,
    warm_up,
)
from edge_conflayers.bench.workloads import Prompt
from edge_conflayers.chat import chat_tokens
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.errors import BadInput

TASKS = [Task(Prompt(str(i), None, "text"), (i, i)) for i in range(3)]


@dataclass
class Fake:
    """Notes what it is asked; its text is how many prompts it remembers."""

    name: str
    log: list[str]
    interrupt_at: int | None = None
    remembered: int = 0
    asked: int = field(default=0)

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generation:
        if self.asked == self.interrupt_at:
            raise KeyboardInterrupt
        self.asked += 1
        self.log.append(f"{self.name}{prompt[0]}")
        self.remembered += 1
        return Generation((self.remembered,) * max_tokens, Stats(tokens=max_tokens))

    def restart(self) -> None:
        self.remembered = 0

    def close(self) -> None:
        pass


def test_methods_take_turns_in_rotating_order() -> None:
    log: list[str] = []
    results, complete = run({n: Fake(n, log) for n in "abc"}, TASKS, max_tokens=1)
    assert log == ["a0", "b0", "c0", "b1", "c1", "a1", "c2", "a2", "b2"]
    assert complete
    assert [list(result.runs) for result in results] == [["a", "b", "c"]] * 3


def test_repeats_start_anew_and_do_the_same_work() -> None:
    results, _ = run({n: Fake(n, []) for n in "ab"}, TASKS, max_tokens=2, repeat=3)
    for number, result in enumerate(results, start=1):
        for runs in result.runs.values():
            assert [generation.tokens for generation in runs] == [(number, number)] * 3


def test_fresh_remembers_nothing_between_prompts() -> None:
    results, _ = run({"a": Fake("a", [])}, TASKS, max_tokens=1, fresh=True)
    assert [result.runs["a"][0].tokens for result in results] == [(1,)] * 3


def test_an_interrupt_keeps_prompts_that_all_methods_finished() -> None:
    engines = {"a": Fake("a", []), "b": Fake("b", [], interrupt_at=2)}
    results, complete = run(engines, TASKS, max_tokens=1)
    assert not complete
    assert [result.task for result in results] == TASKS[:2]
    assert all(len(runs) == 1 for result in results for runs in result.runs.values())


def test_an_interrupt_in_a_later_repeat_keeps_all_prompts() -> None:
    engines = {"a": Fake("a", []), "b": Fake("b", [], interrupt_at=4)}
    results, complete = run(engines, TASKS, max_tokens=1, repeat=2)
    assert not complete
    assert [len(result.runs["a"]) for result in results] == [2, 1, 1]
    assert [len(result.runs["b"]) for result in results] == [2, 1, 1]


def test_progress_counts_repeats() -> None:
    seen: list[tuple[int, int, list[str]]] = []
    run(
        {n: Fake(n, []) for n in "ab"},
        TASKS,
        max_tokens=1,
        repeat=2,
        on_progress=lambda done, total, runs: seen.append((done, total, sorted(runs))),
    )
    assert seen == [(n, 6, ["a", "b"]) for n in range(1, 7)]


def test_warming_up_is_forgotten() -> None:
    fake = Fake("a", [])
    warm_up({"a": fake}, TASKS[0])
    assert (fake.asked, fake.remembered) == (1, 0)


def test_prompts_are_put_in_the_chat_template_and_fitted(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", "llama", context_length=5000)
    with Model(path) as model:
        prompt = Prompt("7", None, "Hello")
        plain, chat = (make_task(model, prompt, raw=raw) for raw in (True, False))
        assert list(plain.tokens) == model.tokenize("Hello")
        assert list(chat.tokens) == chat_tokens(model, [{"role": "user", "content": "Hello"}])
        assert len(chat.tokens) > len(plain.tokens)

        long = Task(prompt, (1,) * 4500)
        assert context_for(model, [plain], 10, None) == 4096
        assert context_for(model, [plain, long], 100, None) == 4600
        assert context_for(model, [plain], 10, 64) == 64
        assert context_for(model, [plain], 10, 0) == 5000
        with pytest.raises(BadInput, match="prompt 7 has 4500 tokens"):
            context_for(model, [plain, long], 501, None)


def test_a_local_engine_writes_the_same_text_again(tmp_path: Path) -> None:
    with Model(write_tiny_model(tmp_path / "m.gguf", "llama")) as model:
        engine = LocalEngine("plain", model, SamplerSettings(), n_ctx=256, threads=1)
        first, second = (engine.generate([5, 6, 7], 20) for _ in range(2))
        assert first.tokens == second.tokens
        assert first.stats.tokens == len(first.tokens) == 20
        with pytest.raises(BadInput, match="no method 'nonsense'"):
            LocalEngine("nonsense", model, SamplerSettings())
