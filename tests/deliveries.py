"""Incidents as the planner would record them, for tests of the store, the outbox and the dispatcher."""

from datetime import UTC, datetime, timedelta

from watcher.core.delivery import Delivery, DeliveryState, Part
from watcher.core.events import Edge, Event, incident_id
from watcher.core.model import Severity, Subject
from watcher.ports import Record

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def event(
    number: int, sequence: int = 1, edge: Edge = Edge.DEGRADED, digest: bool = False
) -> Event:
    """One edge of the incident of that number; a higher number is a newer incident."""
    opened_at = NOW + timedelta(seconds=number)
    name = f"app-{number}"
    return Event(
        incident=incident_id(opened_at, name),
        sequence=sequence,
        edge=edge,
        subject=Subject("prod", "shop", name, f"digest/{name}" if digest else f"uid-{number}"),
        at=opened_at,
        since=opened_at,
        opened_at=opened_at,
        reason="below_minimum",
        severity=Severity.WARNING,
        message="1 of 3 replicas available, 2 needed",
        digest=digest,
    )


def delivery(
    told: Event,
    sink: str = "hook",
    part: Part = Part.EVENT,
    due: datetime = NOW,
    state: DeliveryState = DeliveryState.PENDING,
    reason: str = "",
    digest: str = "",
) -> Delivery:
    """One delivery of an event."""
    return Delivery(sink, told.id, told.incident, told.sequence, part, due, state, reason, digest)


def told(*events: Event, sink: str = "hook", parts: tuple[Part, ...] = (Part.EVENT,)) -> Record:
    """A record of events, each with its parts for one sink."""
    return Record(
        events=events,
        deliveries=tuple(delivery(one, sink, part) for one in events for part in parts),
    )
