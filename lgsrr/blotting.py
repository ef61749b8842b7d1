"""Keys and passwords blotted out of what is shown or kept: a command line, a setting, the words of an error.

A key is never a setting of ours, so this is the second line of defence, for what people put into addresses and for what
a server repeats in its answers. It knows forms, the variables that hold secrets, and what was read from a key's file
(`hold`); a password alone among words, which none of these is, is not recognised.
"""

from __future__ import annotations

import os
import re

BLOT = "…"
_IN_ADDRESS = re.compile(r"(\w://)[^/\s'\"]*@")
"""User and password, as in http://me:secret@host."""
_IN_QUERY = re.compile(r"(?i)([?&][^=&\s'\"]*(?:key|token|secret|sig|password|credential)[^=&\s'\"]*=)[^&\s'\"]+")
_KEY = re.compile(r"\b(?:(?:sk|hf|gsk|xai)[-_][A-Za-z0-9_-]{16,}|AKIA[A-Z0-9]{12,})")
_VARIABLES = (
    "OPENAI_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "RAY_AUTH_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
"""Variables whose value must not be seen, whatever its form."""
_LEAST = 8
"""Characters; a shorter value stands in ordinary words, too."""
_held: set[str] = set()


def hold(secret: str) -> None:
    """From here on this process blots out `secret`: a key that was read from a file has no variable."""
    if len(secret) >= _LEAST:
        _held.add(secret)


def without_keys(text: str) -> str:
    """A text without keys and passwords: those in addresses, of known forms, and those that this process holds."""
    values = {os.environ.get(name, "").strip() for name in _VARIABLES} | _held
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _LEAST:
            text = text.replace(value, BLOT)
    return _IN_QUERY.sub(rf"\1{BLOT}", _KEY.sub(BLOT, _IN_ADDRESS.sub(r"\1", text)))
