"""Which chat template is used, and what it is given beside the messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_conflayers.errors import BadInput

_SET_BY_US = ("messages", "tools", "add_generation_prompt")
JINJA_SIGNS = ("{%", "{{", "{#")


@dataclass(frozen=True)
class TemplateOptions:
    """Which chat template is used, and what it is given beside the messages.

    Attributes:
        template: its source in Jinja, or a name of ``builtin.names``; None for the model's own.
        kwargs: variables that the template reads, such as ``enable_thinking``.
        tools: functions that the model may call, as OpenAI's API describes them.

    Raises:
        BadInput: variables that are not the user's to set.
    """

    template: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        for name in _SET_BY_US:
            if name in self.kwargs:
                raise BadInput(
                    f"the variable {name!r} of a chat template cannot be set by template-kwargs;"
                    " leave it out"
                )

    @property
    def given(self) -> bool:
        """Whether anything is asked for."""
        return self.template is not None or bool(self.kwargs) or self.tools is not None


def read_template_kwargs(text: str) -> dict[str, Any]:
    """The variables in a JSON object.

    Raises:
        BadInput: not such an object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"template-kwargs is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise BadInput('template-kwargs is no JSON object; write it as {"enable_thinking": false}')
    return found
