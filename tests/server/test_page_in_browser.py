"""The page in headless Chromium, with answers that are made up for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browsing import BEING_WRITTEN, Visiting, made_up, refused
from served import Server, serving
from steps import TinyPath

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="pages are tried in a browser with `pip install '.[browser]'`"
)
expect = sync_api.expect


def test_settings_reach_the_request(tiny_server: Server, visiting: Visiting) -> None:
    visit = visiting(tiny_server)
    visit.answer_with(made_up("yes"))
    visit.at("#open-settings").click()
    given = {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "repeat_penalty": 1.1}
    given |= {"max_tokens": 50, "seed": 7}
    for name, value in given.items():
        visit.at(f"#settings [name={name}]").fill(str(value))
    visit.at("#settings [name=system]").fill("Be brief.")
    visit.at("#settings [name=stop]").fill("END\n\\n\\n")
    visit.at("#settings [name=top_p]").fill("3")
    visit.at("#settings .primary").click()
    expect(visit.at("#settings")).to_be_visible()  # 3 is out of range
    visit.at("#settings [name=top_p]").fill("0.9")
    visit.at("#settings .primary").click()
    expect(visit.at("#settings")).to_be_hidden()
    visit.page.reload()
    visit.send("hello")
    visit.until_written()
    asked = visit.asked[-1]
    assert {name: asked[name] for name in given} == given
    assert asked["stop"] == ["END", "\n\n"]
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]
    expect(visit.at("#open-settings")).to_have_attribute("aria-label", "Settings, 9 changed")
    visit.at("#open-settings").click()
    visit.at("#settings-reset").click()
    visit.page.keyboard.press("Escape")  # takes nothing over
    visit.at("#open-settings").click()
    expect(visit.at("#settings [name=seed]")).to_have_value("7")
    visit.at("#settings-reset").click()
    visit.at("#settings .primary").click()
    visit.send("hello")
    visit.until_written(2)
    assert visit.asked[-1].keys() == {"messages", "model", "stream"}


def test_the_conversation_is_kept_until_it_is_cleared(
    tiny_server: Server, visiting: Visiting
) -> None:
    visit = visiting(tiny_server)
    expect(visit.at("#welcome")).to_be_visible()
    visit.answer_with(made_up("first ", ("lookup", "answer")))
    visit.at(".suggestions button").first.click()
    visit.until_written()
    visit.page.reload()
    expect(visit.at(".text")).to_have_text("first answer")
    expect(visit.at("#welcome")).to_be_hidden()
    visit.at("#new").click()
    expect(visit.at(".turn")).to_have_count(0)
    assert visit.turns == []
    visit.at("#notice .plain").click()
    expect(visit.at(".text")).to_have_text("first answer")
    visit.at("#new").click()
    visit.page.reload()
    expect(visit.at("#welcome")).to_be_visible()


def test_a_text_that_looks_like_markup_stays_text(tiny_server: Server, visiting: Visiting) -> None:
    visit = visiting(tiny_server)
    evil = "<img src=x onerror=\"document.title='gone'\"><script>document.title='gone'</script>"
    text = (
        f"{evil}\n\n# {evil}\n\n- {evil}\n\n**{evil}** `{evil}`\n\n```{evil}\n{evil}\n```\n\n"
        f"> {evil}\n\n| {evil} |\n\n[click](javascript:alert(1)) "
        f"[{evil}](https://example.org/?\"'>)"
    )
    visit.answer_with(made_up(text))
    visit.send(evil)
    visit.until_written()
    for colours in (False, True):
        assert not visit.at(".turn :is(img, script, iframe)").count()
        assert visit.at(".text").text_content().count("onerror") >= 7
        addresses = [each.get_attribute("href") for each in visit.at(".text a").all()]
        assert addresses == ([] if colours else ["https://example.org/?\"'>"])
        visit.at("#colours").click()
    assert visit.at(".question").text_content() == evil
    assert visit.page.title() != "gone"


def test_answers_look_as_they_are_meant(tiny_server: Server, visiting: Visiting) -> None:
    visit = visiting(tiny_server, permissions=["clipboard-read", "clipboard-write"])
    code = "def f(x):\n    return x * 2 * x\n\n\nprint(f(1))"
    text = (
        "## Title\nSome **bold**, *slanted* and `code`, 2 * 3 * 4, snake_case_name.\n\n"
        f"1. one\n   - inner\n2. two\n\n> quoted\n\n```python\n{code}\n```\n---\n\n"
        "The [end](https://a.b/c)\n\n| a | b |\n|---|:-:|\n| 1 | **2** |\n\n| no table |"
    )
    visit.answer_with(made_up(*re.findall(r"(?s).{1,4}", text)))
    visit.send("Show me.")
    visit.until_written()
    for selector, content in {
        "h4": "Title",
        "p strong": "bold",
        "th:nth-child(2)": "b",
        "td:nth-child(2) strong": "2",
        "pre.table": "| no table |",
        "em": "slanted",
        "p code": "code",
        "ol > li > ul > li": "inner",
        "ol > li:nth-child(2)": "two",
        "blockquote": "quoted",
        "pre code": code,
        "a[href='https://a.b/c']": "end",
    }.items():
        found = visit.at(f".text {selector}")
        assert found.count() == 1 and found.text_content() == content, selector
    assert visit.at(".text hr").count() == 1
    assert "2 * 3 * 4, snake_case_name." in visit.at(".text p").first.text_content()
    for selector, content in ((".code button", code), (".below button:first-child", text)):
        visit.at(selector).click()
        expect(visit.at(selector)).to_have_attribute("aria-label", "Copied")
        assert visit.page.evaluate("() => navigator.clipboard.readText()") == content


@pytest.mark.parametrize("text", ["**" * 8000, "- " * 4000, "> " * 8000, "`" * 9000, "# " * 8000])
def test_an_odd_answer_does_not_hold_up_the_page(
    tiny_server: Server, visiting: Visiting, text: str
) -> None:
    visit = visiting(tiny_server)
    visit.answer_with(made_up(text, "\n", text, "_[(" * 5000))
    visit.send("Go on.")
    expect(visit.at(".turn").last).not_to_have_class(BEING_WRITTEN, timeout=5000)


@pytest.mark.parametrize(
    ("respond", "said", "button"),
    [
        (refused(429, "32 texts wait; ask again later"), "busy. 32 texts wait", "Try again"),
        (refused(503, "the server ends; ask again once it is back"), "not there", "Try again"),
        (refused(500, "the server failed; its log says why"), "server failed", "Try again"),
        (refused(400, "seed is 2.5; it is a whole number"), "Seed is 2.5", None),
        (refused(401, "the API key is missing"), "wants an API key", "Enter the key"),
        (refused(400, "too long", "context_length_exceeded"), "does not fit. Too long.", None),
        (lambda route: route.abort("connectionreset"), "connection to the server was lost", "Try"),
        (
            lambda route: route.fulfill(content_type="text/event-stream", body="data: {"),
            "connection to the server was lost",
            "Try again",
        ),
    ],
)
def test_what_goes_wrong_is_said_in_a_line(
    tiny_server: Server, visiting: Visiting, respond: Any, said: str, button: str | None
) -> None:
    visit = visiting(tiny_server)
    visit.answer_with(respond)
    visit.send("hello")
    expect(visit.at(".note.failure")).to_contain_text(said)
    buttons = visit.at(".note.failure button")
    if button is None:
        expect(buttons).to_have_count(0)
    else:
        expect(buttons).to_contain_text(button)
    visit.answer_with(made_up("well"))
    if button and button.startswith("Try"):
        buttons.click()
        visit.until_written()
        expect(visit.at(".text")).to_have_text("well")
        expect(visit.at(".note")).to_be_hidden()
    else:
        visit.page.keyboard.press("Escape")
        visit.send("again")
        visit.until_written(2)
        assert [each["content"] for each in visit.asked[-1]["messages"]] == ["again"]


def test_what_does_not_fit_is_said(tiny_server: Server, visiting: Visiting) -> None:
    visit = visiting(tiny_server)
    visit.send("word " * 2000)
    expect(visit.at(".note.failure")).to_contain_text("but the context holds 512")
    visit.page.reload()
    visit.answer_with(made_up("cut ", "off", reason="length", predicted_n=503))
    visit.send("short")
    expect(visit.at(".note").last).to_contain_text("The context is full: 512 tokens.")
    visit.answer_with(made_up("cut ", "off", reason="length"))
    visit.send("short")
    expect(visit.at(".note").last).to_have_text(
        "Cut off after 2 tokens, the most that this server writes."
    )


def test_a_server_that_wants_a_key_is_given_one(
    tiny_path: TinyPath, tmp_path: Path, visiting: Visiting
) -> None:
    model = tiny_path("llama", n_layer=4, layer_gain=0.2)
    with serving(tmp_path, model, "-t", 1, "-n", 8, "--api-key", "secret") as server:
        visit = visiting(server)
        expect(visit.at("#notice")).to_contain_text("wants an API key")
        visit.send("hello")
        visit.at(".note.failure button").click()
        expect(visit.at("#settings [name=key]")).to_be_focused()
        visit.at("#settings [name=key]").fill("wrong")
        visit.page.keyboard.press("Enter")
        expect(visit.at(".note.failure")).to_be_visible()
        visit.at("#notice .plain").click()
        visit.at("#settings [name=key]").fill("secret")
        visit.page.keyboard.press("Enter")
        visit.until_written()
        expect(visit.at(".note.failure")).to_be_hidden()
        expect(visit.at("#notice")).to_be_hidden()
        expect(visit.at("#model-name")).to_have_text(model.stem)
        assert visit.page.evaluate("() => JSON.stringify(localStorage)").count("secret") == 0
        visit.page.reload()
        expect(visit.at("#model-name")).to_have_text(model.stem)
        visit.at("#open-settings").click()
        visit.at("#settings [name=remember]").check()
        visit.at("#settings .primary").click()
        assert visit.page.evaluate("() => JSON.stringify(localStorage)").count("secret") == 1
        assert visit.page.evaluate("() => JSON.stringify(sessionStorage)").count("secret") == 0


def test_of_several_models_one_is_chosen(tiny_server: Server, visiting: Visiting) -> None:
    visit = visiting(tiny_server)
    served = {"data": [{"id": name, "meta": {"n_ctx": 99}} for name in ("one", "two")]}
    visit.page.route("**/v1/models", lambda route: route.fulfill(json=served))
    visit.answer_with(made_up("yes"))
    for _ in range(2):  # it is remembered
        visit.page.reload()
        expect(visit.at("#model option")).to_have_count(2)
        expect(visit.at("#model-name")).to_be_hidden()
        if not visit.asked:
            visit.at("#model").select_option("two")
        visit.send("hello")
        visit.at("#new").click()
    assert [each["model"] for each in visit.asked] == ["two", "two"]


def test_keys_do_what_buttons_do(tiny_server: Server, visiting: Visiting) -> None:
    visit = visiting(tiny_server)
    visit.answer_with(made_up("yes"))
    keyboard = visit.page.keyboard
    expect(visit.at("#prompt")).to_be_focused()
    expect(visit.at("#send")).to_be_disabled()
    keyboard.type("one")
    keyboard.press("Shift+Enter")
    keyboard.type("two")
    expect(visit.at("#prompt")).to_have_value("one\ntwo")
    keyboard.press("Enter")
    visit.until_written()
    assert visit.asked[0]["messages"][0]["content"] == "one\ntwo"
    seen = set()
    for _ in range(30):
        keyboard.press("Tab")
        focused = visit.page.evaluate(
            "() => { const at = document.activeElement;"
            " return [at.getAttribute('aria-label') ?? at.id ?? at.tagName,"
            " getComputedStyle(at).outlineStyle]; }"
        )
        seen.add(focused[0])
        assert focused[0] != "Settings" or focused[1] == "solid"
    named = ("Show who drafted each token", "Light or dark", "Settings", "New chat")
    assert {*named, "Copy the answer", "Answer again", "Edit your message", "prompt"} <= seen
    visit.at("[aria-label='Edit your message']").press("Enter")
    expect(visit.at("#editing")).to_be_visible()
    keyboard.press("Escape")
    expect(visit.at("#editing")).to_be_hidden()
    expect(visit.at("#prompt")).to_have_value("")
    visit.at("#open-settings").press("Enter")
    expect(visit.at("#settings")).to_be_visible()
    keyboard.press("Escape")
    expect(visit.at("#settings")).to_be_hidden()
    expect(visit.at("#open-settings")).to_be_focused()


def test_events_are_read_however_they_are_cut(tiny_server: Server, visiting: Visiting) -> None:
    visit = visiting(tiny_server)
    found = visit.page.evaluate(
        """async () => {
            const { events } = await import("/page/api.js");
            const begin = 'data: {"a": "é€😀"}\\n\\n: note\\n\\n';
            const text = begin + 'data: 2\\r\\n\\r\\ndata: [DONE]\\n\\n';
            const bytes = new TextEncoder().encode(text);
            const cut = (size) => new ReadableStream({
                start(controller) {
                    for (let i = 0; i < bytes.length; i += size) {
                        controller.enqueue(bytes.slice(i, i + size));
                    }
                    controller.close();
                },
            });
            const results = [];
            for (const size of [1, 2, 3, 7, 1000]) {
                const read = [];
                for await (const data of events(cut(size))) read.push(data);
                results.push(read);
            }
            return results;
        }"""
    )
    assert found == [['{"a": "é€😀"}', "2", "[DONE]"]] * 5


def test_long_answers_keep_the_chart_small(tiny_server: Server, visiting: Visiting) -> None:
    visit = visiting(tiny_server)
    found = visit.page.evaluate(
        """async () => {
            const { Bars } = await import("/page/progress.js");
            const bars = new Bars();
            for (let i = 0; i < 20000; i++) bars.add(i / 40, i % 3 ? "full" : "lookup");
            return [bars.width, bars.bars];
        }"""
    )
    width, bars = found
    assert width == 16 and 24 <= len(bars) <= 48
    assert sum(bar["full"] + bar["lookup"] for bar in bars) == 20000
    assert bars[0] == {"full": 426, "lookup": 214}
