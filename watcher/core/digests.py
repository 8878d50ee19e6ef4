"""The digest guard: a storm of openings is one message for a chat sink, with every name in its thread."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from watcher.core.delivery import Delivery, DeliveryState, Part
from watcher.core.events import ENDS, OPENINGS, Edge, Event, Incident, Transition, incident_id
from watcher.core.model import EPOCH, Severity, Subject
from watcher.core.phases import Firing, History

STORM_SIZE: Final = 10
"""More openings than this within `STORM_WINDOW` are one digest."""
STORM_WINDOW: Final = timedelta(minutes=1)
_JOINS_FOR: Final = timedelta(minutes=1)
"""After the last one; a later opening is a message of its own again, which notifies somebody."""
GATHER: Final = timedelta(seconds=2)
"""The first list of names waits this long for more of them, and so do openings that nobody saw
coming, once there has been one."""
_GROW: Final = timedelta(seconds=10)
"""A digest is edited, and its thread continued, at most this often."""
_REPEAT: Final = timedelta(minutes=2)
"""Where nothing can be edited, a grown digest is posted again at most this often."""
_CALL_AGAIN: Final = timedelta(minutes=5)
"""What turns critical is told the whole channel at once, but at most this often: whoever was called
a moment ago is reading the digest."""


class Digest(Struct, frozen=True):
    """One storm in one sink; it ends when the last of its members has."""

    incident: Incident
    sink: str
    cluster: str
    joins_until: datetime
    open: int = 0
    """Members that have not ended."""
    called_at: datetime = EPOCH
    """When the channel was last told of something critical in it."""

    @classmethod
    def begin(cls, cluster: str, sink: str, now: datetime) -> "Digest":
        """A digest that nothing has joined yet."""
        name = incident_id(now, "digest", cluster, sink)
        incident = Incident(name, now, now, "storm", Severity.WARNING, "", told={sink: ""})
        return cls(incident, sink, cluster, now + _JOINS_FOR)

    @classmethod
    def restore(cls, subject: Subject, phase: Firing, open_members: int) -> "Digest":
        """A digest as the store has it: its phase's `due` is when it stops taking in more."""
        joins_until = phase.due or phase.incident.opened_at
        called_at = max(phase.history.episodes, default=EPOCH)
        name, cluster = subject.name, subject.cluster
        return cls(phase.incident, name, cluster, joins_until, open_members, called_at)

    @property
    def id(self) -> str:
        """Its incident's id: members' deliveries carry it."""
        return self.incident.id

    @property
    def subject(self) -> Subject:
        """What it is stored under."""
        return Subject(self.cluster, "", self.sink, f"digest/{self.sink}/{self.id}")

    @property
    def phase(self) -> Firing:
        """What it is stored as."""
        return Firing(self.incident, self.joins_until, History(episodes=(self.called_at,)))


def plan_digests(
    events: Sequence[Event],
    deliveries: Sequence[Delivery],
    known: Mapping[str, Digest],
    threads: Mapping[str, bool],
    now: datetime,
) -> list[tuple[Digest, Event, list[Delivery]]]:
    """Tell of every digest that the grouped ones among `deliveries` have joined or ended.

    `known` are all digests by id; `threads` says of the sinks that there are whether they can edit
    and reply.
    """
    grouped: dict[str, list[Event]] = {}
    edges = {event.id: event for event in events}
    for delivery in deliveries:
        if delivery.state is DeliveryState.GROUPED and delivery.digest in known:
            grouped.setdefault(delivery.digest, []).append(edges[delivery.event])
    told = []
    for name, members in grouped.items():
        digest, event = _advance(known[name], members, now)
        rows = _deliveries(event, digest, threads.get(digest.sink, False), now)
        kept = rows if digest.sink in threads else [*map(sink_removed, rows)]
        told.append((digest, event, kept))
    return told


def sink_removed(row: Delivery) -> Delivery:
    """The row of a sink that is configured no more: it is kept, shown, and sent if it returns."""
    return replace(row, state=DeliveryState.PARKED, reason="sink_removed")


def _advance(digest: Digest, members: Sequence[Event], now: datetime) -> tuple[Digest, Event]:
    joins = sum(event.edge in OPENINGS for event in members)
    ends = sum(event.edge in ENDS for event in members)
    worst = max([digest.incident.severity, *(m.severity for m in members)], key=_is_critical)
    incident = replace(digest.incident, sequence=digest.incident.sequence + 1, severity=worst)
    critical = any(m.worsened or (m.edge in OPENINGS and _is_critical(m.severity)) for m in members)
    calls = critical and now - digest.called_at >= _CALL_AGAIN
    digest = replace(
        digest, incident=incident, open=digest.open + joins - ends,
        joins_until=now + _JOINS_FOR if joins else digest.joins_until,
        called_at=now if calls else digest.called_at,
    )  # fmt: skip
    edge = Edge.RECOVERED if digest.open <= 0 else Edge.UPDATED
    if incident.sequence == 1:
        edge = Edge.DEGRADED
    news = Transition(edge, now, incident, worsened=calls and edge is Edge.UPDATED)
    since = min(incident.since, *(m.since for m in members))
    names = tuple(m.incident for m in members)
    return digest, replace(news.event(digest.subject), since=since, members=names, digest=True)


def _is_critical(severity: Severity) -> bool:
    return severity is Severity.CRITICAL


def _deliveries(event: Event, digest: Digest, threads: bool, now: datetime) -> list[Delivery]:
    def row(part: Part, due: datetime) -> Delivery:
        return Delivery(digest.sink, event.id, event.incident, event.sequence, part, due)

    match event.edge, threads:
        case Edge.DEGRADED, True:
            return [row(Part.POST, now), row(Part.REPLY, now + GATHER)]
        case Edge.DEGRADED, False:
            return [row(Part.POST, now + GATHER)]
        case Edge.RECOVERED, True:
            return [row(Part.EDIT, now), row(Part.REPLY, now)]
        case Edge.RECOVERED, False:
            return [row(Part.POST, now)]
        case _, True:
            reply_at = now + (GATHER if event.worsened else _GROW)
            return [row(Part.EDIT, now + _GROW), row(Part.REPLY, reply_at)]
        case _:
            return [row(Part.POST, now + (GATHER if event.worsened else _REPEAT))]
