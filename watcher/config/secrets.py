"""Secrets are named, never written: read anew for each use, and kept out of every output."""

import base64
import os
import re
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema
from pydantic_core.core_schema import (
    no_info_after_validator_function,
    plain_serializer_function_ser_schema,
)

from watcher.errors import ConfigError

_SHORTEST_HIDDEN: Final = 6
"""Characters: hiding a shorter text would only make nonsense of the log."""
_TELLING_PATH: Final = 16
"""Characters: `/deployments` is in many a harmless line."""
_hidden: deque[str] = deque(maxlen=256)


class SecretRef(BaseModel):
    """Where a secret is kept: a file, or a variable of the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path | None = None
    env: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_a_reference(cls, value: object) -> object:
        if not isinstance(value, dict) or list(value) not in (["file"], ["env"]):
            raise ValueError("a secret is not written here: use {file: PATH} or {env: NAME}")
        return value

    def read(self) -> str:
        """Return its present value; raises ConfigError, which says where it should be."""
        place = f"file {self.file}" if self.file else f"environment variable {self.env}"
        try:
            text = self.file.read_text("utf-8") if self.file else os.environ.get(str(self.env), "")
        except OSError as error:
            raise ConfigError([f"{place} cannot be read: {error.strerror}"]) from None
        except UnicodeDecodeError:
            raise ConfigError([f"{place} is not UTF-8 text"]) from None
        if not (value := text.strip()):
            raise ConfigError([f"{place} is not set or empty"])
        hide(value)
        return value


class Written(str):
    """A URL that is written out where it might as well have been named; it is read the same way."""

    __slots__ = ()

    def read(self) -> str:
        """Return it."""
        hide(self)
        return str(self)

    def __repr__(self) -> str:
        return mask(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Any text, which is shown masked."""
        shown = plain_serializer_function_ser_schema(mask, when_used="json")
        return no_info_after_validator_function(cls, handler(str), serialization=shown)


def forget() -> None:
    """Let `redact` know of none: for tests that share a process."""
    _hidden.clear()


def hide(secret: str) -> None:
    """Let `redact` know a value; of a URL also what is telling in it. A path to a file is not."""
    if secret.startswith("sqlite:"):
        return
    parts = [secret]
    with suppress(ValueError):  # no URL, whatever it looks like
        url = urlsplit(secret)
        parts += [url.query, url.password or ""]
        parts += [url.path] if len(url.path) >= _TELLING_PATH else []
        parts += telling_parts(url)
    for part in parts:
        if len(part) >= _SHORTEST_HIDDEN and part not in _hidden:
            _hidden.append(part)


def telling_parts(url: SplitResult) -> list[str]:
    """Pieces of path and query that look drawn rather than named: a receiver may echo one alone.

    Of a password also the form in which it is sent.
    """
    pieces = [*url.path.split("/"), *(value for _, value in parse_qsl(url.query))]
    drawn = [p for p in pieces if len(p) >= 20 or (len(p) >= 8 and any(c.isdigit() for c in p))]
    if not url.password:
        return drawn
    user = f"{unquote(url.username or '')}:{unquote(url.password)}"
    return [*drawn, base64.b64encode(user.encode()).decode()]


def redact(text: str) -> str:
    """Replace every secret that was read in this process by `***`."""
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def mask(url: str) -> str:
    """Leave of a URL only scheme and host; of the path to an SQLite file all."""
    if url.startswith("sqlite:"):
        return url
    found = re.match(r"([a-z][a-z0-9+.-]*://)(?:[^/?#]*@)?([^/?#@]*)(.*)", url, re.I | re.S)
    return f"{found[1]}{found[2]}{'/***' if found[3] else ''}" if found else "***"
