"""Keys and passwords blotted out of what is shown or kept: a command line, a setting, the words of an error.

A key is never a setting of ours, so this is the second line of defence, for what people put into addresses and for what
a server repeats in its answers. It knows forms, not meanings: a password alone among words is not recognised.
"""

from __future__ import annotations

import os
import re

BLOT = "…"
_IN_ADDRESS = re.compile(r"(\w://)[^/\s'\"]*@")
"""User and password, as in http://me:secret@host."""
_IN_QUERY = re.compile(r"(?i)([?&][^=&\s'\"]*(?:key|token|secret|sig|password|credential)[^=&\s'\"]*=)[^&\s'\"]+")
_KEY = re.compile(r"\b(?:(?:sk|hf|gsk|xai)[-_][A-Za-z0-9_-]{16,}|AKIA[A-Z0-9]{12,})")
_HELD = ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
"""Variables whose value must not be seen, whatever its form."""
_LEAST = 8
"""Characters; a shorter value stands in ordinary words, too."""


def without_keys(text: str) -> str:
    """A text without keys and passwords: those in addresses, of known forms, and those that this process holds."""
    for name in _HELD:
        held = os.environ.get(name, "")
        if len(held) >= _LEAST:
            text = text.replace(held, BLOT)
    return _IN_QUERY.sub(rf"\1{BLOT}", _KEY.sub(BLOT, _IN_ADDRESS.sub(r"\1", text)))
