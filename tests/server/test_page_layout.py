"""How the page looks and moves, in headless Chromium."""

from __future__ import annotations

import re

import pytest
from browsing import Visiting, made_up, refused
from served import Server

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="pages are tried in a browser with `pip install '.[browser]'`"
)
expect = sync_api.expect


def test_light_and_dark(tiny_server: Server, visiting: Visiting) -> None:
    light, dark = "rgb(255, 255, 255)", "rgb(13, 17, 23)"
    visit = visiting(tiny_server, color_scheme="dark")
    body = visit.at("body")
    expect(body).to_have_css("background-color", dark)
    visit.at("#theme").click()
    expect(body).to_have_css("background-color", light)
    visit.page.reload()
    expect(body).to_have_css("background-color", light)
    visit.page.emulate_media(color_scheme="light")
    expect(body).to_have_css("background-color", light)
    visit.at("#theme").click()
    expect(body).to_have_css("background-color", dark)
    visit.at("#theme").click()  # as the system has it: from now on it follows the system again
    visit.page.emulate_media(color_scheme="dark")
    expect(body).to_have_css("background-color", dark)


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_nothing_is_wider_than_the_window(
    tiny_server: Server, visiting: Visiting, width: int
) -> None:
    visit = visiting(tiny_server, viewport={"width": width, "height": 667}, has_touch=width < 500)
    assert visit.overflow() == []
    long = "x" * 300
    told = {"predicted_n": 4000, "prompt_n": 10000, "cache_n": 2000, "predicted_per_second": 1234.5}
    drafters = ("full", "lookup", "recycling", "next-state", "layers")
    pieces = [(name, f"{name} ") for name in drafters]
    text = f"{long} `{long}`\n\n```\n{long}\n```\n\n| {long} | {long} |\n| --- | --- |\n\n"
    answer = made_up(text, *pieces * 9, **told)
    visit.answer_with(answer)
    visit.send(f"{long} https://example.org/{long}")
    visit.until_written()
    for _ in range(2):
        assert visit.overflow() == []
        visit.at("#colours").click()
    if width < 1088:
        visit.at("#speed summary").click()
    expect(visit.at("#speed dl")).to_be_visible()
    assert visit.overflow() == []
    visit.at("#prompt").fill("line\n" * 60)
    assert visit.overflow() == []
    box = visit.at("#composer").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert 300 < box["y"] + box["height"] <= 667
    visit.at("#open-settings").click()
    assert visit.overflow() == []
    visit.page.keyboard.press("Escape")
    visit.answer_with(refused(429, f"{long} texts wait already; ask again later"))
    visit.send("again")
    expect(visit.at(".note.failure")).to_be_visible()
    assert visit.overflow() == []


def test_the_view_follows_unless_it_was_moved(tiny_server: Server, visiting: Visiting) -> None:
    visit = visiting(tiny_server, viewport={"width": 375, "height": 500})
    visit.answer_with(made_up("line\n\n" * 80))
    visit.send("Write.")
    visit.until_written()
    talk = visit.at("#talk")
    rest = "each => each.scrollHeight - each.scrollTop - each.clientHeight"
    assert talk.evaluate(rest) < 2
    expect(visit.at("#to-end")).to_be_hidden()
    talk.evaluate("each => each.scrollTop = 0")
    expect(visit.at("#to-end")).to_be_visible()
    visit.at("#to-end").click()
    assert talk.evaluate(rest) < 2


def test_screen_readers_hear_sentences_and_not_tokens(
    tiny_server: Server, visiting: Visiting
) -> None:
    visit = visiting(tiny_server)
    words = "This is a sentence of the answer. " * 20
    visit.answer_with(made_up(*re.findall(r"\S+ ", words)))
    visit.send("Tell me.")
    visit.until_written()
    said = visit.at("#spoken p")
    expect(said.first).to_be_attached()
    assert "".join(said.all_text_contents()) == words and said.count() < 10
    assert visit.at("#spoken").get_attribute("aria-live") == "polite"


def test_nothing_moves_for_those_who_want_that(tiny_server: Server, visiting: Visiting) -> None:
    for reduced in ("no-preference", "reduce"):
        visit = visiting(tiny_server, reduced_motion=reduced)
        visit.answer_with(lambda route: None)  # never
        visit.send("hello")
        name = "none" if reduced == "reduce" else "breathe"
        expect(visit.at(".waiting")).to_have_css("animation-name", name)
        visit.page.reload()
        expect(visit.at(".note")).to_have_text("Stopped.")
