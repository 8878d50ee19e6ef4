"""What a notification says, in sink-neutral terms; no sink's markup."""

from datetime import datetime

from msgspec import Struct


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
    """A kubectl line to start with."""
    notes: tuple[str, ...] = ()
    """Small print: incident id, why it is late, how often it flapped."""
    line: str = ""
    """The same in one line, for threads and lists."""
    lines: tuple[str, ...] = ()
    """Of a digest: one line a member."""
    since: datetime | None = None
    broadcast: bool = False
    """A reply that the channel must see: worsened and ended."""
