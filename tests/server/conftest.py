"""A browser that visits the server's page, and servers to visit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Visit, Visiting, chromium
from served import Server, serving
from steps import RealModel, TinyPath


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        path = chromium(playwright)
        if path is None:
            pytest.skip("there is no Chromium here; install one, or `playwright install chromium`")
        found = playwright.chromium.launch(executable_path=path)
        yield found
        found.close()


@pytest.fixture(scope="module")
def tiny_server(tiny_path: TinyPath, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a random model."""
    path: Path = tiny_path("llama", n_layer=4, layer_gain=0.2)
    with serving(tmp_path_factory.mktemp("data"), path, "-t", 1, "-c", 512) as found:
        yield found


@pytest.fixture(scope="module")
def real_server(
    real_model: RealModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of a model that writes sense."""
    real_model("smollm2-135m")
    with serving(tmp_path_factory.mktemp("data"), "smollm2-135m", "-c", 2048) as found:
        yield found


@pytest.fixture
def visiting(browser: Any) -> Iterator[Visiting]:
    """Visits a server's page with a browser that knows nothing yet, and checks in the end that
    nothing went wrong."""
    contexts: list[Any] = []
    visits: list[Visit] = []

    def visit(server: Server, **options: Any) -> Visit:
        context = browser.new_context(**options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        visits.append(Visit(context.new_page(), server))
        return visits[-1]

    yield visit
    for each in contexts:
        each.close()
    for each in visits:
        each.check()
