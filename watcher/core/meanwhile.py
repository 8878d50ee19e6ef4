"""What changed while a cluster could not be seen: each Deployment before, beside what is true after."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from msgspec import Struct

from watcher.core import annotations
from watcher.core.events import Change, Changes, Meanwhile
from watcher.core.health import fault_asserted_at
from watcher.core.model import Assessment, DeploymentSnapshot, Health
from watcher.core.phases import Firing, Pending, Phase

NAMED: Final = 25
"""Of each kind: the report must fit into one webhook; how many there are is always told."""


class Seen(Struct, frozen=True):
    """One Deployment on both sides of a blind window."""

    phase: Phase | None
    """How it stood; None where neither this process nor the store has known it."""
    before: DeploymentSnapshot | None
    """None where this process had not seen it before."""
    after: DeploymentSnapshot
    verdict: Assessment


def report(seen: Iterable[Seen], deleted: Iterable[Change], blind_from: datetime) -> Meanwhile:
    """Say what became of those that were seen again, and name those that were not."""
    kinds: dict[str, list[Change]] = {"deleted": list(deleted)}
    for one in seen:
        s = one.after
        kind, at = _kind(one, blind_from)
        overrides = annotations.read(s.annotations)
        if kind and not overrides.ignore and not overrides.silenced(blind_from):
            reason = one.verdict.reason if kind == "degraded" else ""
            kinds.setdefault(kind, []).append(Change(s.namespace, s.name, reason, at))
    return Meanwhile(**{kind: _bounded(changes) for kind, changes in kinds.items()})


def _kind(one: Seen, blind_from: datetime) -> tuple[str, datetime | None]:
    if one.verdict.health is Health.DEGRADED:
        at = fault_asserted_at(one.after, one.verdict)
        new = one.phase is not None or (at is not None and at >= blind_from)
        return ("degraded" if new and not isinstance(one.phase, Firing | Pending) else ""), at
    at = one.after.available_since
    if isinstance(one.phase, Firing):
        return ("recovered" if one.verdict.health is Health.HEALTHY else ""), at
    back = isinstance(one.phase, Pending) or (at is not None and _went_down(one, at, blind_from))
    return ("returned" if back else ""), at


def _went_down(one: Seen, up_since: datetime, blind_from: datetime) -> bool:
    """Available both before and after, but not since the same moment; no two clocks are compared
    unless what was before is not known."""
    if one.before is not None:
        return one.before.available_since not in (None, up_since)
    created_at = one.after.created_at
    return created_at is not None and created_at < blind_from <= up_since


def _bounded(changes: list[Change]) -> Changes:
    named = sorted(changes, key=lambda change: (change.namespace, change.name))
    return Changes(len(changes), tuple(named[:NAMED]))
