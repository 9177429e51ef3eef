"""The process that decodes with upstream's own library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from gguf_models import write_tiny_model

from edge_conflayers.bench.upstream import UpstreamSession, decode, prompt_lookup
from edge_conflayers.bench.upstream_client import UpstreamEngine, find_library
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine import native
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import ContextFull, Session
from edge_conflayers.errors import BadInput, EdgeConflayersError

GREEDY = SamplerSettings()
SETTINGS = {
    "greedy": GREEDY,
    "seeded": SamplerSettings(temperature=1.0, seed=11),
    "penalized": SamplerSettings(temperature=1.0, seed=11, repeat_penalty=1.3),
}
PROMPT = [1, 70, 71, 72, 73]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf", "llama")


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with Model(path) as loaded:
        yield loaded


@pytest.fixture
def library() -> Path:
    try:
        return find_library(None)
    except BadInput as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("n_ctx", "limit"), [(256, 50), (256, 1), (256, 1000)])
def test_its_loop_ends_and_counts_as_the_package_does(
    model: Model, settings: SamplerSettings, n_ctx: int, limit: int
) -> None:
    expected = Stats()
    with (
        Session(model, n_ctx=n_ctx, threads=1) as session,
        closing(Sampler(model, settings)) as sampler,
    ):
        text = list(generate(session, PROMPT, sampler, max_tokens=limit, stats=expected))
    with (
        UpstreamSession(model, n_ctx=n_ctx, threads=1) as session,
        closing(Sampler(model, settings)) as sampler,
    ):
        written, stats = decode(session, PROMPT, sampler, limit)
    assert written == text
    for name in ("prompt_tokens", "tokens", "rounds", "finish_reason"):
        assert getattr(stats, name) == getattr(expected, name), name
    assert 0 <= stats.verify_seconds <= stats.seconds


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("n_ctx", "limit"), [(256, 80), (64, 1000)])
def test_with_lookup_it_writes_the_same(
    model: Model, settings: SamplerSettings, n_ctx: int, limit: int
) -> None:
    found = []
    for lookup in (None, prompt_lookup()):
        with (
            UpstreamSession(model, n_ctx=n_ctx, threads=1) as session,
            closing(Sampler(model, settings)) as sampler,
        ):
            found.append(decode(session, PROMPT, sampler, limit, lookup))
            assert len(session) == min(len(PROMPT) + found[-1][1].tokens - 1, n_ctx)
    (text, plain), (written, looked_up) = found
    assert written == text
    assert looked_up.finish_reason == plain.finish_reason
    assert looked_up.rounds == plain.rounds - looked_up.accepted
    if settings is GREEDY:
        assert looked_up.accepted > 0  # a model that repeats itself


def test_its_session_says_when_it_is_full(model: Model) -> None:
    with UpstreamSession(model, n_ctx=256, threads=1) as session:
        with pytest.raises(ContextFull):
            session.step([1] * 257)
        assert len(session) == 0


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_process_writes_what_the_library_would_here(
    path: Path, library: Path, settings: SamplerSettings
) -> None:
    with closing(UpstreamEngine(path, library, settings, n_ctx=256, threads=1)) as engine:
        first, second = (engine.generate(PROMPT, 30) for _ in range(2))
    with (
        Model(path, kernels="upstream") as model,  # ours round differently
        Session(model, n_ctx=256, threads=1) as session,
        closing(Sampler(model, settings)) as sampler,
    ):
        text = tuple(generate(session, PROMPT, sampler, max_tokens=30))
    assert first.tokens == second.tokens == text
    assert first.stats.tokens == len(text)
    assert first.stats.seconds > 0


def test_the_patched_library_is_not_taken_for_upstream(path: Path) -> None:
    patched = Path(native.llama.__file__).parent.parent / "lib"
    with pytest.raises(BadInput, match="is not upstream's"):
        UpstreamEngine(path, patched, GREEDY)


def test_its_errors_arrive_here(path: Path, library: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadInput, match="is cut off"):
        UpstreamEngine(broken, library, GREEDY)
    with closing(UpstreamEngine(path, library, GREEDY, n_ctx=256, threads=1)) as engine:
        with pytest.raises(EdgeConflayersError, match="300 more tokens do not fit"):
            engine.generate([1] * 300, 5)
        assert engine.generate(PROMPT, 5).stats.tokens == 5  # and it goes on


def test_a_library_that_does_not_load(path: Path, tmp_path: Path) -> None:
    for name in ("libllama.so", "libllama.dylib"):
        (tmp_path / name).write_bytes(b"not a library")
    with pytest.raises(EdgeConflayersError, match="does not load") as caught:
        UpstreamEngine(path, find_library(tmp_path), GREEDY)
    assert "\n" not in str(caught.value)


def test_where_the_library_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="holds no llama library"):
        find_library(tmp_path)
    monkeypatch.setattr("edge_conflayers.bench.upstream_client._ROOT", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="make upstream"):
        find_library(None)
    built = tmp_path / "build" / "upstream" / "lib"
    built.mkdir(parents=True)
    (built / "libllama.so").touch()
    assert find_library(None) == built.resolve()
