"""The commands of a conversation, which begin with a slash."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_conflayers.cli.chat.typed import unquoted
from edge_conflayers.errors import BadInput

if TYPE_CHECKING:
    from edge_conflayers.cli.chat.loop import Chat


@dataclass(frozen=True)
class Command:
    """What a command is given, what it does in a few words, and the function that does it."""

    given: str
    help: str
    run: Callable[[Chat, str], None]


def run_command(chat: Chat, line: str) -> None:
    """Runs a command.

    Args:
        line: its name with the slash, and what it is given.

    Raises:
        EdgeConflayersError: it cannot be done; nothing has changed.
    """
    name, _, given = line.strip().removeprefix("/").partition(" ")
    name, newline, more = name.partition("\n")
    command = COMMANDS.get(_OTHER_NAMES.get(name, name))
    if command is None:
        found = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean /{found[0]}? " if found else ""
        raise BadInput(
            f"there is no command /{name}; {meant}/help lists them, and a message that begins with"
            ' / goes between """'
        )
    given = unquoted(newline + more + given)
    if given and not command.given:
        raise BadInput(f"/{name} is given nothing; leave out {given!r}")
    command.run(chat, given)


def _system(chat: Chat, given: str) -> None:
    if not given:
        system = chat.conversation.system
        _say("there is no system message" if system is None else system)
    else:
        chat.conversation.set_system(None if given == "none" else given)


def _undo(chat: Chat, given: str) -> None:
    text = chat.conversation.undo()
    chat.attempt = 0
    chat.reader.prefer(text)
    chat.note(f"took back: {' '.join(text.split())[:60]}")


def _retry(chat: Chat, given: str) -> None:
    is_another = not chat.conversation.is_unanswered
    chat.conversation.unanswer()
    chat.attempt += is_another
    if is_another and chat.settings.sampling().temperature == 0:
        chat.note("at temperature 0 the answer is the same; `/set temp 0.8` gives others")
    chat.answer()


def _clear(chat: Chat, given: str) -> None:
    system = chat.conversation.system
    chat.begin([] if system is None else [{"role": "system", "content": system}])


def _save(chat: Chat, given: str) -> None:
    from edge_conflayers.cli.json_file import check_writable, write_json

    if not given:
        raise BadInput("/save needs the name of a file")
    path = Path(given).expanduser()
    if path.exists() and path.resolve() not in chat.saved:
        raise BadInput(f"{path} is there already; give another name")
    check_writable(path)
    write_json(path, {"messages": list(chat.conversation.messages)})
    chat.saved.add(path.resolve())
    chat.note(f"saved in {path}; /load and `run --messages` read it")


def _load(chat: Chat, given: str) -> None:
    from edge_conflayers.chat.messages import read_messages
    from edge_conflayers.cli.streams import read_text

    if not given:
        raise BadInput("/load needs the name of a file")
    path = Path(given).expanduser()
    chat.begin(read_messages(read_text(path, "conversation"), f"the conversation {path}"))


def _stats(chat: Chat, given: str) -> None:
    if given in ("on", "off"):
        chat.shows_stats = given == "on"
    elif given:
        raise BadInput(f"/stats is given on, off or nothing, not {given!r}")
    elif chat.stats is None:
        raise BadInput("there is no answer yet to tell of")
    else:
        chat.show_stats()
        used = chat.stats.prompt_tokens + chat.stats.tokens
        _say(f"context: {used} of {chat.n_ctx} tokens")
        if chat.teacher is not None:
            _say(f"learned in idle time: {chat.teacher.progress}")


def _method(chat: Chat, given: str) -> None:
    if not given:
        _say(chat.method)
    else:
        chat.use_method(given)


def _set(chat: Chat, given: str) -> None:
    name, _, value = given.partition(" ")
    if not name:
        _say("\n".join(chat.settings.all_shown()))
    elif not value:
        _say(chat.settings.shown(name))
    else:
        chat.note(chat.settings.set(name, unquoted(value)))


def _help(chat: Chat, given: str) -> None:
    usages = {f"/{name} {each.given}".rstrip(): each.help for name, each in COMMANDS.items()}
    width = max(map(len, usages))
    lines = [f"{usage:{width}}  {help}" for usage, help in usages.items()]
    _say("\n".join([*lines, "", *_KEYS]))


def _exit(chat: Chat, given: str) -> None:
    chat.is_over = True


def _say(text: str) -> None:
    click.echo(text, err=True)


COMMANDS = {
    "system": Command(
        "[TEXT]", "set the system message, or show it; `none` takes it away", _system
    ),
    "undo": Command("", "take back the last message and its answer", _undo),
    "retry": Command("", "answer the last message again, with the next seed", _retry),
    "clear": Command("", "begin anew; the system message stays", _clear),
    "save": Command("FILE", "save the conversation, as JSON", _save),
    "load": Command("FILE", "go on with a conversation saved before", _load),
    "stats": Command("[on|off]", "tokens per second and more: of the last answer, or each", _stats),
    "method": Command("[NAME]", "show how answers are decoded, or change it", _method),
    "set": Command(
        "[NAME [VALUE]]",
        "show settings, or change one: options such as temp, stop, json-schema",
        _set,
    ),
    "help": Command("", "this list", _help),
    "exit": Command("", "end; so does Ctrl-D", _exit),
}
_OTHER_NAMES = {"quit": "exit", "bye": "exit", "?": "help"}
_KEYS = (
    'Alt-Enter begins a new line; a message between """ and """ may have many.',
    "Ctrl-C stops an answer; twice at an empty prompt it ends the conversation.",
)
