"""A model's CPU kernels are its own: other models, threads and later choices do not change them."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from scripted import ScriptedDrafter, partly_right
from steps import TinyPath, assert_same_bits, decode, open_session, random_tokens

from edge_conflayers.cli import main
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.engine import binding, native
from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput

CHOICES: tuple[KernelChoice, ...] = ("ecl", "upstream", "upstream-as-is")

pytestmark = pytest.mark.skipif(
    not binding.kernels("ecl")["enabled"], reason="this CPU or build has no kernels of ours"
)


@pytest.fixture
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", quant="q8_0", n_embd=128, layer_gain=0.2)


def some_logits(model: Model) -> npt.NDArray[np.float32]:
    """Logits of tokens in steps of one and of four."""
    tokens = random_tokens(model, 60)
    with open_session(model, n_ctx=256) as session:
        session.read(tokens[:40])
        one = decode(session, tokens[40:52], (1,))
        return np.concatenate([one, decode(session, tokens[52:], (4,))])


def test_models_with_different_kernels_live_side_by_side(path: Path) -> None:
    alone = {}
    for choice in CHOICES:
        with Model(path, kernels=choice) as model:
            assert model.kernels == choice
            alone[choice] = some_logits(model)
    assert not np.array_equal(alone["ecl"], alone["upstream"])
    first, second, third = (Model(path, kernels=choice) for choice in CHOICES)
    with first, second, third:
        for model in (third, first, second, first, third):
            assert_same_bits(some_logits(model), alone[model.kernels])


def test_the_environment_chooses_where_the_caller_does_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ECL_KERNELS", raising=False)
    assert Model(path).kernels == "ecl"
    monkeypatch.setenv("ECL_KERNELS", "upstream")
    assert Model(path).kernels == "upstream"
    assert Model(path, kernels="ecl").kernels == "ecl"
    with pytest.raises(BadInput, match="not 'fast'"):
        Model(path, kernels="fast")  # type: ignore[arg-type]


@pytest.fixture
def another_thread_that_chooses() -> Iterator[None]:
    """Chooses one kernel after the other, as fast as it can."""
    folder = Path(native.llama._lib._name).parent
    (library,) = folder.glob("*ggml-cpu.*")
    choose = ctypes.CDLL(str(library)).ecl_kernels_choose
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            for choice in (0, 1, 2):
                choose(choice)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.mark.parametrize("kernels", ["ecl", "upstream"])
def test_another_threads_choice_changes_nothing(
    path: Path, kernels: KernelChoice, request: pytest.FixtureRequest
) -> None:
    def written(model: Model, drafter: ScriptedDrafter | None) -> list[int]:
        with Session(model, n_ctx=512, threads=2) as session:
            sampler = Sampler(model, SamplerSettings(temperature=0.9, seed=4))
            prompt = random_tokens(model, 40)
            return list(generate(session, prompt, sampler, drafter=drafter, max_tokens=120))

    with Model(path, kernels=kernels) as model:
        plain = written(model, None)
        request.getfixturevalue("another_thread_that_chooses")
        assert written(model, None) == plain
        drafter = ScriptedDrafter(partly_right(plain, model.n_vocab, seed=3, longest=8), 40)
        assert written(model, drafter) == plain
        assert sum(len(round.path) for round in drafter.rounds) > 20
        with Model(path, kernels=kernels) as loaded_meanwhile:
            assert written(loaded_meanwhile, None) == plain


def test_the_command_line_chooses_for_one_run(path: Path) -> None:
    def run(*options: str) -> str:
        asked = ["run", str(path), "--raw", "-p", "a b c", "-n", "40", "--method", "plain"]
        sampled = ["--temp", "1", "--seed", "3", "--fresh"]
        done = CliRunner().invoke(main, [*asked, *sampled, *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    ours = run()
    assert run("--kernels", "upstream") != ours
    assert run("--kernels", "ecl") == run() == ours
