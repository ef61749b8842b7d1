"""Where a language model is asked, and where the key to it is found.

No key is in an `Endpoint`: it holds the name of a variable or a file, and may be sent to any process.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from lgsrr.blotting import hold
from lgsrr.errors import ConfigError, MachineError

OPENAI_URL = "https://api.openai.com/v1"
SchemaMode = Literal["json_schema", "json_object", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the model is asked, and where the key to it is found. It holds no key and may be sent to any process."""

    base_url: str | None = None
    """For example http://localhost:8000/v1; None takes $OPENAI_BASE_URL, else OpenAI's own."""
    key_file: str | None = None
    """File that holds the key and nothing else, readable wherever calls are made; None takes `key_variable`."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. A server on this machine needs none."""
    timeout_s: float = 120.0
    """Seconds for one whole call, from connecting to the last byte."""
    schema_mode: SchemaMode | None = None
    """How a schema is asked for: json_schema (structured output), json_object (JSON mode, the schema in the prompt),
    none (the schema in the prompt alone). None decides by the model's name."""

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s is {self.timeout_s}; expected seconds above 0.")
        if self.base_url is not None and urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ConfigError(f"base_url is '{self.base_url}'; expected http://host:port/v1 or https://….")

    def resolved(self) -> Endpoint:
        """The same with its URL filled in from this process's environment, to be sent to others."""
        return dataclasses.replace(self, base_url=self.url)

    @property
    def url(self) -> str:
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine's loopback."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    @property
    def key_source(self) -> str:
        """Where the key comes from, in words that may be shown."""
        return f"the file {self.key_file}" if self.key_file else f"${self.key_variable}"

    def key(self) -> str:
        """The key, which is from here on blotted out. Raises MachineError where there is none and one is needed."""
        key = self._key_as_given()
        if not key and not self.is_local:
            raise MachineError(
                f"No key for {self.url}: {self.key_source} is not set or empty. Set the environment variable "
                f"{self.key_variable} (on every node of the cluster), or name a file that holds the key."
            )
        if not key.isascii() or any(letter.isspace() for letter in key):
            raise MachineError(f"{self.key_source} holds blanks or letters that no key has; expected one key alone.")
        hold(key)
        return key or "none"

    def _key_as_given(self) -> str:
        if self.key_file is None:
            return os.environ.get(self.key_variable, "").strip()
        try:
            return Path(self.key_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise MachineError(f"The key file {self.key_file} cannot be read: {reason}.") from None
