"""Messages to tokens by a model's chat template.

Special tokens are parsed in the template's own text only: "<|im_end|>" in a message is text, not
the end of a turn. Messages without such names get the tokens of the whole rendered text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge_conflayers.chat.builtin import builtin_template
from edge_conflayers.chat.messages import Message as Message
from edge_conflayers.chat.messages import normalized, other_texts
from edge_conflayers.chat.options import JINJA_SIGNS
from edge_conflayers.chat.options import TemplateOptions as TemplateOptions
from edge_conflayers.chat.template import MARK, ChatTemplate, Rendered
from edge_conflayers.engine.special_tokens import SpecialTokens
from edge_conflayers.engine.vocabulary import Vocabulary
from edge_conflayers.errors import BadInput

_Span = tuple[int, int]


def prompt_tokens(
    model: Vocabulary,
    text: str | None,
    *,
    messages: Sequence[Message] = (),
    system: str | None = None,
    raw: bool = False,
    parse_special: bool = False,
    options: TemplateOptions | None = None,
) -> list[int]:
    """Tokens of a prompt, in the model's chat template unless ``raw`` or it has none.

    Args:
        text: the last turn; None where ``messages`` are all.
        messages: turns before it.
        system: message that goes before all of them in the template.
        options: which template, and what it is given.
        parse_special: names of special tokens in a raw prompt stand for these, as for
            fill-in-the-middle.

    Raises:
        BadInput: the prompt is empty, the options do not go together, or as ``chat_tokens`` raises.
    """
    options = options or TemplateOptions()
    needed = bool(messages) or options.given
    if raw and needed:
        what = "--messages" if messages else "--chat-template or --template-kwargs"
        raise BadInput(f"--raw leaves out the chat template that {what} is for; leave one out")
    templated = not raw and (needed or model.chat_template is not None)
    if system is not None and not templated:
        why = "with --raw" if raw else f"{model.path} has no chat template, so that"
        raise BadInput(f"{why} a system message has no place of its own; put it into the prompt")
    if parse_special and templated:
        raise BadInput("special tokens are parsed in raw prompts only; add --raw")
    if templated:
        if system is not None and messages and messages[0]["role"] == "system":
            raise BadInput("the messages begin with a system message; leave out --system")
        before = [] if system is None else [{"role": "system", "content": system}]
        last = [] if text is None else [{"role": "user", "content": text}]
        return chat_tokens(model, [*before, *messages, *last], options)
    text = text or ""
    if parse_special:
        tokens = model.tokenize(text, add_special=False, parse_special=True)
        tokens = _with_one_bos(SpecialTokens(model), tokens)
    else:
        tokens = model.tokenize(text)
    if not tokens:
        raise BadInput("the prompt is empty; give at least one character")
    return tokens


def chat_tokens(
    model: Vocabulary, messages: Sequence[Message], options: TemplateOptions | None = None
) -> list[int]:
    """Tokens of a conversation, up to where the next answer starts; where the last message is an
    assistant's, up to its end, so that this answer goes on.

    Args:
        messages: as OpenAI's API has them.
        options: which template, and what it is given.

    Raises:
        BadInput: there is no template, it fails or leaves a message out, or a message names a
            special token where that cannot be kept apart from the template's own.
    """
    options = options or TemplateOptions()
    messages = normalized(messages)
    special = SpecialTokens(model)
    _check_texts_besides(model, special, messages, options)
    rendered = _template(model, special, options).render(messages)
    if messages[-1]["role"] == "assistant":
        rendered = _ending_in_answer(rendered)
    return _with_one_bos(special, _tokens(model, special, rendered, messages))


def _check_texts_besides(
    model: Vocabulary,
    special: SpecialTokens,
    messages: Sequence[Message],
    options: TemplateOptions,
) -> None:
    """Refuses special tokens in tools, and in what messages hold beside their contents, which
    cannot be told from the template's own text."""
    besides = [
        value
        for message in messages
        for key, value in message.items()
        if key not in ("role", "content")
    ]
    for text in other_texts([*besides, *(options.tools or ())]):
        if _control(special, _parsed(model, text)):
            raise BadInput(
                f"the tools or a message's other fields hold {text[:100]!r}, which names a special"
                f" token of {model.path}; take the name out"
            )


def _ending_in_answer(rendered: Rendered) -> Rendered:
    if rendered.contents is None:
        raise BadInput(
            "the chat template changes the last message, so that this answer cannot be gone on"
            " with; end with a user's message"
        )
    return Rendered(rendered.text[: rendered.contents[-1][1]], rendered.contents)


def _template(model: Vocabulary, special: SpecialTokens, options: TemplateOptions) -> ChatTemplate:
    source = options.template if options.template is not None else model.chat_template
    if source is None:
        raise BadInput(
            f"{model.path} has no chat template; give one (--chat-template), or use --raw to give"
            " the prompt as it is"
        )
    if options.template is not None and not any(sign in source for sign in JINJA_SIGNS):
        return builtin_template(source, options)
    return ChatTemplate(
        source,
        name=str(model.path) if options.template is None else "--chat-template",
        bos=special.name(special.bos),
        eos=special.name(special.eos),
        options=options,
    )


def _tokens(
    model: Vocabulary, special: SpecialTokens, rendered: Rendered, messages: Sequence[Message]
) -> list[int]:
    text, contents = rendered.text, rendered.contents
    tokens = model.tokenize(text, add_special=False, parse_special=True)
    if contents is None:
        for message in messages:
            if _control(special, _parsed(model, message["content"])):
                raise BadInput(
                    f"the prompt names a special token of {model.path}, whose chat template"
                    " changes the prompt; take the name out of it, or use --raw"
                )
        return tokens
    own_text = "".join(MARK if own is None else own for own in _own_parts(text, contents))
    own_tokens = _parsed(model, own_text)
    # Those that the vocabulary falsely calls a user's: llama.cpp parses them everywhere.
    for name in {special.name(token) for token in own_tokens if special.is_user_defined(token)}:
        if name.strip() and any(name in text[begin:end] for begin, end in contents):
            raise BadInput(
                f"the prompt holds {name!r}, which has a meaning in the chat template of"
                f" {model.path}; take it out"
            )
    if _control(special, tokens) == _control(special, own_tokens):
        return tokens
    return _tokens_apart(model, special, text, contents)


def _parsed(model: Vocabulary, text: str) -> list[int]:
    return model.tokenize(text, add_special=False, parse_special=True)


def _control(special: SpecialTokens, tokens: Iterable[int]) -> list[int]:
    return [token for token in tokens if special.is_control(token)]


def _own_parts(text: str, contents: Sequence[_Span]) -> list[str | None]:
    """The template's own parts of a text, with None for each content between them."""
    parts: list[str | None] = []
    at = 0
    for begin, end in contents:
        parts += [text[at:begin], None]
        at = end
    return [*parts, text[at:]]


def _tokens_apart(
    model: Vocabulary, special: SpecialTokens, text: str, contents: Sequence[_Span]
) -> list[int]:
    """Tokens of a text in which special tokens are parsed outside of ``contents`` only.

    As llama.cpp's tokenizer does, the text is cut at special tokens, longer names first, and what
    is between them is tokenized piece by piece.
    """
    hidden = list(text)
    for begin, end in contents:
        hidden[begin:end] = [MARK] * (end - begin)
    own_text = "".join(hidden)
    pieces: list[_Span | int] = [(0, len(text))]
    for each in sorted(special.control(), key=lambda each: -len(each.name.encode())):
        if each.name not in own_text:
            continue
        cut: list[_Span | int] = []
        for piece in pieces:
            if isinstance(piece, int):
                cut.append(piece)
                continue
            at, last = piece
            while (found := own_text.find(each.name, at, last)) >= 0:
                begin, end = each.extended(own_text[:last], found, found + len(each.name))
                cut += [(at, max(at, begin)), each.token]
                at = end
            cut.append((at, last))
        pieces = cut
    tokens: list[int] = []
    for piece in pieces:
        if isinstance(piece, int):
            tokens.append(piece)
        elif piece[0] < piece[1]:
            tokens += model.tokenize(text[slice(*piece)], add_special=False)
    return tokens


def _with_one_bos(special: SpecialTokens, tokens: list[int]) -> list[int]:
    """Tokens with one BOS token in front, if template, text or vocabulary ask for any."""
    if special.bos is None:
        return tokens
    first = next((i for i, token in enumerate(tokens) if token != special.bos), len(tokens))
    wanted = first > 0 or special.adds_bos
    return [*([special.bos] if wanted else []), *tokens[first:]]
