"""A conversation as it goes: messages, answers and commands, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_conflayers.chat import Message, TemplateOptions
from edge_conflayers.cli.chat.commands import run_command
from edge_conflayers.cli.chat.interrupts import noted
from edge_conflayers.cli.chat.reading import Reader
from edge_conflayers.cli.chat.settings import Settings
from edge_conflayers.cli.chat.typed import unquoted
from edge_conflayers.cli.failures import INTERRUPTED
from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.sources import SourceColours
from edge_conflayers.cli.stages import Reading
from edge_conflayers.cli.stats_line import show_stats
from edge_conflayers.completions.request import TextRequest
from edge_conflayers.conversation.answering import ConversationFull, answer
from edge_conflayers.conversation.conversation import Conversation
from edge_conflayers.conversation.transcript import Transcript
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.closing import Closing
from edge_conflayers.errors import EdgeConflayersError, one_line
from edge_conflayers.text_generator import TextGenerator

if TYPE_CHECKING:
    from edge_conflayers.tune.idle.teacher import IdleTeacher


class Chat(Closing):
    """A conversation with a model.

    Args:
        open_generator: a generator over the model that decodes by a method.
        method: the one to begin with.
        n_ctx: tokens of its context.
        shows_stats: show what each answer cost.
        show_draft: colour answers by who drafted them.
        teacher: learns from what was said while the user is asked for more.
        quiet: say nothing but what goes wrong.

    Attributes:
        attempt: answers to the last message that were taken back.
        stats: of the last answer; None before the first.
        saved: files that this conversation was saved in.
        teacher: as above.
        is_over: whether it ends here.
    """

    reader: Reader

    def __init__(
        self,
        open_generator: Callable[[str], TextGenerator],
        method: str,
        conversation: Conversation,
        settings: Settings,
        *,
        template: TemplateOptions,
        n_ctx: int,
        shows_stats: bool = False,
        show_draft: bool = False,
        teacher: IdleTeacher | None = None,
        quiet: bool = False,
    ) -> None:
        self.conversation = conversation
        self.settings = settings
        self.n_ctx = n_ctx
        self.shows_stats = shows_stats
        self.attempt = 0
        self.stats: Stats | None = None
        self.saved: set[Path] = set()
        self.is_over = False
        self.teacher = teacher
        self._template = template
        self._colours = SourceColours() if show_draft else None
        self._quiet = quiet
        self._progress = Progress(quiet=quiet)
        self._exit_code = 0
        self._drawn_seed: int | None = None  # of the last answer, where it was drawn at random
        self._open_generator = open_generator
        self._method = method
        self._generator = open_generator(method)

    def run(self, reader: Reader) -> int:
        """Goes on until the user ends it. Returns the exit code: without a terminal, that of the
        last thing that went wrong.

        Raises:
            EdgeConflayersError: standard output cannot be written.
        """
        self.reader = reader
        if reader.is_terminal:
            model = self._generator.model.path.name
            self.note(f"{model}, {self.n_ctx} tokens of context; /help lists commands")
        self._tell_where()
        is_second = False  # Ctrl-C in a row
        while not self.is_over:
            try:
                if (text := self._read()) is None:
                    break
                is_second = False
                self._take(text)
            except KeyboardInterrupt:
                if not reader.is_terminal:
                    return INTERRUPTED
                if is_second:
                    break
                is_second = True
                self.note("Ctrl-C again, or Ctrl-D, ends the conversation")
            except EdgeConflayersError as error:
                self._failed(error)
        return 0 if reader.is_terminal else self._exit_code

    def _read(self) -> str | None:
        """What the user says next; there is time to learn meanwhile."""
        if self.teacher is None:
            return self.reader.read()
        with self.teacher.going():
            return self.reader.read()

    def _take(self, text: str) -> None:
        """Takes a message, which it answers, or a command."""
        if text.lstrip().startswith("/"):
            run_command(self, text)
        elif message := unquoted(text):
            self.attempt = 0
            self.conversation.add("user", message)
            self.answer()

    def answer(self) -> None:
        """Writes the answer to the last message. Where there is none, the message is taken back,
        and is at hand for the next one."""
        pieces: list[str] = []
        try:
            is_stopped = self._write(pieces)
        except KeyboardInterrupt:
            is_stopped = True
            self._use(self._method)
        except EdgeConflayersError as error:
            if not pieces:
                self._take_back()
            self._failed(error)
            is_stopped = False
        text = "".join(pieces)
        if pieces:
            self._show("\n")
        if text or (pieces and not is_stopped):
            self.conversation.add("assistant", text)
            self._tell_end(is_stopped)
        elif is_stopped:
            self._take_back()
        self._generator.save()
        if is_stopped and not self.reader.is_terminal:
            self._exit_code, self.is_over = INTERRUPTED, True

    def _write(self, written: list[str]) -> bool:
        """Writes an answer on standard output. Returns whether it was stopped.

        Args:
            written: gets its pieces.
        """
        sampling = self.settings.sampling(self.attempt)
        self._drawn_seed = sampling.seed if self.settings.is_random_seed else None
        reading = Reading(self._progress, self._generator.session())
        request = TextRequest(
            (), sampling, self.settings.max_tokens, self.settings.stop, before_batch=reading
        )
        pieces = answer(
            self._generator,
            self.conversation.messages,
            request,
            n_ctx=self.n_ctx,
            template=self._template,
            on_prompt=reading.expect,
        )
        self._use_what_was_learned()
        with self._progress, noted() as interrupt, closing(pieces):
            for piece in pieces:
                self._progress.end()
                interrupt.is_writing = True
                self.stats = piece.stats
                written.append(piece.text)
                colours = self._colours
                self._show(colours.mark(piece.parts) if colours else piece.text)
                if interrupt.came:
                    break
        if self.teacher is not None and self.stats is not None:
            self.teacher.hear(self._generator, self.stats.prompt_tokens)
        return interrupt.came

    def _use_what_was_learned(self) -> None:
        if self.teacher is None:
            return
        for line in self.teacher.news():
            self.note(line)
        if self.teacher.head is not None:
            self._generator.use_head(self.teacher.head)

    def _show(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except EdgeConflayersError:
            self.is_over = True
            raise

    def _take_back(self) -> None:
        self.reader.prefer(self.conversation.undo())

    def begin(self, messages: Sequence[Message]) -> None:
        """Begins another conversation; what is on disk of this one stays."""
        before = self.conversation.transcript
        self.conversation = Conversation(messages, before and Transcript(before.folder))
        self.attempt, self.stats = 0, None
        self.saved.clear()
        self._tell_where()

    @property
    def method(self) -> str:
        """The method that answers are decoded by."""
        return self._generator.method_name

    def use_method(self, name: str) -> None:
        """Decodes by another method from now on.

        Raises:
            BadInput: there is none of this name, or it lacks something.
        """
        self._use(name)
        self._method = name

    def _use(self, method: str) -> None:
        """Goes on with a new generator, whose cache is empty."""
        new = self._open_generator(method)
        self._generator.close()
        self._generator = new

    def show_stats(self) -> None:
        """Shows what the last answer cost."""
        assert self.stats is not None
        show_stats(self.stats, self.method, random_seed=self._drawn_seed)

    def note(self, text: str) -> None:
        """Says something on standard error, unless it is to be quiet."""
        if not self._quiet:
            click.echo(f"note: {text}", err=True)

    def _failed(self, error: EdgeConflayersError) -> None:
        if self.is_over:
            raise error
        advice = f"; {self._room_advice()}" if isinstance(error, ConversationFull) else ""
        click.echo(f"edge-conflayers: {one_line(error)}{advice}", err=True)
        self._exit_code = error.exit_code

    def _room_advice(self) -> str:
        is_largest = self.n_ctx >= self._generator.model.n_ctx_train
        more = "" if is_largest else ", and a larger -c makes room"
        return f"/undo takes back turns, /clear begins anew{more}"

    def _tell_where(self) -> None:
        """Says where a conversation stands that was there before."""
        if not self.conversation.asked:
            return
        self.note(f"going on with a conversation of {len(self.conversation.messages)} messages")
        if self.conversation.is_unanswered:
            self.note("its last message has no answer: /retry writes one, /undo takes it back")

    def _tell_end(self, is_stopped: bool) -> None:
        assert self.stats is not None
        if is_stopped:
            self.note("the answer was stopped; /retry writes it again")
        elif self.stats.finish_reason == "context":
            self.note(f"the context of {self.n_ctx} tokens is full; {self._room_advice()}")
        elif self.stats.finish_reason == "length":
            self.note("the answer was cut off at -n; `/set predict` changes that")
        if self._method != self.method:
            self.note(self._generator.session().why_plain)
            self._method = self.method
        if self.shows_stats:
            self.show_stats()

    def close(self) -> None:
        """Keeps what was learned."""
        self._generator.close()
