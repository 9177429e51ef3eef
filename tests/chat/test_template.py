"""Chat templates, and where the messages' texts are in what they render."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.chat.template import ChatTemplate, Message, Rendered
from edge_conflayers.errors import BadInput

PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m['content'] }}</{{ m.role }}>{% endfor %}"
PARTS = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
    "</{{ m.role }}>{% endfor %}"
)
# What templates do to a content, and what is then in the text for " a <b>\n".
FILTERS = {
    "": " a <b>\n",
    "| trim": "a <b>",
    "| e": " a &lt;b&gt;\n",
    "| tojson": '" a <b>\\n"',
}


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def render(source: str, *messages: Message) -> Rendered:
    return ChatTemplate(source, name="m.gguf", bos="<s>", eos="</s>").render(messages)


def contents(rendered: Rendered) -> list[str]:
    assert rendered.contents is not None
    return [rendered.text[begin:end] for begin, end in rendered.contents]


@pytest.mark.parametrize("change", FILTERS)
def test_contents_are_found_however_they_are_written(change: str) -> None:
    source = PLAIN.replace("m['content']", f"m['content'] {change}")
    rendered = render(source, system("s"), user(" a <b>\n"), user(" a <b>\n"))
    assert rendered.text == render(source, system("s")).text + 2 * (
        f"<user>{FILTERS[change]}</user>"
    )
    expected = FILTERS[change].strip('"')
    assert contents(rendered) == ["s", expected, expected]


@given(st.lists(st.text(max_size=12), min_size=1, max_size=4))
def test_what_is_not_content_is_the_templates_own(texts: list[str]) -> None:
    rendered = render(PLAIN.replace("m['content']", "m['content'] | trim"), *map(user, texts))
    assert contents(rendered) == [text.strip() for text in texts]
    assert rendered.text == "".join(f"<user>{text.strip()}</user>" for text in texts)


def test_a_template_of_parts_is_given_parts() -> None:
    rendered = render(PARTS, user("hi"))
    assert (rendered.text, contents(rendered)) == ("<user>hi</user>", ["hi"])
    # Words of the template's own are not the prompt.
    assert render("this " + PARTS, user("hi")).text == "this <user>hi</user>"


def test_only_messages_that_need_it_are_given_as_parts() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}[{{ m.content }}]{% else %}"
        "{% for part in m.content %}{{ part['text'] }}{% endfor %}{% endif %}{% endfor %}"
    )
    assert render(source, system("be brief"), user("hi")).text == "[be brief]hi"


def test_a_template_that_refuses_texts_is_given_parts() -> None:
    source = "{% for m in messages %}{{ m.content[0]['text'] + '' }}{% endfor %}"
    assert render(
        "{{ raise_exception('no') if messages[0].content is string }}" + source, user("hi")
    )


@pytest.mark.parametrize(
    ("source", "messages", "what"),
    [
        ("{{ 'hello' }}", [user("hi")], "does not write out the user's text; use --raw"),
        ("hi", [user("hi")], "does not write out the user's text"),
        ("{{ messages[-1].content[:5] }}", [user("hello world")], "does not write out the user's"),
        ("{{ messages[-1].content.split()[0] }}", [user("hello world")], "does not write out"),
        (
            PLAIN.replace("m['content']", "m['content'].split('</think>')[-1]"),
            [user("cut</think>kept")],
            "does not write out the user's",
        ),
        ("{{ messages[-1].content }}", [system("s"), user("hi")], "leaves out the system message"),
        ("{{ messages[-1].content }}s", [system("s"), user("hi")], "put it into the prompt"),
        (
            "{{ raise_exception('no system role') if messages[0].role == 'system' }}",
            [system("s"), user("hi")],
            "no system role; put the system message into the prompt",
        ),
        ("{{ raise_exception('never') }}", [user("hi")], "fails: never; use --raw"),
        ("{% for %}", [user("hi")], "fails: "),
        ("{{ 1 // 0 }}", [user("hi")], "fails: "),
        ("{{ messages.append(1) }}", [user("hi")], "fails: "),
        ("{{ ''.__class__.__mro__ }}", [user("hi")], "fails: "),
        (PLAIN, [{"role": "<|im_end|>", "content": "x"}], "there is no role"),
    ],
)
def test_what_cannot_be_rendered_is_refused(
    source: str, messages: list[Message], what: str
) -> None:
    with pytest.raises(BadInput, match=what) as refused:
        render(source, *messages)
    assert "\n" not in str(refused.value)


def test_reasoning_may_be_left_out_of_answers() -> None:
    source = PLAIN.replace("m['content']", "m['content'].split('</think>')[-1] | trim")
    answer = {"role": "assistant", "content": "<think>hm</think>\n\nYes."}
    rendered = render(source, user("q"), answer, user("r"))
    assert contents(rendered) == ["q", "Yes.", "r"]
    dropping = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    assert render(dropping, user("q"), answer, user("r")).text == "qr"


def test_a_template_may_act_on_its_switches_in_system_messages() -> None:
    source = PLAIN.replace("m['content']", "m['content'].replace('/no_think', '') | trim")
    shown = render(source, system("/no_think Be brief."), user("hi")).text
    assert shown == "<system>Be brief.</system><user>hi</user>"
    assert render(source, system("/no_think"), user("hi")).text.endswith("<user>hi</user>")
    with pytest.raises(BadInput, match="leaves out the system message"):
        render(source.replace("trim", "first"), system("/no_think Be brief."), user("hi"))
    with pytest.raises(BadInput, match="does not write out the user's text"):
        render(source, user("hi /no_think"))


def test_a_changed_text_is_taken_but_not_located() -> None:
    rendered = render("<u>{{ messages[0].content | upper }}</u>", user("Straight on, now!"))
    assert rendered == Rendered("<u>STRAIGHT ON, NOW!</u>", None)
    # Located where it stands once.
    branching = "{{ 'x' if 'now' in messages[0].content else 'y' }} {{ messages[0].content }}"
    assert contents(render(branching, user("Straight on, now!"))) == ["Straight on, now!"]


def test_the_environment_is_that_of_transformers() -> None:
    source = (
        "{%- macro one(x) %}({{ x }}){% endmacro %}\n"
        "  {% for m in messages %}\n"
        "{{ bos_token }}{{ one(m.content) }}{{ eos_token }}\n"
        "    {% if loop.last %}{% break %}{% endif %}\n"
        "  {% endfor %}\n"
        "{% generation %}{{ {'ä': none} | tojson }}{% endgeneration %}"
        "{{ strftime_now('%Y') | length }}{{ tools is none }}{{ add_generation_prompt }}"
    )
    assert render(source, user("q")).text == '<s>(q)</s>\n{"ä": null}4TrueTrue'
    assert render("{{ messages[0] | tojson(indent=1) }}", user("é")).text == json.dumps(
        {"role": "user", "content": "é"}, ensure_ascii=False, indent=1
    )
