"""The JSON value in a model's answer, also where it stands in a code fence or between other words."""

from __future__ import annotations

import json
from typing import Any

from .calls import Refused


def json_in(text: str, *, kind: str) -> Any:
    """The value. Raises Refused(kind=kind) where there is none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        return json.loads(text[start : end + 1] if start >= 0 else text)
    except ValueError:
        raise Refused("the answer is not JSON", kind=kind) from None
