"""Decisions become one committed transaction: phases, incidents, events and deliveries together."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from watcher.core.digests import Digest
from watcher.core.model import (
    Baseline,
    Clearing,
    Facts,
    Firing,
    Incident,
    Phase,
    Subject,
    Transition,
)
from watcher.core.planning import Audience, Planned, plan
from watcher.errors import StoreError
from watcher.ports import Record, Saved, Store


class Draft(Struct, frozen=True):
    """What one subject is about to become."""

    subject: Subject
    phase: Phase
    baseline: Baseline | None = None
    transition: Transition | None = None
    facts: Facts | None = None
    silenced: bool = False
    blind_for: timedelta | None = None
    forget: bool = False
    """The subject is gone: its row goes with its last edge."""


class Recorder:
    """Plans and commits the drafts of one cluster, and keeps its open digests."""

    def __init__(
        self,
        cluster: str,
        store: Store,
        audiences: Sequence[Audience],
        committed: Callable[[Record], None],
        failed: Callable[[StoreError], None],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._audiences = tuple(audiences)
        self._committed = committed
        self._failed = failed
        self._digests: dict[str, Digest] = {}

    def restore(self, saved: Sequence[Saved]) -> None:
        """Take up the digests that a former process left open."""
        members: dict[str, int] = {}
        for row in saved:
            if isinstance(row.phase, Firing | Clearing):
                for name in filter(None, row.phase.incident.told.values()):
                    members[name] = members.get(name, 0) + 1
        for row in saved:
            if row.subject.is_digest and isinstance(row.phase, Firing):
                count = members.get(row.phase.incident.id, 0)
                digest = Digest.restore(row.subject, row.phase, count)
                self._digests[digest.id] = digest

    async def commit(
        self, drafts: Sequence[Draft], now: datetime, storm: bool = False
    ) -> list[Phase]:
        """Record the drafts and return their phases as stored; raises StoreError, and then none is."""
        edges = [
            Planned(d.subject, d.transition, d.facts, d.silenced, d.blind_for)
            for d in drafts
            if d.transition is not None
        ]
        planned = plan(
            edges, self._audiences, now, digests=self._digests, storm=storm, cluster=self._cluster
        )
        incidents = {incident.id: incident for incident in planned.incidents}
        phases = [_with_told(draft.phase, incidents) for draft in drafts]
        pairs = list(zip(drafts, phases, strict=True))
        ended = [d for d in planned.digests if d.open <= 0]
        record = Record(
            saved=(
                *(Saved(d.subject, phase, d.baseline) for d, phase in pairs if not d.forget),
                *(Saved(d.subject, d.phase) for d in planned.digests if d.open > 0),
            ),
            forgotten=(*(d.subject for d in drafts if d.forget), *(d.subject for d in ended)),
            events=planned.events,
            deliveries=planned.deliveries,
        )
        try:
            await self._store.record(record, now)
        except StoreError as error:
            self._failed(error)
            raise
        self._digests.update({d.id: d for d in planned.digests})
        for digest in ended:
            self._digests.pop(digest.id, None)
        self._committed(record)
        return phases


def _with_told(phase: Phase, incidents: Mapping[str, Incident]) -> Phase:
    if isinstance(phase, Firing | Clearing) and (told := incidents.get(phase.incident.id)):
        return replace(phase, incident=told)
    return phase
