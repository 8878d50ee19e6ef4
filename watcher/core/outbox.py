"""Which of one incident's unsent deliveries a sink gets next, and which of them that one replaces."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from watcher.core.model import ENDS, Delivery, Edge, Part


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
    """What to send now."""

    send: Delivery
    """One of the rows, or a new `post` that takes the place of an unsent one."""
    supersede: tuple[Delivery, ...] = ()
    """The rows that need not be sent, since `send` tells what they would have told."""


class Wait(Struct, frozen=True):
    """Nothing can be sent before `until`, however due a row is that comes after another."""

    until: datetime


class _Lane(Struct, frozen=True):
    """Deliveries that wait for each other: none goes out before the first of them is due."""

    due: datetime
    send: Delivery
    supersede: tuple[Delivery, ...] = ()


def choose(rows: Sequence[Row], now: datetime, edits_from: datetime | None = None) -> Choice | Wait:
    """Choose for one (incident, sink); `rows` are all its unsettled deliveries, at least one.

    Posts and replies go in order, edits in a lane of their own, so that neither waits out a limit
    that only the other has run into: no edit is sent before `edits_from`.
    """
    rows = sorted(rows, key=lambda row: row.delivery.sequence)
    lanes = [lane for lane in (_told_in_order(rows), _edits(rows, edits_from)) if lane]
    for lane in lanes:
        if lane.due <= now:
            return Choice(lane.send, lane.supersede)
    return Wait(min(lane.due for lane in lanes))


def _told_in_order(rows: Sequence[Row]) -> _Lane | None:
    """Events to machines; to people posts, then replies."""
    if events := _of(rows, Part.EVENT):
        return _first(events)
    if posts := _of(rows, Part.POST):
        return _current(posts[0], rows) if len(posts) == 1 else _separate(posts)
    replies = _of(rows, Part.REPLY)
    if replies and replies[0].digest and not replies[0].ambiguous:
        return _newest(replies)
    return _first(replies) if replies else None


def _current(post: Row, rows: Sequence[Row]) -> _Lane:
    """An unsent post is replaced by one of the newest event, which tells its followers' news too.

    The replies of a digest stay: they carry the names that its message has no room for.
    """
    followers = [
        row
        for row in rows
        if row.delivery.part is Part.EDIT or (row.delivery.part is Part.REPLY and not row.digest)
    ]
    newest = followers[-1].delivery if followers else post.delivery
    if post.ambiguous or newest.sequence <= post.delivery.sequence:
        return _first([post])
    due = post.delivery.due
    replacement = Delivery(
        newest.sink, newest.event, newest.incident, newest.sequence, Part.POST, due
    )
    return _Lane(due, replacement, tuple(row.delivery for row in (post, *followers)))


def _separate(posts: Sequence[Row]) -> _Lane:
    """Where nothing can be edited every event is a post: the newest update is enough, and an end
    tells in one past-tense line what was not told before it."""
    if posts[0].ambiguous:
        return _first(posts)
    if posts[0].edge is Edge.UPDATED or posts[-1].edge in ENDS:
        return _newest(posts)
    return _first(posts)


def _edits(rows: Sequence[Row], edits_from: datetime | None) -> _Lane | None:
    """The newest edit is enough, once there is a message to edit."""
    edits = _of(rows, Part.EDIT)
    if not edits or _of(rows, Part.POST):
        return None
    lane = _newest(edits)
    return _Lane(max(lane.due, edits_from or lane.due), lane.send, lane.supersede)


def _of(rows: Sequence[Row], part: Part) -> list[Row]:
    return [row for row in rows if row.delivery.part is part]


def _first(lane: Sequence[Row]) -> _Lane:
    return _Lane(lane[0].delivery.due, lane[0].delivery)


def _newest(lane: Sequence[Row]) -> _Lane:
    """The last one for all, as soon as any is due; but news do not shorten a backoff."""
    tried = [row.delivery.due for row in lane if row.tried]
    due = max(tried, default=min(row.delivery.due for row in lane))
    return _Lane(due, lane[-1].delivery, tuple(row.delivery for row in lane[:-1]))
