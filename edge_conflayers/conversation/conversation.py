"""The messages of a conversation, and what a user changes about them."""

from __future__ import annotations

from collections.abc import Sequence

from edge_conflayers.chat import Message
from edge_conflayers.conversation.transcript import Transcript
from edge_conflayers.errors import BadInput


class Conversation:
    """Messages, perhaps with a system message in front; each change is on disk before the next.

    Args:
        messages: that it begins with.
        transcript: where it is kept, from its first change on; None to keep nothing.
    """

    def __init__(
        self, messages: Sequence[Message] = (), transcript: Transcript | None = None
    ) -> None:
        self._messages = list(messages)
        self.transcript = transcript

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(self._messages)

    @property
    def system(self) -> str | None:
        """The system message, if there is one."""
        first = next(iter(self._messages), None)
        return str(first["content"]) if first is not None and first["role"] == "system" else None

    @property
    def is_unanswered(self) -> bool:
        """Whether the last message waits for an answer."""
        return bool(self._messages) and self._messages[-1]["role"] not in ("assistant", "system")

    @property
    def asked(self) -> list[str]:
        """The user's messages."""
        return [str(each["content"]) for each in self._messages if each["role"] == "user"]

    def add(self, role: str, text: str) -> None:
        """Appends a message."""
        message = {"role": role, "content": text}
        self._messages.append(message)
        if self.transcript is not None:
            self.transcript.append(message, self._messages)

    def set_system(self, text: str | None) -> None:
        """Sets the system message; None takes it away."""
        rest = self._messages if self.system is None else self._messages[1:]
        first: list[Message] = [] if text is None else [{"role": "system", "content": text}]
        self._replace([*first, *rest])

    def undo(self) -> str:
        """Takes back the user's last message and all that follows it. Returns the message.

        Raises:
            BadInput: there is none.
        """
        at = self._last_asked("there is no message to take back")
        text = str(self._messages[at]["content"])
        self._replace(self._messages[:at])
        return text

    def unanswer(self) -> None:
        """Takes back the answer to the user's last message.

        Raises:
            BadInput: there is no such message.
        """
        at = self._last_asked("there is no message to answer again; write one")
        if at + 1 < len(self._messages):
            self._replace(self._messages[: at + 1])

    def _last_asked(self, otherwise: str) -> int:
        for at in reversed(range(len(self._messages))):
            if self._messages[at]["role"] == "user":
                return at
        raise BadInput(otherwise)

    def _replace(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)
        if self.transcript is not None:
            self.transcript.replace(self._messages)
