"""When a server lets models learn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from steps import TinyPath
from waiting import wait_for

from edge_conflayers.profiles import ProfileStore
from edge_conflayers.server import opening as opening_
from edge_conflayers.server.app import make_app
from edge_conflayers.server.idle_time import IdleTime
from edge_conflayers.server.opening import Opening, open_service
from edge_conflayers.server.options import ServerOptions
from edge_conflayers.server.serving import Service
from edge_conflayers.tune.idle.messages import Sizes
from edge_conflayers.tune.idle.teacher import IdleTeacher


class Switch:
    """A teacher that does nothing."""

    def __init__(self) -> None:
        self.is_going = False

    def go(self) -> None:
        self.is_going = True

    def stop(self) -> None:
        self.is_going = False


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3))))
def test_nobody_learns_while_somebody_waits_and_one_at_a_time(
    steps: list[tuple[bool, int]],
) -> None:
    """Steps: whether a model is asked, or has answered, and which; one of four does not learn."""
    teachers: list[Switch | None] = [Switch(), Switch(), Switch(), None]
    idle_time, waiting = IdleTime(), [0, 0, 0, 0]
    last: Switch | None = None
    for is_asked, which in steps:
        if is_asked:
            waiting[which] += 1
            idle_time.end()
        elif waiting[which]:
            waiting[which] -= 1
            last = teachers[which] or last
            idle_time.begin(teachers[which])
        going = [each for each in teachers if each is not None and each.is_going]
        assert going == ([last] if last is not None and not any(waiting) else [])


@pytest.fixture
def service(
    tiny_path: TinyPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    monkeypatch.setattr("edge_conflayers.drafters.next_state.PAYS_FROM", 0.0)
    small: Any = lambda *given, **named: IdleTeacher(  # noqa: E731
        *given, **named, sizes=Sizes(parallel=4, new=1200, held_out=64), priority=0
    )
    monkeypatch.setattr(opening_, "IdleTeacher", small)
    told: list[str] = []
    opening = Opening(
        parallel=2,
        n_ctx=512,
        threads=1,
        learn=True,
        tell=told.append,
        profiles=ProfileStore(tmp_path / "profiles"),
    )
    paths = {"tiny": tiny_path("llama", n_layer=4, layer_gain=0.1)}
    with open_service(paths, opening, ServerOptions()) as found:
        found.told = told  # type: ignore[attr-defined]
        yield found


def state(teacher: IdleTeacher) -> str:
    assert teacher._process is not None
    stat = Path(f"/proc/{teacher._process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def text(client: TestClient) -> str:
    body = {"prompt": "one two three", "max_tokens": 30, "temperature": 0}
    found = client.post("/v1/completions", json=body)
    assert found.status_code == 200, found.text
    return str(found.json()["choices"][0]["text"])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_a_model_learns_between_requests_and_answers_alike(service: Service) -> None:
    client, (model,) = TestClient(make_app(service)), service.models.values()
    teacher = model.teacher
    assert teacher is not None
    before = text(client)
    wait_for(lambda: teacher._process is not None)
    model.admit()
    wait_for(lambda: state(teacher) == "T")
    model.admit()
    model.release()
    assert state(teacher) == "T"  # somebody waits still
    model.release()
    wait_for(lambda: state(teacher) != "T")
    wait_for(lambda: teacher.head is not None)
    for _ in range(4):  # in either slot
        assert text(client) == before
    metrics = client.get("/metrics").text
    values = {
        line.split()[0]: float(line.split()[1])
        for line in metrics.splitlines()
        if line.startswith("edge_conflayers_learned_")
    }
    assert values['edge_conflayers_learned_better_total{model="tiny"}'] >= 1
    assert values['edge_conflayers_learned_tokens_total{model="tiny"}'] > 1000
    assert 0 < values['edge_conflayers_learned_foreseen{head="last",model="tiny"}'] <= 1
    assert service.told[0].startswith("tiny: a better next-state head")  # type: ignore[attr-defined]
