"""An edge becomes deliveries, or a recorded reason why not: who is told what, in which parts."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from watcher.core.digests import GATHER, Digest, plan_digests, sink_removed
from watcher.core.model import (
    ENDS,
    OPENINGS,
    Delivery,
    DeliveryState,
    Edge,
    Event,
    Facts,
    Incident,
    Meanwhile,
    Part,
    Subject,
    Transition,
)


class Audience(Struct, frozen=True):
    """What planning must know of a sink."""

    name: str
    chat: bool = False
    threads: bool = False


class Planned(Struct, frozen=True):
    """One edge to plan, with what it is about."""

    subject: Subject
    transition: Transition
    facts: Facts | None = None
    silenced: bool = False
    blind_for: timedelta | None = None
    sudden: bool = False
    """It opened without having been pending, so that no storm could be seen coming."""
    meanwhile: Meanwhile | None = None
    unseen: bool = False


class Plan(Struct, frozen=True):
    """What is to be recorded, and the incidents as they stand with who was told."""

    events: tuple[Event, ...]
    deliveries: tuple[Delivery, ...]
    incidents: tuple[Incident, ...]
    digests: tuple[Digest, ...]


def plan(
    edges: Sequence[Planned],
    audiences: Iterable[Audience],
    now: datetime,
    *,
    digests: Mapping[str, Digest],
    storm: bool,
    cluster: str,
    calm: bool = True,
    held: Sequence[tuple[Event, Incident]] = (),
) -> Plan:
    """Plan edges of one cluster that are committed together.

    `digests` are the open ones by id; with `storm`, openings join one, new or open, and so do those
    of `held`, whose posts still wait. Unless all was `calm`, sudden ones wait: they may be a storm.
    """
    listeners = tuple(audiences)
    joined = {a.name: _digest_for(a, digests, storm, now, cluster) for a in listeners}
    events: list[Event] = []
    deliveries: list[Delivery] = []
    incidents: list[Incident] = []
    for event, incident in held:
        rows = [_grouped(event, name, d.id, now) for name, d in joined.items() if d is not None]
        deliveries += rows
        incidents.append(
            replace(incident, told=incident.told | {row.sink: row.digest for row in rows})
        )
    for edge in edges:
        event = _event(edge)
        wait = edge.sudden and not calm
        calm = calm and not edge.sudden
        told = dict(edge.transition.incident.told)
        for audience in listeners:
            if event.edge in OPENINGS and audience.name not in told:
                digest = None if event.subject.is_cluster else joined[audience.name]
                deliveries += _opening(event, audience, digest, edge.silenced, now, told, wait)
            else:
                deliveries += _news(event, audience, told, edge.silenced, now)
        deliveries += _for_absent(event, {a.name for a in listeners}, told, now)
        events.append(event)
        incident = edge.transition.incident
        silenced = edge.silenced and not told if event.edge in OPENINGS else incident.silenced
        incidents.append(replace(incident, told=told, silenced=silenced))
    known = {**digests, **{d.id: d for d in joined.values() if d is not None}}
    threads = {a.name: a.threads for a in listeners}
    every = (*(event for event, _ in held), *events)
    opened = plan_digests(every, deliveries, known, threads, now)
    return Plan(
        (*events, *opened.events),
        (*deliveries, *opened.deliveries),
        tuple(incidents),
        opened.digests,
    )


def _digest_for(
    audience: Audience, digests: Mapping[str, Digest], storm: bool, now: datetime, cluster: str
) -> Digest | None:
    if not audience.chat:
        return None
    for digest in digests.values():
        if digest.sink == audience.name and now < digest.joins_until:
            return digest
    return Digest.begin(cluster, audience.name, now) if storm else None


def _event(edge: Planned) -> Event:
    t = edge.transition
    i = t.incident
    return Event(
        incident=i.id,
        sequence=i.sequence,
        edge=t.edge,
        subject=edge.subject,
        at=t.at,
        since=i.since,
        opened_at=i.opened_at,
        reason=i.reason,
        severity=i.severity,
        message=i.message,
        resolution=t.resolution,
        worsened=t.worsened,
        was_critical=i.was_critical,
        flapping=i.flapping,
        facts=edge.facts,
        blind_for=edge.blind_for.total_seconds() if edge.blind_for is not None else None,
        meanwhile=edge.meanwhile,
        unseen=edge.unseen,
    )


def _delivery(
    event: Event, sink: str, part: Part, due: datetime, state: DeliveryState = DeliveryState.PENDING,
    reason: str = "", digest: str = "",
) -> Delivery:  # fmt: skip
    return Delivery(
        sink, event.id, event.incident, event.sequence, part, due, state, reason, digest
    )


def _grouped(event: Event, sink: str, digest: str, now: datetime) -> Delivery:
    return _delivery(event, sink, Part.POST, now, DeliveryState.GROUPED, "storm", digest)


def _suppressed(event: Event, audience: Audience, reason: str, now: datetime) -> list[Delivery]:
    part = Part.POST if audience.chat else Part.EVENT
    return [_delivery(event, audience.name, part, now, DeliveryState.SUPPRESSED, reason)]


def _opening(
    event: Event,
    audience: Audience,
    digest: Digest | None,
    silenced: bool,
    now: datetime,
    told: dict[str, str],
    wait: bool,
) -> list[Delivery]:
    if silenced:
        return _suppressed(event, audience, "silenced", now)
    told[audience.name] = digest.id if digest is not None else ""
    if digest is not None:
        return [_grouped(event, audience.name, digest.id, now)]
    if not audience.chat:
        return [_delivery(event, audience.name, Part.EVENT, now)]
    return [_delivery(event, audience.name, Part.POST, now + GATHER if wait else now)]


def _news(
    event: Event, audience: Audience, told: Mapping[str, str], silenced: bool, now: datetime
) -> list[Delivery]:
    """What follows an opening: only for those who were told it."""
    if audience.name not in told:
        return _suppressed(event, audience, "never_told", now)
    if silenced and event.edge not in ENDS:
        return _suppressed(event, audience, "silenced", now)
    name = audience.name
    if digest := told[name]:
        return [_grouped(event, name, digest, now)]
    if not audience.chat:
        return [_delivery(event, name, Part.EVENT, now)]
    if audience.threads:
        return [_delivery(event, name, part, now) for part in (Part.EDIT, Part.REPLY)]
    if event.edge is Edge.UPDATED and not event.worsened:
        return _suppressed(event, audience, "not_worsened", now)
    return [_delivery(event, name, Part.POST, now)]


def _for_absent(
    event: Event, present: set[str], told: Mapping[str, str], now: datetime
) -> list[Delivery]:
    """A sink that was told and is configured no more keeps its row, or that of its digest."""
    if event.edge in OPENINGS:
        return []
    return [
        _grouped(event, sink, digest, now)
        if digest
        else sink_removed(_delivery(event, sink, Part.EVENT, now))
        for sink, digest in told.items()
        if sink not in present
    ]
