"""The one state machine of every subject: verdicts and time in, phases and told edges out.

    steady ──degraded──▶ pending ──hold over──▶ firing ◀──not healthy── clearing
      ▲                     │                     │  └─────healthy────────▲ │
      └──anything settled───┘                     └──closed──▶ steady ◀─recovered

Everything that moves a subject between phases is in this file. `at` of an edge is its deadline,
so that when the loop woke up changes nothing.
"""

from datetime import datetime, timedelta

from msgspec.structs import replace

from watcher.core.events import Edge, Incident, Resolution, Transition, incident_id
from watcher.core.model import Assessment, Health, Severity, Subject
from watcher.core.phases import Clearing, Firing, History, Pending, Phase, Steady
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
    seed: datetime | None = None,
    blind: bool = False,
) -> Step:
    """Move on by a verdict. Deadlines that were due before it have been expired already.

    `hold` is how long this verdict must stand; `began` is when what it tells began, if before it;
    `seed`, given only at a first sight after a start
    or a blind window, is when a condition of the object itself says that the fault began; `blind`
    keeps holds from running out, since more news may be on its way.
    """
    match phase:
        case Steady() | Pending():
            if verdict.health is not Health.DEGRADED:
                return _not_degraded(phase, verdict), None
            seed = seed and min(seed, now)
            phase = _hold(phase, verdict, now, hold, seed, began, policy.flapping)
            return (phase, None) if blind or phase.due > now else _open(phase, now, policy, subject)
        case Firing() | Clearing():
            return _announced(phase, verdict, now, policy)


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
        case Firing():
            incident = replace(_next(phase.incident), flapping=False)
            return Firing(incident), Transition(Edge.UPDATED, at, incident)
        case Clearing():
            return _recover(phase, at, policy.flapping)


def close(phase: Phase, resolution: Resolution, now: datetime) -> Step:
    """End whatever is open, for a reason other than health."""
    match phase:
        case Firing() | Clearing():
            incident = _next(phase.incident)
            history = History() if incident.flapping else phase.history
            return Steady(history), Transition(Edge.CLOSED, now, incident, resolution)
        case Pending():
            return Steady(phase.history), None
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
        case _:
            return phase.due


def restart_clearing(phase: Phase, now: datetime, policy: HealthPolicy) -> Phase:
    """After an outage of the cluster, health must be shown anew."""
    if not isinstance(phase, Clearing):
        return phase
    return replace(phase, due=now + _clear_for(phase.incident, policy))


def _not_degraded(phase: Steady | Pending, verdict: Assessment) -> Phase:
    if isinstance(phase, Steady):
        return phase
    if verdict.health is Health.UNKNOWN or verdict.reason in _NO_NEWS:
        return phase if phase.blocked else replace(phase, blocked=True)
    return Steady(phase.history)


def _hold(
    phase: Steady | Pending, verdict: Assessment, now: datetime, hold: timedelta,
    seed: datetime | None, began: datetime | None, flapping: Flapping,
) -> Pending:  # fmt: skip
    severity = verdict.severity or Severity.WARNING
    if isinstance(phase, Steady):
        since = seed or now
        history = _episode(phase.history, now, flapping)
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
    changed = Pending(since, due, hold, *why, history=phase.history, began_at=began)
    # A message that alone changed (a counter in it) is worth no write.
    return phase if changed == phase else replace(changed, message=verdict.message)


def _open(phase: Pending, at: datetime, policy: HealthPolicy, subject: Subject) -> Step:
    flapping, history = policy.flapping, _recent(phase.history, at, policy.flapping)
    flaps = (
        len(history.recoveries) >= flapping.cycles
        or len(history.episodes[:-1]) >= flapping.episodes  # the last one is this one
    )
    # The episodes tell apart what opens, ends and opens again at one instant.
    nth = f"{len(phase.history.episodes)}{flaps}"
    name = incident_id(at, subject.cluster, subject.uid, phase.since.isoformat(), nth)
    incident = Incident(
        name, at, phase.began, phase.reason, phase.severity, phase.message, sequence=1,
        was_critical=phase.severity is Severity.CRITICAL, flapping=flaps,
    )  # fmt: skip
    due = max(at, phase.since + flapping.stable) if flaps else None
    edge = Edge.FLAPPING if flaps else Edge.DEGRADED
    return Firing(incident, due, history), Transition(edge, at, incident)


def _announced(
    phase: Firing | Clearing, verdict: Assessment, now: datetime, policy: HealthPolicy
) -> Step:
    if resolution := _CLOSING.get(verdict.health):
        after, closed = close(phase, resolution, now)
        still_there = verdict.health is Health.DELETING
        return after, closed and replace(closed, still_there=still_there)
    match verdict.health:
        case Health.HEALTHY:
            return _clear(phase, now, policy)
        case Health.DEGRADED:
            return _still_degraded(phase, verdict, now, policy.flapping)
        case _:
            if isinstance(phase, Firing) and phase.due is None:
                return phase, None
            return Firing(phase.incident, None, phase.history), None


def _clear(phase: Firing | Clearing, now: datetime, policy: HealthPolicy) -> Step:
    if isinstance(phase, Clearing):
        return phase, None
    due = now + _clear_for(phase.incident, policy)
    clearing = Clearing(phase.incident, due, phase.history)
    return _recover(clearing, now, policy.flapping) if due <= now else (clearing, None)


def _clear_for(incident: Incident, policy: HealthPolicy) -> timedelta:
    return policy.flapping.stable if incident.flapping else policy.recovered_for


def _still_degraded(
    phase: Firing | Clearing, verdict: Assessment, now: datetime, flapping: Flapping
) -> Step:
    incident, severity = phase.incident, verdict.severity or Severity.WARNING
    history, due = phase.history, phase.due if isinstance(phase, Firing) else None
    if isinstance(phase, Clearing):
        history = _episode(history, now, flapping)
    if incident.flapping and due is None:
        due = now + flapping.stable
    if (incident.reason, incident.severity) == (verdict.reason, severity):
        if isinstance(phase, Firing) and due == phase.due:
            return phase, None
        return Firing(incident, due, history), None
    worsened = (incident.severity, severity) == _WORSE
    incident = replace(
        incident, reason=verdict.reason, severity=severity, message=verdict.message,
        was_critical=incident.was_critical or severity is Severity.CRITICAL,
    )  # fmt: skip
    if incident.flapping:  # it was told once, and is quiet until it is stable
        return Firing(incident, due, history), None
    told = Transition(Edge.UPDATED, now, _next(incident), worsened=worsened)
    return Firing(told.incident, due, history), told


def _recover(phase: Clearing, at: datetime, flapping: Flapping) -> Step:
    history = History()
    if not phase.incident.flapping:
        history = _recent(phase.history, at, flapping)
        history = replace(history, recoveries=(*history.recoveries, at))
    incident = _next(phase.incident)
    return Steady(history), Transition(Edge.RECOVERED, at, incident)


def _next(incident: Incident) -> Incident:
    return replace(incident, sequence=incident.sequence + 1)


def _episode(history: History, now: datetime, flapping: Flapping) -> History:
    history = _recent(history, now, flapping)
    return replace(history, episodes=(*history.episodes, now))


def _recent(history: History, now: datetime, flapping: Flapping) -> History:
    start = now - flapping.window
    return History(
        tuple(e for e in history.episodes if e >= start),
        tuple(r for r in history.recoveries if r >= start),
    )
