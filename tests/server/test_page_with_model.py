"""The page in headless Chromium, with a model that writes sense."""

from __future__ import annotations

import re

import httpx2
import pytest
from browsing import BEING_WRITTEN, Visiting, joined, metric
from served import Server

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="pages are tried in a browser with `pip install '.[browser]'`"
)
expect = sync_api.expect
STORY = "Write a long story about a lighthouse keeper and his dog."
SKY = "Explain in three sentences why the sky is blue."
COUNT = "Count to five: one, two, three, four, five. Again: one, two, three, four, five. Again:"


@pytest.mark.model
def test_a_conversation(real_server: Server, visiting: Visiting) -> None:
    visit = visiting(real_server)
    expect(visit.at("#model-name")).to_have_text("smollm2-135m")
    expect(visit.at("#model")).to_be_hidden()
    visit.send(SKY)
    lengths = set()
    while BEING_WRITTEN.search(visit.at(".turn").get_attribute("class")):
        lengths.add(len(visit.at(".text").text_content()))
    assert len(lengths) > 3, "it streams"
    visit.until_written()
    first = visit.answer
    body = {key: value for key, value in visit.asked[0].items() if key != "stream"}
    assert body == {"model": "smollm2-135m", "messages": [{"role": "user", "content": SKY}]}
    whole = httpx2.post(f"{real_server.url}/v1/chat/completions", json=body, timeout=120).json()
    assert first["text"] == whole["choices"][0]["message"]["content"] == joined(first["runs"])
    assert first["told"]["tokens"] == whole["usage"]["completion_tokens"]
    expect(visit.at(".figures")).to_contain_text(f"{first['told']['tokens']} tokens")

    visit.send("Thank you.")
    visit.until_written(2)
    roles = [each["role"] for each in visit.asked[1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert visit.asked[1]["messages"][1]["content"] == first["text"]

    visit.at("[aria-label='Answer again']").last.click()
    visit.until_written(2)
    assert visit.asked[2] == visit.asked[1]
    visit.at("[aria-label='Edit your message']").last.click()
    expect(visit.at("#prompt")).to_have_value("Thank you.")
    visit.send("Once more, please.")
    visit.until_written(2)
    assert visit.asked[3]["messages"][2]["content"] == "Once more, please."
    assert [each["question"] for each in visit.turns] == [SKY, "Once more, please."]


@pytest.mark.model
def test_an_answer_is_stopped_here_and_there(real_server: Server, visiting: Visiting) -> None:
    stopped = "edge_conflayers_stopped_texts_total"
    before = metric(httpx2.get(f"{real_server.url}/metrics").text, stopped)
    visit = visiting(real_server)
    visit.send(STORY)
    expect(visit.at(".text")).not_to_be_empty()
    expect(visit.at("#send")).to_be_hidden()
    visit.at("#stop").click()
    expect(visit.at(".note")).to_have_text("Stopped.")
    expect(visit.at("#send")).to_be_visible()
    kept = visit.answer
    assert kept["state"] == "stopped" and kept["text"] and kept["told"]["tokens"] > 0
    visit.page.wait_for_timeout(500)
    counts = httpx2.get(f"{real_server.url}/metrics").text
    assert metric(counts, stopped) == before + 1
    assert metric(counts, "edge_conflayers_texts_writing") == 0
    assert visit.answer == kept
    for leave in (lambda: visit.page.keyboard.press("Escape"), visit.page.reload):
        visit.send(STORY)
        expect(visit.at(".turn").last.locator(".text")).not_to_be_empty()
        leave()
        expect(visit.at(".note").last).to_have_text("Stopped.")
        assert visit.answer["text"]
    counts = httpx2.get(f"{real_server.url}/metrics").text
    assert metric(counts, stopped) == before + 3


@pytest.mark.model
def test_each_token_has_the_colour_of_who_drafted_it(
    real_server: Server, visiting: Visiting
) -> None:
    visit = visiting(real_server)
    visit.at("#colours").click()
    visit.send(COUNT)
    visit.until_written()
    visit.at("[aria-label='Answer again']").click()  # the same text, which is looked up by then
    visit.until_written()
    sources = visit.answer["told"]["sources"]
    assert "full" in sources and len(sources) > 1
    spans = visit.at(".drafted span")
    assert "".join(spans.all_text_contents()) == visit.answer["text"]
    drafters = {each.get_attribute("data-drafter") for each in spans.all()}
    assert drafters == {source for source, _ in visit.answer["runs"]}
    expect(visit.at(".drafted [data-drafter=full]").first).to_have_css(
        "background-color", "rgba(0, 0, 0, 0)"
    )
    other = next(each for each in sources if each != "full")
    drafted = visit.at(f".drafted [data-drafter={other}]").first
    expect(drafted).not_to_have_css("background-color", "rgba(0, 0, 0, 0)")
    entry = visit.at(".answer .legend button", has_text=other)
    expect(entry).to_contain_text(str(sources[other]))
    entry.click()
    expect(drafted).not_to_have_class(re.compile("faded"))
    expect(visit.at(".drafted [data-drafter=full]").first).to_have_class(re.compile("faded"))
    expect(visit.at(".answer .legend button[aria-pressed=true]")).to_be_focused()
    visit.page.reload()
    expect(visit.at(".drafted span").first).to_be_visible()
    visit.at("#colours").click()
    expect(visit.at(".drafted")).to_have_count(0)
    expect(visit.at(".text > :first-child").first).to_be_visible()


@pytest.mark.model
def test_the_speed_is_shown(real_server: Server, visiting: Visiting) -> None:
    visit = visiting(real_server, viewport={"width": 1280, "height": 800})
    expect(visit.at("#speed")).to_be_hidden()
    visit.send(STORY)
    expect(visit.at("#speed .rate")).to_have_text(re.compile(r"^\d+(\.\d)?$"))
    expect(visit.at("#speed dl")).to_contain_text("Tokens per round")
    expect(visit.at(".chart rect").nth(3)).to_be_attached()
    visit.at("#stop").click()
    expect(visit.at(".share .legend")).to_contain_text("full model")
    visit.send(COUNT)
    visit.until_written(2)
    told = visit.answer["told"]
    expect(visit.at("#speed .rate")).to_have_text(f"{told['rate']:.1f}")
    for name in ("Prompt read", "Context", "Method", "Seed"):
        expect(visit.at("#speed dl")).to_contain_text(name)
    assert sum(told["sources"].values()) == told["tokens"]
