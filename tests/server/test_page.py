"""The page's files and how they are served, without a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from doc_pages import ROOT
from starlette.testclient import TestClient
from steps import TinyPath

import edge_conflayers
from edge_conflayers.cli import main
from edge_conflayers.cli.sources import _KNOWN
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.server.app import make_app
from edge_conflayers.server.opening import Opening, open_service
from edge_conflayers.server.options import ServerOptions, hosts_of

FOLDER = Path(edge_conflayers.__file__).parent / "server" / "page"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())}
SCRIPTS = {name: text for name, text in TEXTS.items() if name.endswith(".js")}
STYLES = {name: text for name, text in TEXTS.items() if name.endswith(".css")}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg"}
HUES = {  # of the terminal, as the page and the report have them
    "green": ("#1a7f37", "#3fb950"),
    "cyan": ("#0f766e", "#2dd4bf"),
    "magenta": ("#bf3989", "#f778ba"),
    "yellow": ("#9a6700", "#d29922"),
    "blue": ("#0969da", "#58a6ff"),
    "red": ("#cf222e", "#ff7b72"),
}


@pytest.fixture(scope="module")
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", n_layer=4, layer_gain=0.2)


@pytest.fixture(scope="module")
def opened(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., TestClient]]:
    """Opens a server with these options."""
    store = ProfileStore(tmp_path_factory.mktemp("profiles"))
    opening = Opening(n_ctx=512, threads=1, method="lookup", profiles=store)
    with ExitStack() as stack:

        def make(**options: Any) -> TestClient:
            service = open_service({"tiny": path}, opening, ServerOptions(**options))
            stack.enter_context(service)
            return TestClient(make_app(service), raise_server_exceptions=False)

        yield make


@pytest.fixture(scope="module")
def client(opened: Callable[..., TestClient]) -> TestClient:
    return opened()


def test_the_package_holds_its_files() -> None:
    assert set(TEXTS) == {path.name for path in (ROOT / "edge_conflayers/server/page").iterdir()}
    assert {"index.html", "app.js", "page.css", "icon.svg"} <= set(TEXTS)


def test_the_page_is_served(client: TestClient) -> None:
    found = client.get("/")
    assert found.status_code == 200 and found.text == TEXTS["index.html"]
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    policy = found.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';") and "unsafe" not in policy
    assert "trusted-types 'none'" in policy


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_is_served_as_what_it_is(client: TestClient, name: str) -> None:
    found = client.get(f"/page/{name}")
    assert found.status_code == 200 and found.text == TEXTS[name]
    assert found.headers["content-type"].startswith(TYPES[Path(name).suffix])
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in found.headers
    head = client.head(f"/page/{name}")
    assert head.status_code == 200 and not head.content
    for header in ("content-type", "content-length", "etag", "content-security-policy"):
        assert head.headers[header] == found.headers[header]


def test_a_browser_asks_whether_it_has_changed(client: TestClient) -> None:
    found = client.get("/")
    assert found.headers["cache-control"] == "no-cache"
    again = client.get("/", headers={"If-None-Match": found.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert client.get("/", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "place",
    [
        "/page/",
        "/page/none.js",
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..%2fguards.py",
        "/page/%2e%2e%5cguards.py",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/a%00b",
        "/index.html",
        "/favicon.ico",
    ],
)
def test_nothing_else_is_served(client: TestClient, place: str) -> None:
    found = client.get(place, follow_redirects=False)
    assert found.status_code == 404, found.text
    assert found.json()["error"]["type"] == "invalid_request_error"


def test_it_is_only_read(client: TestClient) -> None:
    for method in ("post", "put", "delete"):
        assert getattr(client, method)("/").status_code == 405
        assert getattr(client, method)("/page/app.js").status_code == 405


def test_it_needs_no_key_and_the_api_does(opened: Callable[..., TestClient]) -> None:
    client = opened(api_keys=["secret"])
    for place in ("/", *(f"/page/{name}" for name in TEXTS)):
        assert client.get(place).status_code == 200
    for place in ("/v1/models", "/metrics", "/page/../v1/models", "/pages"):
        assert client.get(place).status_code in (401, 404)
    assert client.get("/v1/models").status_code == 401
    assert client.post("/v1/chat/completions", json={}).status_code == 401


def test_it_is_for_the_names_that_the_server_is_for(opened: Callable[..., TestClient]) -> None:
    client = opened(hosts=hosts_of("127.0.0.1", ()))
    assert client.get("/", headers={"Host": "localhost:8080"}).status_code == 200
    assert client.get("/", headers={"Host": "page.example"}).status_code == 403


def test_it_can_be_left_out(opened: Callable[..., TestClient]) -> None:
    client = opened(page=False)
    assert client.get("/").status_code == client.get("/page/app.js").status_code == 404
    assert client.get("/health").status_code == 200


def test_programs_are_not_told_of_it(client: TestClient) -> None:
    assert not {"/", "/page/{name}"} & client.get("/openapi.json").json()["paths"].keys()


def test_it_is_counted_by_its_route(client: TestClient) -> None:
    client.get("/page/app.js")
    client.get("/page/never-heard-of")
    counts = client.get("/metrics").text
    assert 'requests_total{route="/",status="200"}' in counts
    assert 'route="/page/{name:path}",status="200"' in counts and "never-heard-of" not in counts


@pytest.mark.parametrize(("options", "told"), [((), True), (("--no-page",), False)])
def test_serve_tells_where_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], told: bool
) -> None:
    served: list[bool] = []

    def serve(service: Any, listening: Any, started: Callable[[], None], ending: Any) -> None:
        served.append(service.options.page)
        started()

    monkeypatch.setattr("edge_conflayers.server.running.serve", serve)
    arguments = ["serve", str(path), "--port", "0", "-t", "1", "--fresh", *options]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert served == [told]
    found = re.search(r"at (http://127\.0\.0\.1:\d+)/v1; (page at (\S+)/; )?Ctrl-C", done.stderr)
    assert found is not None and found[3] == (found[1] if told else None)


def test_a_stream_tells_its_figures_as_they_grow(client: TestClient) -> None:
    body = {"prompt": "one two three one two three one two", "max_tokens": 40, "stream": True}
    text = client.post("/v1/completions", json=body).text
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    told = [json.loads(line).get("edge_conflayers") for line in lines[:-1]]
    told = [each for each in told if each is not None]
    for name in ("rounds", "drafted", "accepted"):
        numbers = [each[name] for each in told]
        assert numbers == sorted(numbers) and numbers[0] < numbers[-1]
    assert sum(told[-1]["sources"].values()) == 40


# The files themselves


def test_they_name_no_address_elsewhere() -> None:
    names = "http://www.w3.org/2000/svg"  # of a vocabulary; nothing is fetched from it
    for name, text in TEXTS.items():
        assert set(re.findall(r"\w+://[^\s\"'<>)]+", text)) <= {names}, name
        assert not re.search(r"[\"'(=]//\w", text), name
    for name, text in STYLES.items():
        assert "url(" not in text and "@import" not in text, name


class Tags(HTMLParser):
    """Elements and their attributes, and texts within scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.code = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is not None:
            self.code += data.strip()


@pytest.fixture(scope="module")
def tags() -> Tags:
    found = Tags()
    found.feed(TEXTS["index.html"])
    return found


def test_nothing_is_inline(tags: Tags) -> None:
    assert tags.code == ""
    assert not [tag for tag, _ in tags.tags if tag == "style"]
    for tag, attributes in tags.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        assert tag != "script" or attributes["src"]


def test_every_file_is_used_and_there(tags: Tags) -> None:
    linked = [
        str(attributes[name])
        for tag, attributes in tags.tags
        for name in ("src", "href")
        if name in attributes and tag in ("script", "link")
    ]
    assert all(each.startswith("page/") for each in linked)
    used = {each.removeprefix("page/") for each in linked}
    for text in SCRIPTS.values():
        used |= set(re.findall(r'^import .* from "\./(.+)";$', text, re.M))
    assert used == set(TEXTS) - {"index.html"}


def test_what_scripts_look_for_is_in_the_page(tags: Tags) -> None:
    ids = {str(attributes["id"]) for _, attributes in tags.tags if "id" in attributes}
    for name, text in SCRIPTS.items():
        wanted = re.findall(r'(?<!\.)\bat\("([\w-]+)"\)|Selector\("#([\w-]+)"\)', text)
        missing = {one or other for one, other in wanted} - ids
        assert not missing, name
    labelled = [attributes.get("for") for tag, attributes in tags.tags if tag == "label"]
    assert set(filter(None, labelled)) <= ids
    icons = {each for text in TEXTS.values() for each in re.findall(r"#(icon-\w+)", text)}
    made = [each for text in SCRIPTS.values() for each in re.findall(r'iconButton\("(\w+)', text)]
    icons |= {f"icon-{each}" for each in made}
    assert icons == {each for each in ids if each.startswith("icon-")}


def test_buttons_and_fields_have_names(tags: Tags) -> None:
    fields = {each.get("name") for tag, each in tags.tags if tag in ("input", "textarea")}
    asked = {"temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed"}
    assert asked | {"system", "stop", "key", "remember"} <= fields
    settings = SCRIPTS["settings.js"]
    assert all(f'"{name}"' in settings for name in asked)
    for tag, attributes in tags.tags:
        if tag == "button" and attributes.get("class") == "quiet":
            assert attributes.get("aria-label"), attributes


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_text_can_become_markup_or_code(name: str) -> None:
    wrong = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    assert not re.search(wrong, SCRIPTS[name])


def test_files_are_small() -> None:
    assert max(len(text.splitlines()) for text in TEXTS.values()) < 350
    assert sum(len(text) for text in TEXTS.values()) < 120_000


# Colours


def colours() -> dict[str, tuple[str, str]]:
    """The colours of theme.css by name, light and dark."""
    pair = r"light-dark\((#\w{6}), (#\w{6})\)"
    return {
        name: (light, dark)
        for name, light, dark in re.findall(rf"--(\w[\w-]*): {pair}", TEXTS["theme.css"])
        if name != "drafter"
    } | {
        name: (light, dark)
        for name, light, dark in re.findall(
            rf'\[data-drafter="(.+)"\] {{ --drafter: {pair}', TEXTS["theme.css"]
        )
    }


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, as the WCAG define it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_can_be_read(theme: int) -> None:
    found = {name: pair[theme] for name, pair in colours().items()}
    for text in ("ink", "muted", "accent", "bad"):
        for ground in ("ground", "card"):
            assert contrast(found[text], found[ground]) >= 4.5, (text, ground)
    assert contrast(found["on-accent"], found["accent"]) >= 4.5
    assert contrast(found["edge"], found["ground"]) >= 3
    for drafter in (*_KNOWN, "other-1", "other-2"):
        assert contrast(found[drafter], found["ground"]) >= 3, drafter


def test_drafters_have_the_hues_of_the_terminal() -> None:
    found = colours()
    assert {name: HUES[hue] for name, hue in _KNOWN.items()} == {
        name: found[name] for name in _KNOWN
    }
    listed = re.search(r"COLOURED = \[(.+)\]", SCRIPTS["drafted.js"])
    assert listed is not None and set(re.findall(r'"(.+?)"', listed[1])) == set(_KNOWN)


def test_colours_are_those_of_the_report() -> None:
    style = pytest.importorskip("edge_conflayers.bench.page.style")
    found = colours()
    for name in (*_KNOWN, "other-1", "other-2"):
        light, dark = found[name]
        assert style._METHODS[light] == dark
    for name, light in (("ink", style.INK), ("muted", style.MUTED), ("line", style.GRID)):
        assert found[name] == (light, style._DARK[light])
