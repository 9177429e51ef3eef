"""A report out of a JSON file that ``bench --json`` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge_conflayers.errors import BadInput

_KEYS = {"model": str, "date": str, "machine": dict, "methods": dict, "prompts": list}


def load_report(path: Path) -> dict[str, Any]:
    """The report in a file, also one of an earlier version, which may know less.

    Raises:
        BadInput: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); give another file") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON ({error}); give a file of `bench --json`") from None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), kind) for key, kind in _KEYS.items()
    ):
        raise BadInput(f"{path} is no report of `bench --json`; give one that is")
    if not content["prompts"]:
        raise BadInput(f"{path} reports no prompt; give another file")
    return content
