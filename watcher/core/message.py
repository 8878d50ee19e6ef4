"""What a notification says, in sink-neutral terms; no sink's markup."""

import re
import unicodedata
from datetime import datetime
from typing import Final

from msgspec import Struct

_ANSI: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class Fact(Struct, frozen=True):
    """One labelled value: `Cluster`, `prod-eu`."""

    label: str
    value: str


class Message(Struct, frozen=True):
    """One notification's content. Every text is data: a sink must make it inert."""

    state: str
    """The word that comes first: `Degraded`, `Recovered`, `Closed`, `Flapping`, `Unreachable`."""
    symbol: str
    """An emoji that repeats the state; meaning never hangs on it."""
    title: str
    """`Unavailable: shop/checkout`: state word first, phones show about forty characters."""
    text: str
    """The whole story in plain sentences: screen readers and phones get nothing else."""
    facts: tuple[Fact, ...] = ()
    why: str = ""
    command: str = ""
    """A line to start with, of kubectl or of watcher."""
    notes: tuple[str, ...] = ()
    """Small print: incident id, why it is late, how often it flapped."""
    line: str = ""
    """The same in one line, for threads and lists."""
    lines: tuple[str, ...] = ()
    """Of a digest: one line a member."""
    since: datetime | None = None
    broadcast: bool = False
    """A reply that the channel must see: worsened and ended."""
    calls: bool = False
    """It opens as critical or has become so: worth calling somebody, once an incident."""
    briefly: tuple[tuple[str, str], ...] = ()
    """The same in so many pairs, for where lines take too much room: `Recovered in shop`, `web`."""


def visible(text: str, limit: int = 2000) -> str:
    """One line of what a reader can see, of at most about `limit` characters.

    Whoever writes a condition message must not be able to start a line, colour a terminal, reverse
    the reading direction or hide characters; a lone surrogate would not even encode.
    """
    if not text.isprintable():
        text = " ".join("".join(map(_seen, _ANSI.sub("", text[: 4 * limit]))).split())
    cut = len(text) - limit
    return f"{text[:limit].rstrip()}… (+{cut} characters)" if cut > 0 else text


def _seen(character: str) -> str:
    match unicodedata.category(character):
        case "Zl" | "Zp" | "Cc":
            return " " if character.isspace() else ""
        case "Cf":
            return ""
        case "Cs":
            return "\ufffd"
        case _:
            return character
