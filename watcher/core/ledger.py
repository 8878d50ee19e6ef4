"""What the record must add up to: every telling has its end, every delivery its state and reason."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from typing import Final

from msgspec import Struct

from watcher.core.delivery import Delivery, DeliveryState, Part
from watcher.core.events import ENDS, OPENINGS, Event
from watcher.core.model import Json, Subject
from watcher.core.retry import LONGEST_WAIT

UNSETTLED: Final = frozenset({DeliveryState.PENDING, DeliveryState.INFLIGHT, DeliveryState.PARKED})
"""The states that are not final."""
REDRIVABLE: Final = frozenset({DeliveryState.DEAD, DeliveryState.EXPIRED, DeliveryState.PARKED})
_NEEDS_REASON: Final = {DeliveryState.DEAD, DeliveryState.EXPIRED, DeliveryState.SUPPRESSED}


class LedgerRow(Struct, frozen=True):
    """One delivery in the history: who was told what, when, or why not."""

    delivery: Delivery
    event: Event
    attempts: int
    recorded_at: datetime
    settled_at: datetime | None
    error: str
    superseded_by: str = ""
    """The delivery that tells it instead."""
    redriven_at: datetime | None = None
    redriven_by: str = ""
    first_attempt_at: datetime | None = None
    """Of all, also those that `attempts` leaves out since they do not count towards giving up."""

    @property
    def late(self) -> float | None:
        """Seconds from the commit to its end; None while it has none."""
        if self.settled_at is None:
            return None
        return round(max((self.settled_at - self.recorded_at).total_seconds(), 0), 3)

    def as_json(self) -> Json:
        """All of it on one level, as `history -o json` and `/api/incidents` answer."""
        delivery, event = self.delivery, self.event
        return {
            "recorded_at": self.recorded_at, "settled_at": self.settled_at, "late": self.late,
            "cluster": event.subject.cluster, "subject": str(event.subject), "event": event.type,
            "incident_reason": event.reason, "resolution": event.resolution,
            "severity": event.severity, "at": event.at, "sink": delivery.sink,
            "part": delivery.part, "state": delivery.state,
            "reason": delivery.reason or self.error, "error": self.error,
            "attempts": self.attempts, "first_attempt_at": self.first_attempt_at,
            "due": delivery.due if self.settled_at is None else None,
            "superseded_by": self.superseded_by or None, "digest": delivery.digest or None,
            "redriven_at": self.redriven_at, "redriven_by": self.redriven_by or None,
            "incident": delivery.incident, "event_id": delivery.event, "delivery": delivery.id,
        }  # fmt: skip


class Kept(Struct, frozen=True):
    """One incident with all that is on record of it."""

    id: str
    subject: Subject
    sequence: int
    ended_at: datetime | None
    events: tuple[Event, ...]
    rows: tuple[LedgerRow, ...]
    strays: tuple[str, ...] = ()
    """Its deliveries that cannot be read or are not what their ids say, or whose events are not."""


class Finding(Struct, frozen=True):
    """Something that does not add up, in words; a remark is nothing wrong by itself."""

    incident: str
    subject: str
    problem: str
    remark: bool = False


class Echoed(Struct, frozen=True):
    """What an audit log tells of: events by id with their date, deliveries, and of which time."""

    events: Mapping[str, datetime]
    deliveries: Mapping[str, tuple[str, DeliveryState | None]]
    """By id: their event, and how they ended as far as the log knows."""
    first: datetime
    last: datetime

    def compare(self, kept: Kept) -> Iterator[Finding]:
        """A final state stays, unless somebody has it sent again; a kill may cost the log a line."""
        subject = str(kept.subject)
        for event in kept.events:
            if self.first <= event.at <= self.last and event.id not in self.events:
                what = f"event {event.sequence} ({event.edge}) was never echoed in the log"
                yield Finding(kept.id, subject, what, remark=True)
        for row in kept.rows:
            name, state = row.delivery.id, row.delivery.state
            what = f"{row.delivery.sink}: delivery {name}"
            _, end = self.deliveries.get(name, ("", None))
            if end not in (None, state) and row.redriven_at is None:
                yield Finding(kept.id, subject, f"{what} is {state}, and the log has it as {end}")
            elif name not in self.deliveries and self.first <= row.recorded_at <= self.last:
                yield Finding(kept.id, subject, f"{what} was never echoed in the log", remark=True)

    def missing(self, events: Set[str], deliveries: Set[str], since: datetime) -> Iterator[Finding]:
        """What the record should have too; of what happened before `since` it may know nothing."""
        lost = {f"event {name}": name for name, at in self.events.items()
                if at >= since and name not in events}  # fmt: skip
        lost |= {f"delivery {name}": event for name, (event, _) in self.deliveries.items()
                 if event in events and name not in deliveries}  # fmt: skip
        for what, event in sorted(lost.items()):
            incident = event.rpartition("-")[0]
            yield Finding(incident, "", f"the log tells of {what}, the record does not")


class Verification:
    """Checks a record, one incident after the other and then all of them together.

    `followed` are the incidents that some phase holds as open, `now` is wall time. What ended before
    `kept_since` may be half forgotten by now. `alive` says whether a process has the record in use.
    """

    def __init__(
        self, followed: Collection[str], now: datetime, kept_since: datetime, *, alive: bool
    ) -> None:
        self.counts = [0, 0, 0]
        """Incidents, events and deliveries seen."""
        self._followed = set(followed)
        self._now = now
        self._kept_since = kept_since
        self._alive = alive
        self._ended: dict[str, bool] = {}
        self._digests: dict[str, tuple[Event, set[str]]] = {}
        self._grouped: dict[str, set[str]] = {}
        self._events: set[str] = set()
        self._deliveries: set[str] = set()

    def verify(self, record: Iterable[Kept], echoed: Echoed | None = None) -> Iterator[Finding]:
        """Yield what is wrong, and with a log what is missing from either side."""
        for kept in record:
            self._remember(kept)
            last = max((event.at for event in kept.events), default=kept.ended_at)
            if kept.ended_at is None or last is None or last >= self._kept_since:
                subject = str(kept.subject)
                for problem in self._problems(kept):
                    yield Finding(kept.id, subject, problem)
                yield from echoed.compare(kept) if echoed else ()
        for incident in sorted(self._followed - self._ended.keys()):
            yield Finding(incident, "", "is followed as open, and is not on record")
        yield from self._digest_findings()
        if echoed:
            yield from echoed.missing(self._events, self._deliveries, self._kept_since)

    def _remember(self, kept: Kept) -> None:
        for number, count in enumerate((1, len(kept.events), len(kept.rows))):
            self.counts[number] += count
        self._ended[kept.id] = kept.ended_at is not None
        self._events.update(event.id for event in kept.events)
        self._deliveries.update((*(row.delivery.id for row in kept.rows), *kept.strays))
        named = {member for event in kept.events for member in event.members}
        if kept.subject.is_digest and kept.events:
            self._digests[kept.id] = kept.events[-1], named
        for row in kept.rows:
            if row.delivery.state is DeliveryState.GROUPED:
                self._grouped.setdefault(row.delivery.digest, set()).add(kept.id)

    def _problems(self, kept: Kept) -> Iterator[str]:
        yield from _in_sequence(kept)
        for stray in kept.strays:
            yield f"delivery {stray} or its event cannot be read, or is not what its id says"
        if kept.ended_at is None and kept.id not in self._followed:
            yield "is open, and nothing follows it: its end would never be told"
        if kept.ended_at is not None and kept.id in self._followed:
            yield "has ended, and is followed as open"
        yield from _untold(kept)
        # One that is superseded in turn has handed on what it was to tell.
        sent = (r.delivery for r in kept.rows if r.delivery.state is not DeliveryState.SUPERSEDED)
        telling, flying = {(d.id, d.sink) for d in sent}, set[str]()
        for row in kept.rows:
            sink, state = row.delivery.sink, row.delivery.state
            for problem in self._unsettled(row, telling):
                yield f"{sink}: delivery {row.delivery.id} is {state} {problem}"
            if state is DeliveryState.INFLIGHT and sink in flying:
                yield f"{sink}: more than one delivery is in flight, so their order is open"
            flying |= {sink} if state is DeliveryState.INFLIGHT else set()

    def _unsettled(self, row: LedgerRow, telling: Set[tuple[str, str]]) -> Iterator[str]:
        delivery, settled = row.delivery, row.settled_at is not None
        latest = self._now + LONGEST_WAIT
        if settled == (delivery.state in UNSETTLED):
            yield "and settled" if settled else "and not settled"
        match delivery.state:
            case DeliveryState.INFLIGHT if not self._alive:
                yield "and no process is running: the next one will send it again"
            case DeliveryState.PENDING | DeliveryState.PARKED if delivery.due > latest:
                yield f"and not due before {delivery.due:%Y-%m-%d %H:%M:%S}, which is too long"
            case DeliveryState.SUPERSEDED if (row.superseded_by, delivery.sink) not in telling:
                yield f"by {row.superseded_by or 'nothing'}, which tells nothing in its place"
            case DeliveryState.DELIVERED if row.first_attempt_at is None:
                yield "and was never tried"
            case DeliveryState.GROUPED if not delivery.digest:
                yield "in no digest"
            case state if state in _NEEDS_REASON and not (delivery.reason or row.error):
                yield "without a reason"

    def _digest_findings(self) -> Iterator[Finding]:
        for digest, (newest, named) in self._digests.items():
            grouped = self._grouped.pop(digest, set())
            if not self._ended[digest] or newest.at >= self._kept_since:
                for problem in self._in_digest(self._ended[digest], named, grouped):
                    yield Finding(digest, str(newest.subject), problem)
        for digest, members in self._grouped.items():
            for member in sorted(m for m in members if not self._ended[m]):
                yield Finding(member, "", f"is told by digest {digest}, which is not on record")

    def _in_digest(self, over: bool, named: set[str], grouped: set[str]) -> Iterator[str]:
        there = named & self._ended.keys()
        for member in sorted(there - grouped):
            yield f"names incident {member}, of which it tells nothing"
        for member in sorted(grouped - named):
            yield f"tells of incident {member}, which it does not name"
        lasting = sorted(member for member in there if not self._ended[member])
        if over and lasting:
            yield f"has ended, and incident {lasting[0]} in it has not"
        if not over and there == named and not lasting:
            yield "is open, and all in it has ended"


def _in_sequence(kept: Kept) -> Iterator[str]:
    """Events count from one, the first opens, only the last ends, and the incident stands there."""
    if not kept.events:
        yield "has no event on record"
        return
    numbers = {event.sequence for event in kept.events}
    last = kept.events[-1]
    for number in sorted(set(range(1, kept.sequence + 1)) - numbers):
        yield f"event {number} is missing"
    if last.sequence != kept.sequence:
        yield f"stands at event {kept.sequence}, and the newest on record is {last.sequence}"
    if kept.events[0].edge not in OPENINGS:
        yield f"begins with {kept.events[0].edge}"
    for event in kept.events[:-1]:
        if event.edge in ENDS:
            yield f"goes on after its end in event {event.sequence}"
    if kept.ended_at != (last.at if last.edge in ENDS else None):
        marked = f"ended at {kept.ended_at}" if kept.ended_at else "open"
        yield f"is marked as {marked}, and its newest event is {last.edge} at {last.at}"


def _untold(kept: Kept) -> Iterator[str]:
    """Each event has a row for somebody, and for each sink that was told of an opening before it."""
    rows: dict[int, dict[str, list[LedgerRow]]] = {event.sequence: {} for event in kept.events}
    for row in kept.rows:
        rows[row.event.sequence].setdefault(row.delivery.sink, []).append(row)
    told: set[str] = set()
    for event in kept.events:
        heard = rows[event.sequence]
        if not heard and event.subject.cluster:
            yield f"event {event.sequence} ({event.edge}) was told to nobody, without a reason"
        for sink in sorted(told | heard.keys()):
            for problem in _unheard(event, heard.get(sink, []), told=sink in told):
                yield f"{sink}: {problem}"
        if event.edge in OPENINGS:
            told |= {sink for sink, found in heard.items() if all(map(_stands, found))}


def _unheard(event: Event, rows: Sequence[LedgerRow], *, told: bool) -> Iterator[str]:
    """What is wrong with one sink's rows of an event, whether it was `told` of an opening or not."""
    which = f"event {event.sequence} ({event.edge})"
    held = next((row for row in rows if not _stands(row)), None)
    parts = {row.delivery.part for row in rows}
    if parts in ({Part.EDIT}, {Part.REPLY}):
        yield f"of {which} only the {parts.pop()} is on record"
    if event.edge in OPENINGS:
        return
    if not (told or held):
        yield f"is told {which}, and its opening is not on record as told"
    elif told and not rows:
        yield f"was told the opening, and {which} is not on record"
    elif told and held and event.edge in ENDS:
        yield f"was told the opening, and {which} was suppressed ({held.delivery.reason})"


def _stands(row: LedgerRow) -> bool:
    return row.delivery.state is not DeliveryState.SUPPRESSED
