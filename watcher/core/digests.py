"""The digest guard: a storm of openings is one message for a chat sink, with every name in its thread."""

from collections.abc import Mapping, Sequence, Set
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from watcher.core.model import (
    ENDS,
    OPENINGS,
    Delivery,
    DeliveryState,
    Edge,
    Event,
    Firing,
    Incident,
    Part,
    Severity,
    Subject,
    incident_id,
)

STORM_SIZE: Final = 10
"""More openings than this within `STORM_WINDOW` are one digest."""
STORM_WINDOW: Final = timedelta(minutes=1)
_JOINS_FOR: Final = timedelta(minutes=1)
"""After the last one; a later opening is a message of its own again, which notifies somebody."""
_GATHER: Final = timedelta(seconds=2)
"""The first list of names waits this long for more of them."""
_GROW: Final = timedelta(seconds=10)
"""A digest is edited, and its thread continued, at most this often."""
_REPEAT: Final = timedelta(seconds=60)
"""Where nothing can be edited, a grown digest is posted again at most this often."""


class Digest(Struct, frozen=True):
    """One storm in one sink; it ends when the last of its members has."""

    incident: Incident
    sink: str
    cluster: str
    joins_until: datetime
    open: int = 0
    """Members that have not ended."""

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
        return cls(phase.incident, subject.name, subject.cluster, joins_until, open_members)

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
        return Firing(self.incident, self.joins_until)


class Digested(Struct, frozen=True):
    """What a batch of edges does to digests."""

    events: tuple[Event, ...]
    deliveries: tuple[Delivery, ...]
    digests: tuple[Digest, ...]


def plan_digests(
    events: Sequence[Event],
    deliveries: Sequence[Delivery],
    known: Mapping[str, Digest],
    threads: Set[str],
    now: datetime,
) -> Digested:
    """Tell of every digest that the grouped ones among `deliveries` have joined or ended.

    `known` are all digests by id, `threads` the sinks that can edit and reply.
    """
    grouped: dict[str, list[Event]] = {}
    edges = {event.id: event for event in events}
    for delivery in deliveries:
        if delivery.state is DeliveryState.GROUPED and delivery.digest in known:
            grouped.setdefault(delivery.digest, []).append(edges[delivery.event])
    told: list[Event] = []
    planned: list[Delivery] = []
    digests: list[Digest] = []
    for name, members in grouped.items():
        digest, event = _advance(known[name], members, now)
        told.append(event)
        planned += _deliveries(event, digest, digest.sink in threads, now)
        digests.append(digest)
    return Digested(tuple(told), tuple(planned), tuple(digests))


def _advance(digest: Digest, members: Sequence[Event], now: datetime) -> tuple[Digest, Event]:
    joins = sum(event.edge in OPENINGS for event in members)
    ends = sum(event.edge in ENDS for event in members)
    worst = max([digest.incident.severity, *(m.severity for m in members)], key=_badness)
    incident = replace(digest.incident, sequence=digest.incident.sequence + 1, severity=worst)
    digest = replace(
        digest,
        incident=incident,
        open=digest.open + joins - ends,
        joins_until=now + _JOINS_FOR if joins else digest.joins_until,
    )
    edge = Edge.UPDATED
    if incident.sequence == 1:
        edge = Edge.DEGRADED
    elif digest.open <= 0:
        edge = Edge.RECOVERED
    event = Event(
        incident=incident.id,
        sequence=incident.sequence,
        edge=edge,
        subject=digest.subject,
        at=now,
        since=min(incident.since, *(m.since for m in members)) if members else incident.since,
        opened_at=incident.opened_at,
        reason="storm",
        severity=incident.severity,
        message="",
        members=tuple(m.incident for m in members),
        digest=True,
    )
    return digest, event


def _badness(severity: Severity) -> bool:
    return severity is Severity.CRITICAL


def _deliveries(event: Event, digest: Digest, threads: bool, now: datetime) -> list[Delivery]:
    def row(part: Part, due: datetime) -> Delivery:
        return Delivery(digest.sink, event.id, event.incident, event.sequence, part, due)

    match event.edge, threads:
        case Edge.DEGRADED, True:
            return [row(Part.POST, now), row(Part.REPLY, now + _GATHER)]
        case Edge.DEGRADED, False:
            return [row(Part.POST, now + _GATHER)]
        case Edge.RECOVERED, True:
            return [row(Part.EDIT, now), row(Part.REPLY, now)]
        case Edge.RECOVERED, False:
            return [row(Part.POST, now)]
        case _, True:
            return [row(Part.EDIT, now + _GROW), row(Part.REPLY, now + _GROW)]
        case _:
            return [row(Part.POST, now + _REPEAT)]
