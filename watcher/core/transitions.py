"""The one state machine of every subject: verdicts and time in, phases and told edges out.

    steady ──degraded──▶ pending ──hold over──▶ firing ◀──not healthy── clearing
      ▲                     │                     │  └─────healthy────────▲ │
      └──anything settled───┘                     └──closed──▶ steady ◀─recovered

Everything that moves a subject between phases is in this file. `at` of an edge is its deadline,
so that when the loop woke up changes nothing.
"""

from datetime import datetime, timedelta

from msgspec.structs import replace

from watcher.core import flapping
from watcher.core.events import Edge, Incident, Resolution, Transition, incident_id
from watcher.core.model import Assessment, Health, Severity, Subject
from watcher.core.phases import Clearing, Firing, History, Pending, Phase, Settling, Steady
from watcher.core.policy import Flapping, HealthPolicy

STEADY = Steady()
NO_TIME = timedelta(0)
_NO_NEWS = ("spec_not_observed", "malformed")
_WORSE = Severity.WARNING, Severity.CRITICAL
_CLOSING = {
    Health.SCALED_TO_ZERO: Resolution.SCALED_TO_ZERO,
    Health.PAUSED: Resolution.PAUSED,
    Health.DELETING: Resolution.DELETED,
}

Step = tuple[Phase, Transition | None]


def observe(
    phase: Phase,
    verdict: Assessment,
    now: datetime,
    policy: HealthPolicy,
    subject: Subject,
    *,
    hold: timedelta,
    began: datetime | None = None,
    short: bool = False,
    seed: datetime | None = None,
    seen: datetime | None = None,
    blind: bool = False,
) -> Step:
    """Move on by a verdict. Deadlines that were due before it have been expired already.

    `hold` is how long this verdict must stand; `began` is when what it tells began, if before it;
    `short` says whether serving is below the floor; `seed`, given only at a first sight after a
    start or a blind window, is when a condition of the object itself says that the fault began;
    `seen` is up to when the former verdict is known to have been true, unless that is now; `blind`
    keeps holds from running out, since more news may be on its way.
    """
    until = now if seen is None else min(seen, now)
    match phase:
        case Steady() | Pending():
            if verdict.health is not Health.DEGRADED:
                return _not_degraded(phase, verdict, until), None
            seed = seed and min(seed, now)
            phase = _hold(phase, verdict, now, hold, seed, began, policy.flapping)
            phase = _with_falls_before(phase, short, now, until, policy.flapping)
            due = _due(phase)
            return (phase, None) if blind or due > now else _open(phase, now, policy, subject)
        case Firing() | Clearing():
            return _announced(phase, verdict, now, policy, short, until)


def expire(
    phase: Phase, now: datetime, policy: HealthPolicy, subject: Subject, at: datetime | None = None
) -> Step:
    """Move on by time alone. `at` dates the edge where the deadline passed out of sight."""
    due = deadline(phase)
    if isinstance(phase, Steady) or due is None or due > now:
        return phase, None
    at = at or due
    match phase:
        case Pending():
            return _open(phase, at, policy, subject)
        case Firing(settling=Settling() as settled):
            return _change(phase, settled.reason, settled.severity, phase.incident.message, at)
        case Firing():
            incident = replace(_next(phase.incident), flapping=False, flaps=None)
            return Firing(incident), Transition(Edge.UPDATED, at, incident)
        case Clearing():
            return _recover(phase, at, policy.flapping)


def close(phase: Phase, resolution: Resolution, now: datetime) -> Step:
    """End whatever is open, for a reason other than health."""
    match phase:
        case Firing() | Clearing():
            incident = _next(_with_fall(phase.incident, phase.history, now))
            history = History() if incident.flapping else flapping.over(phase.history, now)
            return Steady(history), Transition(Edge.CLOSED, now, incident, resolution)
        case Pending():
            return Steady(flapping.over(phase.history, now)), None
        case Steady():
            return phase, None


def announce(phase: Firing, now: datetime) -> Step:
    """Tell an opening that a silence kept from everybody, now that the silence is over."""
    incident = _next(phase.incident)
    edge = Edge.FLAPPING if incident.flapping else Edge.DEGRADED
    return replace(phase, incident=incident), Transition(edge, now, incident)


def with_numbers_of_now(step: Step, verdict: Assessment) -> Step:
    """Announce what is true now: numbers that changed during a hold were worth no write."""
    phase, told = step
    if told is None or not isinstance(phase, Firing) or told.incident.reason != verdict.reason:
        return step
    incident = replace(told.incident, message=verdict.message)
    return replace(phase, incident=incident), replace(told, incident=incident)


def deadline(phase: Phase) -> datetime | None:
    """When time alone moves the phase on."""
    match phase:
        case Pending(blocked=True) | Steady():
            return None
        case Pending():
            return _due(phase)
        case Firing(settling=Settling(due=due)):
            return due
        case _:
            return phase.due


def restart_clearing(phase: Phase, now: datetime, policy: HealthPolicy) -> Phase:
    """After an outage of the cluster, health must be shown anew."""
    if not isinstance(phase, Clearing):
        return phase
    return replace(phase, due=now + _clear_for(phase.incident, policy))


def _due(phase: Pending) -> datetime:
    return phase.due if phase.flaps_at is None else min(phase.due, phase.flaps_at)


def _not_degraded(phase: Steady | Pending, verdict: Assessment, until: datetime) -> Phase:
    if isinstance(phase, Steady):
        return phase
    history = flapping.over(phase.history, until)
    if verdict.health is Health.UNKNOWN or verdict.reason in _NO_NEWS:
        return phase if phase.blocked else replace(phase, blocked=True, history=history)
    return Steady(history)


def _hold(
    phase: Steady | Pending, verdict: Assessment, now: datetime, hold: timedelta,
    seed: datetime | None, began: datetime | None, policy: Flapping,
) -> Pending:  # fmt: skip
    severity = verdict.severity or Severity.WARNING
    if isinstance(phase, Steady):
        since = seed or now
        history = flapping.began(phase.history, now, policy)
        due, reason, message = since + hold, verdict.reason, verdict.message
        pending = Pending(since, due, hold, reason, severity, message, history=history)
        return replace(pending, began_at=began)
    since, due = phase.since, phase.due
    if seed is not None and seed > since:
        since, due = seed, seed + hold
    elif hold < phase.hold or (phase.severity, severity) == _WORSE:
        due = min(due, now + hold)
    elif hold != phase.hold or verdict.reason != phase.reason:
        due = since + hold
    why = verdict.reason, severity, phase.message
    changed = Pending(
        since, due, hold, *why, history=phase.history, flaps_at=phase.flaps_at, began_at=began
    )
    # A message that alone changed (a counter in it) is worth no write.
    return phase if changed == phase else replace(changed, message=verdict.message)


def _with_falls_before(
    phase: Pending, short: bool, now: datetime, until: datetime, policy: Flapping
) -> Pending:
    """What comes and goes within its hold has one hold together, from so many episodes on."""
    history = flapping.weighed(phase.history, short, now, until)
    flaps_at = flapping.adds_up_at(history, phase.hold, policy)
    if history is phase.history and flaps_at == phase.flaps_at:
        return phase
    return replace(phase, history=history, flaps_at=flaps_at)


def _open(phase: Pending, at: datetime, policy: HealthPolicy, subject: Subject) -> Step:
    limits, history = policy.flapping, flapping.recent(phase.history, at, policy.flapping)
    flaps = (
        len(history.recoveries) >= limits.cycles
        or len(history.episodes[:-1]) >= limits.episodes  # the last one is this one
        or (phase.flaps_at is not None and phase.flaps_at <= at)
    )
    # The episodes tell apart what opens, ends and opens again at one instant.
    nth = f"{len(phase.history.episodes)}{flaps}"
    name = incident_id(at, subject.cluster, subject.uid, phase.since.isoformat(), nth)
    incident = Incident(
        name, at, phase.began, phase.reason, phase.severity, phase.message, sequence=1,
        was_critical=phase.severity is Severity.CRITICAL, flapping=flaps,
        flaps=flapping.counted(phase.history, at) if flaps else None,
    )  # fmt: skip
    due = max(at, phase.since + limits.stable) if flaps else None
    edge = Edge.FLAPPING if flaps else Edge.DEGRADED
    return Firing(incident, due, history), Transition(edge, at, incident)


def _announced(
    phase: Firing | Clearing, verdict: Assessment, now: datetime, policy: HealthPolicy,
    short: bool, until: datetime,
) -> Step:  # fmt: skip
    if resolution := _CLOSING.get(verdict.health):
        after, closed = close(phase, resolution, now)
        still_there = verdict.health is Health.DELETING
        return after, closed and replace(closed, still_there=still_there)
    match verdict.health:
        case Health.HEALTHY:
            return _clear(phase, now, until, policy)
        case Health.DEGRADED:
            return _still_degraded(phase, verdict, now, policy, short, until)
        case _:
            if isinstance(phase, Firing) and phase.due is None and phase.history.falling is None:
                return phase, None
            incident = _with_fall(phase.incident, phase.history, until)
            return Firing(incident, None, flapping.over(phase.history, until)), None


def _clear(phase: Firing | Clearing, now: datetime, until: datetime, policy: HealthPolicy) -> Step:
    if isinstance(phase, Clearing):
        return phase, None
    incident = _with_fall(phase.incident, phase.history, until)
    due = now + _clear_for(incident, policy)
    clearing = Clearing(incident, due, flapping.over(phase.history, until))
    return _recover(clearing, now, policy.flapping) if due <= now else (clearing, None)


def _with_fall(incident: Incident, history: History, until: datetime) -> Incident:
    """Add the fall that is over to what is told of a flapping incident."""
    if incident.flaps is None or history.falling is None:
        return incident
    lasted = max(NO_TIME, until - max(history.falling, incident.opened_at))
    flaps = replace(incident.flaps, lasted=incident.flaps.lasted + lasted)
    return replace(incident, flaps=flaps)


def _clear_for(incident: Incident, policy: HealthPolicy) -> timedelta:
    return policy.flapping.stable if incident.flapping else policy.recovered_for


def _still_degraded(
    phase: Firing | Clearing, verdict: Assessment, now: datetime, policy: HealthPolicy,
    short: bool, until: datetime,
) -> Step:  # fmt: skip
    limits = policy.flapping
    incident, severity = phase.incident, verdict.severity or Severity.WARNING
    history, due = phase.history, phase.due if isinstance(phase, Firing) else None
    if isinstance(phase, Clearing):
        history = flapping.began(history, now, limits)
        if (flaps := incident.flaps) is not None:
            incident = replace(incident, flaps=replace(flaps, times=flaps.times + 1))
    if not short:
        incident = _with_fall(incident, history, until)
    history = flapping.weighed(history, short, now, until)
    if incident.flapping and due is None:
        due = now + limits.stable
    still = Firing(incident, due, history)
    if (incident.reason, incident.severity) == (verdict.reason, severity):
        return (phase if still == phase else still), None
    if incident.flapping:  # it was told once, and is quiet until it is stable
        incident = _as_it_is(incident, verdict.reason, severity, verdict.message)
        return replace(still, incident=incident), None
    if not incident.wavers or (incident.severity, severity) == _WORSE:
        return _change(still, verdict.reason, severity, verdict.message, now, limits.stable)
    still = replace(still, settling=_settling(phase, verdict, now + policy.recovered_for))
    return (phase if still == phase else still), None


def _settling(phase: Firing | Clearing, verdict: Assessment, due: datetime) -> Settling:
    settling = Settling(due, verdict.reason, verdict.severity or Severity.WARNING)
    before = phase.settling if isinstance(phase, Firing) else None
    return before if before and replace(before, due=due) == settling else settling


def _change(
    phase: Firing, reason: str, severity: Severity, message: str, now: datetime,
    stable: timedelta = NO_TIME,
) -> Step:  # fmt: skip
    """Tell another reason or severity. So soon after the last one, getting worse again is no alarm."""
    before = phase.incident
    soon = before.changed_at is not None and now - before.changed_at < stable
    incident = _as_it_is(before, reason, severity, message)
    incident = replace(_next(incident), changed_at=now, wavers=before.wavers or soon)
    worsened = (before.severity, severity) == _WORSE and not soon
    told = Transition(Edge.UPDATED, now, incident, worsened=worsened)
    return Firing(incident, phase.due, phase.history), told


def _as_it_is(incident: Incident, reason: str, severity: Severity, message: str) -> Incident:
    was_critical = incident.was_critical or severity is Severity.CRITICAL
    return replace(
        incident, reason=reason, severity=severity, message=message, was_critical=was_critical
    )


def _recover(phase: Clearing, at: datetime, limits: Flapping) -> Step:
    history = History()
    if not phase.incident.flapping:
        history = flapping.recent(phase.history, at, limits)
        history = replace(history, recoveries=(*history.recoveries, at))
    incident = _next(phase.incident)
    return Steady(history), Transition(Edge.RECOVERED, at, incident)


def _next(incident: Incident) -> Incident:
    return replace(incident, sequence=incident.sequence + 1)
