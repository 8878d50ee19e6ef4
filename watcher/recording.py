"""Decisions become one committed transaction: phases, incidents, events and deliveries together."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from msgspec.structs import replace

from watcher.core import transitions
from watcher.core.delivery import Part
from watcher.core.digests import GATHER, Digest
from watcher.core.events import OPENINGS, Event, Incident, Resolution
from watcher.core.phases import Clearing, Firing, Phase
from watcher.core.planning import Audience, Draft, Plan, plan
from watcher.errors import StoreError
from watcher.ports import Claim, Clock, Record, Saved, Store

_SURELY_UNSENT: Final = GATHER * 3 / 4
"""A post that waits so much longer will not be taken while a commit is under way."""

_PRECEDENCE: Final = 0.003
"""Seconds that what was handed over has the loop to itself."""


class Courier(Protocol):
    """A dispatcher that a commit may hand a delivery to: the way over the queue takes longer."""

    def lend(self) -> bool:
        """Whether it is idle; then it takes nothing else before `give`."""

    def give(self, claims: Mapping[str, Claim] | None) -> None:
        """What was claimed, by sink; None if that is unsure."""


@dataclass(eq=False)
class Recorder:
    """Plans and commits the drafts of one cluster, and keeps its open digests.

    `audiences` are asked for at each commit: a reload exchanges what is in the list.
    """

    cluster: str
    store: Store
    audiences: Sequence[Audience]
    committed: Callable[[Record], None]
    failed: Callable[[StoreError], None]
    couriers: Mapping[str, Courier] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._digests: dict[str, Digest] = {}
        self._opened_at: datetime | None = None
        self._held: dict[str, Event] = {}
        """Openings of the last moment whose posts wait, by incident."""
        self.writes = False
        """Until the store has been read, and on standby, decisions are made but not recorded."""

    def restore(self, saved: Sequence[Saved]) -> None:
        """Take up the digests that a former process left open, and record from now on."""
        self.writes = True
        stand = [row.phase.incident for row in saved if isinstance(row.phase, Firing | Clearing)]
        members = Counter(digest for incident in stand for digest in incident.told.values())
        for row in saved:
            if row.subject.is_digest and isinstance(row.phase, Firing):
                digest = Digest.restore(row.subject, row.phase, members[row.phase.incident.id])
                self._digests[digest.id] = digest

    async def commit(
        self, drafts: Sequence[Draft], now: datetime, storm: bool = False
    ) -> list[Phase]:
        """Record the drafts and return their phases as stored; raises StoreError, and then none is."""
        calm = self._opened_at is None or now - self._opened_at >= GATHER
        planned = plan(
            drafts, self.audiences, now, digests=self._digests, storm=storm, cluster=self.cluster,
            calm=calm, held=[*self._still_held(drafts, now)] if storm else (),
        )  # fmt: skip
        incidents = {incident.id: incident for incident in planned.incidents}
        phases = [_with_told(draft.phase, incidents) for draft in drafts]
        pairs = list(zip(drafts, phases, strict=True))
        ended = [d for d in planned.digests if d.open <= 0]
        record = Record(
            saved=(
                *(Saved(d.subject, phase, d.baseline) for d, phase in pairs if not d.drops_row),
                *(Saved(d.subject, d.phase) for d in planned.digests if d.open > 0),
            ),
            forgotten=(*(d.subject for d in drafts if d.drops_row), *(d.subject for d in ended)),
            events=planned.events,
            deliveries=planned.deliveries,
            debounced=tuple((d.subject, d.debounced) for d in drafts if d.debounced is not None),
        )
        await self._write(record, now)
        self._digests.update({d.id: d for d in planned.digests})
        for digest in ended:
            self._digests.pop(digest.id, None)
        self._hold(planned, now)
        return phases

    async def _write(self, record: Record, now: datetime) -> None:
        if not self.writes:
            return
        due = {d.sink for d in record.deliveries if d.part is Part.EVENT and d.due <= now}
        free = {sink: each for sink, each in self.couriers.items() if sink in due}
        lent = {sink: each for sink, each in free.items() if each.lend()}
        claims = None
        try:
            claims = await self.store.record(record, now, lent.keys())
        except StoreError as error:
            self.failed(error)
            raise
        finally:
            for each in lent.values():
                each.give(claims)
        self.committed(record)
        if lent:
            # They go first: what is left to do here would run while they wait for their socket.
            await asyncio.sleep(_PRECEDENCE)  # noqa: TID251 - too short for anybody's clock

    def _still_held(
        self, drafts: Sequence[Draft], now: datetime
    ) -> Iterator[tuple[Event, Incident]]:
        """Incidents whose posts cannot have been taken yet, and which have no other news."""
        for draft in drafts:
            if draft.transition is None and isinstance(draft.phase, Firing):
                event = self._held.get(draft.phase.incident.id)
                if event is not None and now - event.at < _SURELY_UNSENT:
                    yield event, draft.phase.incident

    def _hold(self, planned: Plan, now: datetime) -> None:
        waiting = {d.incident for d in planned.deliveries if d.part is Part.POST and d.due > now}
        openings = [e for e in planned.events if e.edge in OPENINGS and not e.digest]
        if openings:
            self._opened_at = now
        held = {i: e for i, e in self._held.items() if now - e.at < _SURELY_UNSENT}
        self._held = held | {e.incident: e for e in openings if e.incident in waiting}


async def close_departed(
    watched: Collection[str],
    store: Store,
    clock: Clock,
    audiences: Sequence[Audience],
    committed: Callable[[Record], None],
) -> None:
    """Close what is open of clusters no longer configured, and forget it. Raises StoreError."""
    for name in await store.clusters():
        if name in watched or not name:  # the watcher's own have none
            continue
        now = clock.now()
        saved = await store.load(name)
        recorder = Recorder(name, store, audiences, committed, lambda _: None)
        recorder.restore(saved)
        drafts = []
        for row in saved:
            if not row.subject.is_digest:  # it ends with the last of its incidents
                phase, transition = transitions.close(row.phase, Resolution.NOT_WATCHED, now)
                drafts.append(Draft(row.subject, phase, transition=transition, forget=True))
        await recorder.commit(drafts, now)


def _with_told(phase: Phase, incidents: Mapping[str, Incident]) -> Phase:
    if isinstance(phase, Firing | Clearing) and (told := incidents.get(phase.incident.id)):
        return replace(phase, incident=told)
    return phase
