"""One cluster's probes become its own phase: connected, or the one incident while it is out of sight."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from watcher.core import transitions
from watcher.core.events import ENDS, Edge, Meanwhile, Transition
from watcher.core.model import Subject
from watcher.core.phases import Firing, Pending, Phase
from watcher.core.planning import Draft
from watcher.core.policy import ClusterPolicy, Flapping, HealthPolicy
from watcher.core.reachability import Signs, assess_cluster, patient_until
from watcher.errors import ClusterError, Forbidden, StoreError, Throttled, Unauthorized
from watcher.ports import Probe, Saved
from watcher.recording import Recorder
from watcher.view import ClusterView

_AT_ONCE: Final = HealthPolicy(
    recovered_for=transitions.NO_TIME, flapping=Flapping(cycles=1 << 30, episodes=1 << 30)
)
"""A cluster's holds come with its verdicts; its end is known at once; it does not flap."""

_RETRY: Final = timedelta(seconds=1)
_LOOK: Final = timedelta(seconds=5)
_CONFIRM: Final = timedelta(seconds=1)
_LATELY: Final = timedelta(minutes=1)


@dataclass(eq=False)
class Heartbeat:
    """Judges one API server. Every method is a step that its caller awaits in turn."""

    view: ClusterView
    recorder: Recorder
    policy: ClusterPolicy
    started_at: datetime
    meanwhile: Callable[[datetime, datetime], Meanwhile | None]
    """Reports what changed between two times, of which the second is now; None if that is unknown."""

    def __post_init__(self) -> None:
        self._subject = Subject(self.view.name)
        self._signs = Signs()
        self._dark_since: datetime | None = self.started_at
        """Since when not every stream shows what is true."""
        self._partial = False
        """Whether some of what the outage hid was judged before its end: then none is reported."""
        self._not_before: datetime | None = None
        """After a refused commit: when to try the next one."""

    def restore(self, saved: list[Saved], former: "Heartbeat", seen_at: datetime | None) -> None:
        """Take up an outage that a former process announced, and what this one's probes have shown.

        What the other only suspected is to be seen anew. `seen_at` is when it had sight last.
        """
        blind_from = former.view.blind_since if former.view.complete_at else seen_at
        self.view.blind_since = blind_from or self.view.blind_since
        self._signs, self.started_at = former._signs, former.started_at
        self._dark_since = former._dark_since
        for name in ("probe", "probed_at", "version", "failed_at"):
            setattr(self.view, name, getattr(former.view, name))
        for row in saved:
            if row.subject.is_cluster and not isinstance(row.phase, Pending):
                self.view.phase = row.phase

    def next_due(self) -> datetime | None:
        """When time alone moves the cluster's phase."""
        waits = (transitions.deadline(self.view.phase), patient_until(self._signs, self._told))
        due = min(filter(None, waits), default=None)
        return due and max(due, self._not_before or due)

    @property
    def _told(self) -> str:
        """The reason of the open incident."""
        return self.view.incident.reason if self.view.incident else ""

    async def probed(self, probe: Probe, now: datetime) -> None:
        """Take in a probe's answer."""
        self.view.probe, self.view.probed_at = probe, now
        self.view.version = probe.version or self.view.version
        self._signs = self._after(probe, now)
        if self._signs.failures:
            self.view.failed_at = now
        await self.look(now)

    def looks_again_at(self, probe: Probe, now: datetime) -> datetime | None:
        """When to ask before the next beat, since sight may be about to return; None if it is not.

        A server that gave no answer is asked every 5 s, one that has just come back after 1 s.
        """
        if probe.error is None:
            unsure = self._signs.successes < self.policy.successes
            return now + _CONFIRM if unsure and self.view.incident is not None else None
        if self.view.failed_at is None or now - self.view.failed_at > _LATELY:
            return None
        return now + max(_LOOK, probe.error.retry_after or _LOOK)

    async def look(self, now: datetime) -> None:
        """Judge by what is known of the streams and probes now."""
        if self.view.probe is None:
            return
        view, in_outage = self.view, self.view.incident is not None
        self._partial |= in_outage and view.outage is None
        judged = assess_cluster(self._current(now), self.policy, now, self._told)
        verdict, view.reason = judged.verdict, judged.verdict.reason
        step = transitions.observe(
            view.phase, verdict, now, _AT_ONCE, self._subject, hold=judged.hold, seed=judged.since
        )
        await self._advance(*step, now)

    async def expire_due(self, now: datetime) -> None:
        """Announce an outage whose hold is over, or what remains of one."""
        step = transitions.expire(self.view.phase, now, _AT_ONCE, self._subject)
        await self._advance(*step, now)
        if (due := patient_until(self._signs, self._told)) is not None and due <= now:
            await self.look(now)

    async def _advance(self, phase: Phase, transition: Transition | None, now: datetime) -> None:
        before = self.view.phase
        if phase is before:
            return
        ended = transition is not None and transition.edge in ENDS
        blind_for, meanwhile, rewound = None, None, False
        if ended and isinstance(before, Firing):
            # After a restart the one is known, before its first failed probe the other.
            since = min(self.view.blind_since or now, before.incident.since)
            blind_for = (now - since).total_seconds()
            meanwhile = None if self._partial else self.meanwhile(since, now)
            rewound = self.view.rewound_after(since)
        draft = Draft(
            self._subject, phase, transition=transition, blind_for=blind_for, meanwhile=meanwhile,
            rewound=rewound,
        )  # fmt: skip
        try:
            self.view.phase = (await self.recorder.commit([draft], now))[0]
        except StoreError:
            self._not_before = now + _RETRY
            return
        self._not_before = None
        if self.view.outage is not None and transition and transition.edge is Edge.DEGRADED:
            self.view.blind_since = self.view.blind_since or now
        if ended:
            self.view.restored_at, self._partial = now, False

    def _after(self, probe: Probe, now: datetime) -> Signs:
        s, error = self._signs, probe.error
        since = s.answering_since or now
        answered = Signs(connected_before=s.connected_before, answering_since=since)
        match error:
            case None:
                enough = s.successes + 1 >= self.policy.successes
                return replace(
                    answered, successes=s.successes + 1, connected_before=True,
                    good_since=s.good_since or (now if enough else None),
                )  # fmt: skip
            case Throttled():
                return replace(answered, throttled_since=s.throttled_since or now)
            case Unauthorized() | Forbidden():
                return _refused(answered, error, s.refused_since or now)
            case _:
                began, heard = s.failing_since, self.view.last_byte_at()
                if began is None or (heard is not None and heard > began):
                    s, began = replace(s, failures=0), now  # a byte came since: count anew
                return replace(
                    s, failures=s.failures + 1, failing_since=began, failure=str(error),
                    successes=0, good_since=None, answering_since=None,
                )  # fmt: skip

    def _current(self, now: datetime) -> Signs:
        """The probes' signs, with what the streams say of themselves."""
        dark_since = None if self.view.in_sight(now) else self._dark_since or now
        self._dark_since, heard = dark_since, self.view.last_byte_at()
        s = replace(self._signs, last_byte_at=heard, dark_since=dark_since)
        broken: list[tuple[datetime, ClusterError | None]] = [
            (scope.broken_at or self.started_at, scope.error)
            for scope in self.view.scopes.values()
            if not (scope.listed_at and scope.open)
        ]
        if not broken:
            return s
        since, error = min(broken, key=lambda pair: pair[0])
        # What the API server says, it says since it began to answer.
        since = max(since, s.answering_since or since)
        if isinstance(error, Unauthorized | Forbidden) and s.refused_since is None:
            s = _refused(s, error, since)
        elif isinstance(error, Throttled) and s.throttled_since is None:
            s = replace(s, throttled_since=since)
        return replace(s, unseen_since=since, unseen=str(error or ""))


def _refused(s: Signs, error: ClusterError, since: datetime) -> Signs:
    forbidden = isinstance(error, Forbidden)
    return replace(s, refused_since=since, refusal=str(error), refused_with_403=forbidden)
