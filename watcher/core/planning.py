"""An edge becomes deliveries, or a recorded reason why not: who is told what, in which parts."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from watcher.core.delivery import Delivery, DeliveryState, Part
from watcher.core.digests import GATHER, Digest, plan_digests, sink_removed
from watcher.core.events import ENDS, OPENINGS, Edge, Event, Facts, Incident, Meanwhile, Transition
from watcher.core.model import Baseline, Subject
from watcher.core.phases import Pending, Phase, Steady


class Audience(Struct, frozen=True):
    """What planning must know of a sink."""

    name: str
    chat: bool = False
    threads: bool = False
    routed: bool = True
    """Whether the route reaches it: if not, it hears only how it goes on with what it was told."""


class Draft(Struct, frozen=True):
    """What one subject is about to become, and the edge to tell, if there is one."""

    subject: Subject
    phase: Phase
    baseline: Baseline | None = None
    transition: Transition | None = None
    facts: Facts | None = None
    silenced: bool = False
    blind_for: float | None = None
    """Seconds without sight, as on the event."""
    meanwhile: Meanwhile | None = None
    rewound: bool = False
    unseen: bool = False
    forget: bool = False
    """The subject is gone: its row goes with its last edge, unless a successor may need its baseline."""
    sudden: bool = False
    """It opens without having been pending, so that no storm could be seen coming."""
    before: Phase | None = None
    """What it is now."""

    @property
    def drops_row(self) -> bool:
        """Whether nothing of it stays in the store."""
        return self.forget and self.baseline is None

    @property
    def debounced(self) -> Pending | None:
        """The fault that is over before anybody was to be told of it."""
        over = isinstance(self.phase, Steady) and isinstance(self.before, Pending)
        return self.before if over and isinstance(self.before, Pending) else None


class Plan(Struct, frozen=True):
    """What is to be recorded, and the incidents as they stand with who was told."""

    events: tuple[Event, ...]
    deliveries: tuple[Delivery, ...]
    incidents: tuple[Incident, ...]
    digests: tuple[Digest, ...]


def plan(
    drafts: Iterable[Draft],
    audiences: Iterable[Audience],
    now: datetime,
    *,
    digests: Mapping[str, Digest],
    storm: bool,
    cluster: str,
    calm: bool = True,
    held: Sequence[tuple[Event, Incident]] = (),
) -> Plan:
    """Plan the edges of those drafts that have one: they are of one cluster and committed together.

    `digests` are the open ones by id; with `storm`, openings join one, new or open, and so do those
    of `held`, whose posts still wait. Unless all was `calm`, sudden ones wait: they may be a storm.
    """
    listeners = {audience.name: audience for audience in audiences}
    found = {n: _digest_for(a, digests, storm, now, cluster) for n, a in listeners.items()}
    joined = {name: digest for name, digest in found.items() if digest is not None}
    events: list[Event] = []
    deliveries: list[Delivery] = []
    incidents: list[Incident] = []
    for event, incident in held:
        joins = {name: digest.id for name, digest in joined.items() if not incident.told.get(name)}
        deliveries += [_grouped(event, name, digest, now) for name, digest in joins.items()]
        incidents.append(replace(incident, told=incident.told | joins))
    for draft in drafts:
        if (edge := draft.transition) is None:
            continue
        event = replace(
            edge.event(draft.subject), facts=draft.facts, blind_for=draft.blind_for,
            meanwhile=draft.meanwhile, rewound=draft.rewound, unseen=draft.unseen,
        )  # fmt: skip
        wait = draft.sudden and not calm
        calm = calm and not draft.sudden
        told = dict(edge.incident.told)
        for name, audience in listeners.items():
            digest = joined[name].id if name in joined and not event.subject.is_cluster else ""
            deliveries += _tell(event, audience, told, digest, draft.silenced, now, wait)
        deliveries += _for_absent(event, listeners.keys(), told, now)
        events.append(event)
        opens = event.edge in OPENINGS
        silenced = draft.silenced and not told if opens else edge.incident.silenced
        incidents.append(replace(edge.incident, told=told, silenced=silenced))
    known = {**digests, **{digest.id: digest for digest in joined.values()}}
    threads = {name: audience.threads for name, audience in listeners.items()}
    every = (*(event for event, _ in held), *events)
    opened = plan_digests(every, deliveries, known, threads, now)
    return Plan(
        (*events, *(event for _, event, _ in opened)),
        (*deliveries, *(row for _, _, rows in opened for row in rows)),
        tuple(incidents),
        tuple(digest for digest, _, _ in opened),
    )


def _digest_for(
    audience: Audience, digests: Mapping[str, Digest], storm: bool, now: datetime, cluster: str
) -> Digest | None:
    if not (audience.chat and audience.routed):
        return None
    for digest in digests.values():
        if digest.sink == audience.name and now < digest.joins_until:
            return digest
    return Digest.begin(cluster, audience.name, now) if storm else None


def _delivery(
    told: Event, sink: str, part: Part, due: datetime, state: DeliveryState = DeliveryState.PENDING,
    reason: str = "", digest: str = "",
) -> Delivery:  # fmt: skip
    return Delivery(sink, told.id, told.incident, told.sequence, part, due, state, reason, digest)


def _grouped(event: Event, sink: str, digest: str, now: datetime) -> Delivery:
    return _delivery(event, sink, Part.POST, now, DeliveryState.GROUPED, "storm", digest)


def _tell(
    event: Event, audience: Audience, told: dict[str, str], digest: str, silenced: bool,
    now: datetime, wait: bool,
) -> list[Delivery]:  # fmt: skip
    """One audience's rows; an opening that it is told, in a digest or not, is noted in `told`."""
    name, single = audience.name, Part.POST if audience.chat else Part.EVENT
    opens = event.edge in OPENINGS and name not in told
    if why_not := _why_not(event, audience, told, silenced):
        return [_delivery(event, name, single, now, DeliveryState.SUPPRESSED, why_not)]
    if opens:
        told[name] = digest
    if told[name]:
        return [_grouped(event, name, told[name], now)]
    if opens:
        return [_delivery(event, name, single, now + GATHER if wait and audience.chat else now)]
    parts = (Part.EDIT, Part.REPLY) if audience.threads else (single,)
    return [_delivery(event, name, part, now) for part in parts]


def _why_not(event: Event, audience: Audience, told: Mapping[str, str], silenced: bool) -> str:
    """What follows an opening is only for those who were told it; empty if this one is."""
    if audience.name not in told and not (event.edge in OPENINGS and audience.routed):
        return "no_route" if event.edge in OPENINGS else "never_told"
    if silenced and event.edge not in ENDS:
        return "silenced"
    posts_only = audience.chat and not audience.threads and not told.get(audience.name)
    mild = event.edge is Edge.UPDATED and not event.worsened
    return "not_worsened" if posts_only and mild else ""


def _for_absent(
    event: Event, present: Collection[str], told: Mapping[str, str], now: datetime
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
