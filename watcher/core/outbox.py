"""Which of one incident's unsent deliveries a sink gets next, and which of them that one replaces."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from watcher.core.delivery import Delivery, Part
from watcher.core.events import ENDS, Edge


class Row(Struct, frozen=True):
    """One unsettled delivery, as far as the choice depends on it."""

    delivery: Delivery
    edge: Edge
    digest: bool = False
    tried: bool = False
    """An attempt has failed, so that its due date is a backoff."""
    ambiguous: bool = False
    """An attempt may have arrived, so it must be repeated under the same id."""


class Choice(Struct, frozen=True):
    """What to send next, and when: nothing else goes out before, however due it is by itself."""

    due: datetime
    send: Delivery
    """One of the rows, or a new `post` that takes the place of an unsent one."""
    supersede: tuple[Delivery, ...] = ()
    """The rows that need not be sent, since `send` tells what they would have told."""


def choose(rows: Sequence[Row], now: datetime, edits_from: datetime | None = None) -> Choice:
    """Choose for one (incident, sink); `rows` are all its unsettled deliveries, at least one.

    Posts and replies go in order, edits in a lane of their own, so that neither waits out a limit
    that only the other has run into: no edit is sent before `edits_from`.
    """
    rows = sorted(rows, key=lambda row: row.delivery.sequence)
    if len({row.delivery.part is Part.EVENT for row in rows}) > 1:
        return _first(rows)  # the sink's type was changed: neither kind may overtake the other
    lanes = [lane for lane in (_told_in_order(rows), _edits(rows, edits_from)) if lane]
    return min(lanes, key=lambda lane: max(lane.due, now))


def superfluous(rows: Sequence[Row], part: Part) -> Choice | None:
    """What one row makes superfluous: of the edits, or else of a post and what follows it.

    Once that is due it is what `choose` replaces whatever comes, so it need not wait to be sent.
    """
    rows = sorted(rows, key=lambda row: row.delivery.sequence)
    if part is Part.EDIT:
        edits = _of(rows, Part.EDIT)
        return _newest(edits) if edits else None
    return _told_in_order(rows)


def _told_in_order(rows: Sequence[Row]) -> Choice | None:
    """Events to machines; to people posts, then replies."""
    if posts := _of(rows, Part.POST):
        return _current(posts[0], rows) if len(posts) == 1 else _separate(posts)
    told = _of(rows, Part.EVENT) or _of(rows, Part.REPLY)
    if told and told[0].delivery.part is Part.REPLY and told[0].digest and not told[0].ambiguous:
        return _newest(told)
    return _first(told) if told else None


def _current(post: Row, rows: Sequence[Row]) -> Choice:
    """An unsent post is replaced by one of the newest event, which tells its followers' news too.

    The replies of a digest stay: they carry the names that its message has no room for.
    """
    followers = [
        row.delivery
        for row in rows
        if row.delivery.part is Part.EDIT or (row.delivery.part is Part.REPLY and not row.digest)
    ]
    newest = followers[-1] if followers else post.delivery
    if post.ambiguous or newest.sequence <= post.delivery.sequence:
        return _first([post])
    sink, incident, due = newest.sink, newest.incident, post.delivery.due
    send = Delivery(sink, newest.event, incident, newest.sequence, Part.POST, due)
    return Choice(due, send, (post.delivery, *followers))


def _separate(posts: Sequence[Row]) -> Choice:
    """Where nothing can be edited every event is a post: the newest update is enough, of a digest the
    newest of all, and an end tells in one past-tense line what was not told before it."""
    enough = posts[0].digest or posts[0].edge is Edge.UPDATED or posts[-1].edge in ENDS
    return _newest(posts) if enough and not posts[0].ambiguous else _first(posts)


def _edits(rows: Sequence[Row], edits_from: datetime | None) -> Choice | None:
    """The newest edit is enough, once there is a message to edit."""
    edits = _of(rows, Part.EDIT)
    if not edits or _of(rows, Part.POST):
        return None
    newest = _newest(edits)
    return replace(newest, due=max(newest.due, edits_from or newest.due))


def _of(rows: Sequence[Row], part: Part) -> list[Row]:
    return [row for row in rows if row.delivery.part is part]


def _first(lane: Sequence[Row]) -> Choice:
    return Choice(lane[0].delivery.due, lane[0].delivery)


def _newest(lane: Sequence[Row]) -> Choice:
    """The last one for all, as soon as any is due; but news do not shorten a backoff."""
    tried = [row.delivery.due for row in lane if row.tried]
    due = max(tried, default=min(row.delivery.due for row in lane))
    return Choice(due, lane[-1].delivery, tuple(row.delivery for row in lane[:-1]))
