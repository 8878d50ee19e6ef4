"""One cluster's watch events and deadlines become phases, and each change one store transaction."""

import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from watcher.core import annotations, baseline, transitions
from watcher.core.digests import GATHER, STORM_SIZE, STORM_WINDOW
from watcher.core.health import assess, facts, fault_asserted_at, hold
from watcher.core.meanwhile import Seen, report
from watcher.core.model import (
    EPOCH,
    OPENINGS,
    SETTLED,
    Change,
    Clearing,
    DeploymentSnapshot,
    Edge,
    Firing,
    Health,
    Meanwhile,
    Pending,
    Phase,
    Resolution,
    Steady,
    Subject,
    Transition,
)
from watcher.core.policy import HealthPolicy
from watcher.errors import StoreError
from watcher.ports import Applied, Broken, Deleted, Listed, Looked, Opened, Saved, WatchEvent
from watcher.recording import Draft, Recorder
from watcher.view import UNJUDGED, ClusterView, Tracked

Drafts = dict[str, Draft]
"""What one batch changes, by uid."""
_LAST_LOOK = timedelta(seconds=5)
"""What was confirmed longer ago is asked for once more before it is announced."""
_RETRY_FIRST, _RETRY_MOST = timedelta(seconds=1), timedelta(seconds=30)


class Observer:
    """Judges what the watch shows. Every method is a step that its caller awaits in turn."""

    def __init__(
        self,
        view: ClusterView,
        recorder: Recorder,
        policy: HealthPolicy,
        look: Callable[[Sequence[Subject]], Awaitable[Looked]],
        selective: bool,
    ) -> None:
        """`look` and `selective` are the cluster's."""
        self.view = view
        self.policy = policy
        self._recorder = recorder
        self._look_at = look
        self._selective = selective
        self._remembered: dict[str, Saved] = {}
        """What the store knows of subjects not seen since the start."""
        self._seen_at: datetime | None = None
        self._uids: dict[tuple[str, str], str] = {}
        self._unjudged: dict[str, tuple[str, DeploymentSnapshot]] = {}
        """News that came in during an outage of the cluster."""
        self._gone: dict[str, Resolution] = {}
        """Vanished subjects whose end is not committed yet."""
        self._uncommitted: dict[str, bool] = {}
        """Subjects whose drafts the store refused; true where an opening was due already."""
        self._retry_at: datetime | None = None
        self._retry_after = _RETRY_FIRST
        self._deadlines: list[tuple[datetime, str]] = []
        self._openings: deque[tuple[datetime, str]] = deque()
        self._blind_from = dict.fromkeys(view.scopes, view.blind_since or EPOCH)
        """From when blind time is yet to be given back; None while the cluster is in sight."""
        self._relisted_at = datetime.min.replace(tzinfo=UTC)
        self._frozen = False
        """Whether an outage of the cluster has kept news from being judged."""
        self._given_back = False
        """Whether what was given back is yet to be kept."""

    def restore(self, saved: Iterable[Saved], seen_at: datetime | None) -> None:
        """Take up what a former process left, and when it last saw the cluster."""
        for row in saved:
            subject = row.subject
            if not subject.is_cluster and not subject.is_digest:
                self._remembered[subject.uid] = row
                if not {"", subject.namespace} & self.view.scopes.keys():
                    self._gone[subject.uid] = Resolution.NOT_WATCHED
        self._seen_at = seen_at

    def shown(self) -> Sequence[WatchEvent]:
        """What the watch has shown up to now, as it would be shown to whoever comes new to it."""
        found: dict[str, list[DeploymentSnapshot]] = {}
        kept = {
            u: (t.scope, t.snapshot) for u, t in self.view.tracked.items() if u not in self._gone
        }
        for name, snapshot in (kept | self._unjudged).values():
            found.setdefault(name, []).append(snapshot)
        events: list[WatchEvent] = []
        for name, scope in self.view.scopes.items():
            if scope.listed_at:
                events.append(Listed(name, tuple(found.get(name, ()))))
            if scope.open:
                events.append(Opened(name))
            elif scope.error is not None:
                events.append(Broken(name, scope.error))
        return events

    def next_due(self) -> datetime | None:
        """When time alone calls for a step; deadlines wait while the cluster is out of sight."""
        if self._retry_at is not None:
            return self._retry_at
        if self.view.blind_since is not None or not self._deadlines:
            return None
        return self._deadlines[0][0]

    async def apply(self, events: Sequence[WatchEvent], now: datetime) -> None:
        """Take in what the watch delivered."""
        self._look(now)
        drafts: Drafts = {}
        gone_before = set(self._gone)
        for event in events:
            match event:
                case Applied():
                    if event.snapshot.uid in drafts:
                        await self._commit(drafts, now)
                    self._take(event.scope, event.snapshot, now, drafts, listed=False)
                case Deleted(snapshot=s):
                    self._vanish(s.uid, Resolution.DELETED)
                case Listed(scope=scope, snapshots=snapshots):
                    self._replace(scope, snapshots, now, drafts)
                case Opened(scope=scope):
                    state = self.view.scopes[scope]
                    state.open, state.opening = True, False
                    state.error = state.broken_at = None
                case Broken(scope=scope, error=error):
                    state = self.view.scopes[scope]
                    state.open, state.opening, state.error = False, False, error
                    state.broken_at = state.broken_at or now
        await self._find_out_why(self._gone.keys() - gone_before)
        self._close_vanished(now, drafts)
        await self._commit(drafts, now)
        self._look(now)

    async def expire_due(self, now: datetime) -> None:
        """Let time pass: fire, recover and re-judge what was due by now."""
        self._look(now)
        await self._look_again(now)
        await self._retry(now)
        await self._keep_given_back(now)
        while self.view.blind_since is None and self._is_due(now):
            drafts: Drafts = {}
            batch: dict[str, None] = {}
            while self._is_due(now):
                batch[heapq.heappop(self._deadlines)[1]] = None
            for uid in batch:
                if (t := self.view.tracked.get(uid)) is not None:
                    self._expire(t, now, drafts)
            if not await self._commit(drafts, now):
                return

    async def thaw(self, now: datetime) -> None:
        """Judge everything anew, if an outage of the cluster has just been closed."""
        self._look(now)
        if not self._frozen or self.view.outage is not None:
            return
        self._frozen = False
        drafts: Drafts = {}
        unjudged, self._unjudged = self._unjudged, {}
        for uid, t in list(self.view.tracked.items()):
            _, s = unjudged.pop(uid, (t.scope, t.snapshot))
            if uid not in self._gone:
                self._judge(t, s, now, drafts, seeded=True, anew=True)
        for scope, s in unjudged.values():
            self._meet(scope, s, now, drafts, seeded=True, anew=True)
        self._close_vanished(now, drafts)
        await self._commit(drafts, now)

    def meanwhile(self, blind_from: datetime, now: datetime) -> Meanwhile:
        """What changed since then, judged as `thaw` is about to."""
        known, seen = self.view.tracked, []
        for uid, (_, s) in self._unjudged.items():
            if (t := known.get(uid)) is not None:
                phase, before, promised = t.phase, t.snapshot, t.baseline
                promised = baseline.notice(promised, before, t.verdict, s, now)
            else:
                saved, before = self._remembered.get(uid), None
                phase = saved.phase if saved else transitions.STEADY
                promised = (saved.baseline if saved else None) or baseline.NOTHING_KNOWN
            seen.append(Seen(phase, before, s, assess(s, promised, now, self.policy)))
        deleted = [
            Change(*self._name_of(uid), resolution)
            for uid, resolution in self._gone.items()
            if resolution is not Resolution.NOT_WATCHED
        ]
        return report(seen, deleted, blind_from)

    def slept(self, since: datetime) -> None:
        """This machine was asleep: no limit ran on meanwhile, whatever the streams come to say."""
        for scope in self.view.scopes:
            self._blind_from[scope] = min(self._blind_from.get(scope, since), since)

    def last_seen(self, now: datetime) -> datetime | None:
        """Up to when the cluster was in sight: time after it does not count after a restart."""
        if self.view.complete_at is None:
            return self._seen_at
        return self.view.blind_since or now

    # What the watch shows

    def _take(
        self, scope: str, s: DeploymentSnapshot, now: datetime, drafts: Drafts, *, listed: bool
    ) -> None:
        t = self.view.tracked.get(s.uid)
        if t is not None and _not_newer(s, t.snapshot):
            t.scope = scope
            if s.resource_version == t.snapshot.resource_version:
                t.confirmed_at = now
            return
        if self.view.outage is not None:
            self._unjudged[s.uid] = (scope, s)
            self._gone.pop(s.uid, None)
            return
        seeded = listed or self._is_blind(scope)
        if t is not None:
            t.scope, t.confirmed_at = scope, now
            if _nothing_new(t, s, now):
                t.snapshot = s
                return
            self._judge(t, s, now, drafts, seeded=seeded)
        else:
            self._meet(scope, s, now, drafts, seeded=seeded)

    def _meet(
        self,
        scope: str,
        s: DeploymentSnapshot,
        now: datetime,
        drafts: Drafts,
        *,
        seeded: bool,
        anew: bool = False,
    ) -> None:
        """See a Deployment for the first time in this process."""
        former = self._uids.get((s.namespace, s.name))
        if former is not None and former != s.uid:
            self._vanish(former, Resolution.RECREATED)
        self._uids[s.namespace, s.name] = s.uid
        saved = self._remembered.pop(s.uid, None)
        known = (saved.baseline if saved else None) or baseline.NOTHING_KNOWN
        phase: Phase = saved.phase if saved else transitions.STEADY
        away = now - self._seen_at if saved and self._seen_at else timedelta(0)
        known = baseline.resume(known, phase, s, now, max(away, timedelta(0)))
        t = Tracked(scope, s, UNJUDGED, known, now)
        t.phase = phase
        t.saved = saved.baseline if saved else None
        self.view.tracked[s.uid] = t
        self._judge(t, s, now, drafts, seeded=seeded, anew=anew)

    def _judge(
        self,
        t: Tracked,
        s: DeploymentSnapshot,
        now: datetime,
        drafts: Drafts,
        *,
        seeded: bool,
        timed: bool = False,
        anew: bool = False,
    ) -> None:
        before, stored = t.verdict, t.phase
        if anew:
            t.phase = transitions.restart_clearing(stored, now, self.policy)
        known = baseline.notice(t.baseline, t.snapshot, before, s, now)
        verdict = assess(s, known, now, self.policy)
        t.snapshot, t.verdict = s, verdict
        t.baseline = baseline.settle(known, s, verdict, now)
        if verdict.health is not before.health:
            t.since = now
        must_save = before.health in SETTLED and verdict.health not in SETTLED
        must_save |= t.phase is not stored
        phase, transition = t.phase, None
        if verdict.health is Health.DEGRADED or not isinstance(phase, Steady) or s.annotations:
            phase, transition = self._move(t, now, seeded=seeded, timed=timed)
        self._draft(t, phase, transition, now, drafts, must_save)

    def _move(
        self, t: Tracked, now: datetime, *, seeded: bool, timed: bool
    ) -> tuple[Phase, Transition | None]:
        s, verdict = t.snapshot, t.verdict
        overrides = annotations.read(s.annotations)
        if overrides.ignore:
            return transitions.close(t.phase, Resolution.IGNORED, now)
        policy = overrides.apply(self.policy)
        phase, transition = transitions.observe(
            t.phase,
            verdict,
            now,
            policy,
            s.subject,
            hold=timedelta(0) if timed else hold(s, verdict, policy),
            seed=fault_asserted_at(s, verdict) if seeded else None,
            blind=self._is_blind(t.scope),
        )
        if transition is not None and transition.edge is not Edge.UPDATED:
            return phase, transition
        if isinstance(phase, Firing) and phase.incident.silenced and not overrides.silenced(now):
            return transitions.announce(phase, now)
        return phase, transition

    def _replace(
        self, scope: str, snapshots: Sequence[DeploymentSnapshot], now: datetime, drafts: Drafts
    ) -> None:
        """Take in a complete list: whatever it omits is gone."""
        for s in snapshots:
            self._take(scope, s, now, drafts, listed=True)
        listed = {s.uid for s in snapshots}
        known = {uid for uid, t in self.view.tracked.items() if t.scope == scope}
        known |= {uid for uid, (its, _) in self._unjudged.items() if its == scope}
        known |= {
            uid for uid, saved in self._remembered.items() if scope in ("", saved.subject.namespace)
        }
        if missing := known - listed:
            names = {(s.namespace, s.name) for s in snapshots}
            for uid in missing:
                recreated = self._name_of(uid) in names
                self._vanish(uid, Resolution.RECREATED if recreated else Resolution.DELETED)
        state = self.view.scopes[scope]
        state.listed_at = now
        state.opening = True
        self._relisted_at = now
        if self.view.complete_at is None and all(s.listed_at for s in self.view.scopes.values()):
            self.view.complete_at = now

    # What is gone

    def _vanish(self, uid: str, resolution: Resolution) -> None:
        self._unjudged.pop(uid, None)
        if uid in self.view.tracked or uid in self._remembered:
            self._gone[uid] = resolution

    async def _find_out_why(self, uids: Iterable[str]) -> None:
        """Tell apart what was deleted and what only is not selected any more, where it is told."""
        asked = []
        for uid in uids if self._selective else ():
            t, saved = self.view.tracked.get(uid), self._remembered.get(uid)
            phase = t.phase if t is not None else saved and saved.phase
            if isinstance(phase, Firing | Clearing) or self.view.outage is not None:
                asked.append(Subject(self.view.name, *self._name_of(uid), uid))
        found = await self._look_at(asked) if asked else {}
        for uid, s in found.items():
            if s is not None and s.uid == uid:
                self._gone[uid] = Resolution.LEFT_SCOPE

    def _name_of(self, uid: str) -> tuple[str, str]:
        if (t := self.view.tracked.get(uid)) is not None:
            return t.snapshot.namespace, t.snapshot.name
        if (saved := self._remembered.get(uid)) is not None:
            return saved.subject.namespace, saved.subject.name
        return "", ""

    def _close_vanished(self, now: datetime, drafts: Drafts) -> None:
        if self.view.outage is not None:
            return
        for uid, resolution in self._gone.items():
            if (t := self.view.tracked.get(uid)) is not None:
                subject, phase, last = t.snapshot.subject, t.phase, facts(t.snapshot)
            else:
                saved = self._remembered[uid]
                subject, phase, last = saved.subject, saved.phase, None
            phase, transition = transitions.close(phase, resolution, now)
            drafts[uid] = Draft(
                subject, phase, None, transition, last,
                unseen=self.view.restored_at == now, forget=True,
            )  # fmt: skip

    def _drop(self, uid: str) -> None:
        name = self._name_of(uid)
        if self._uids.get(name) == uid:
            del self._uids[name]
        self.view.tracked.pop(uid, None)
        self._remembered.pop(uid, None)
        self._gone.pop(uid, None)

    # Time

    def _look(self, now: datetime) -> None:
        """Notice that sight was lost or came back, and give back the time in between."""
        view = self.view
        for t in view.tracked.values() if self._blind_from else ():
            if (blind := now - self._blind_from.get(t.scope, now)) > transitions.NO_TIME:
                t.baseline = baseline.put_off(t.baseline, blind)
                if t.verdict.until is not None:
                    t.verdict = replace(t.verdict, until=t.verdict.until + blind)
                self._given_back = True
        former, view.lost = view.lost, view.lost_scopes(now)
        for scope in former - view.lost:
            self._find_again(scope, now)
        self._frozen |= view.outage is not None
        relisted = view.outage is None or self._relisted_at >= view.outage.opened_at
        shown = view.shown(now)
        sighted = shown or view.in_sight(now) or all(s.opening for s in view.scopes.values())
        self._blind_from = dict.fromkeys(view.lost if relisted and sighted else view.scopes, now)
        if not shown:
            view.blind_since, view.fresh_since = view.blind_since or now, None
        elif view.blind_since is not None:
            view.blind_since, view.fresh_since = None, now

    def _find_again(self, scope: str, now: datetime) -> None:
        """Take up the deadlines that came while only this scope was out of sight."""
        self.view.scopes[scope].back_at = now
        for t in self.view.tracked.values():
            if t.scope == scope:
                self._schedule(t)

    def _is_blind(self, scope: str) -> bool:
        return self.view.blind_since is not None or scope in self.view.lost

    async def _keep_given_back(self, now: datetime) -> None:
        """A restart must not take back the time that blindness has put deadlines off by."""
        if not self._given_back or self.view.blind_since is not None:
            return
        self._given_back = False
        drafts = {
            uid: Draft(t.snapshot.subject, t.phase, t.baseline)
            for uid, t in self.view.tracked.items()
            if baseline.must_be_saved(t.saved, t.baseline)
        }
        await self._commit(drafts, now)

    async def _look_again(self, now: datetime) -> None:
        """See once more what is about to be announced and was not seen for a moment."""
        if self.view.blind_since is not None:
            return
        due = [uid for at, uid in self._deadlines if at <= now] if self._is_due(now) else []
        stale = [
            t.snapshot.subject
            for t in map(self.view.tracked.get, {*due, *self._uncommitted})
            if t is not None
            and t.scope not in self.view.lost
            and now - t.confirmed_at > _LAST_LOOK
            and self._may_open(t, now)
        ]
        if not stale:
            return
        drafts: Drafts = {}
        for uid, s in (await self._look_at(stale)).items():
            if s is None or s.uid != uid:
                self._vanish(uid, Resolution.DELETED if s is None else Resolution.RECREATED)
            else:
                self._take(self.view.tracked[uid].scope, s, now, drafts, listed=False)
        self._close_vanished(now, drafts)
        await self._commit(drafts, now)

    def _is_due(self, now: datetime) -> bool:
        return bool(self._deadlines) and self._deadlines[0][0] <= now

    def _may_open(self, t: Tracked, now: datetime) -> bool:
        """Whether its deadline may announce it for the first time."""
        unheard = not isinstance(t.phase, Firing | Clearing) or t.phase.incident.silenced
        due = self._due(t)
        return unheard and (t.snapshot.uid in self._uncommitted or (due is not None and due <= now))

    def _expire(self, t: Tracked, now: datetime, drafts: Drafts) -> None:
        t.scheduled = None
        due = self._due(t)
        if t.scope in self.view.lost:
            return
        if due is None or due > now:
            self._schedule(t)
            return
        at = max(due, self.view.fresh_since or due, self.view.scopes[t.scope].back_at or due)
        if due == transitions.deadline(t.phase):
            step = transitions.expire(t.phase, now, self.policy, t.snapshot.subject, at)
            self._draft(t, *step, at, drafts)
        elif due == t.verdict.until:
            self._judge(t, t.snapshot, at, drafts, seeded=False, timed=True)
        else:
            self._draft(t, *self._move(t, at, seeded=False, timed=False), at, drafts)

    def _due(self, t: Tracked) -> datetime | None:
        if isinstance(t.phase, Steady):
            return t.verdict.until
        silence: datetime | None = None
        if isinstance(t.phase, Firing) and t.phase.incident.silenced:
            silence = annotations.read(t.snapshot.annotations).silence_until
        waits = (transitions.deadline(t.phase), t.verdict.until, silence)
        return min(filter(None, waits), default=None)

    def _schedule(self, t: Tracked) -> None:
        """Keep one entry a subject; one that turns out too early is put back when it comes up."""
        due = self._due(t)
        if due is not None and (t.scheduled is None or due < t.scheduled):
            t.scheduled = due
            heapq.heappush(self._deadlines, (due, t.snapshot.uid))

    # What is written

    def _draft(
        self,
        t: Tracked,
        phase: Phase,
        transition: Transition | None,
        now: datetime,
        drafts: Drafts,
        must_save: bool = False,
    ) -> None:
        must_save |= transition is not None or phase is not t.phase
        if not must_save and not baseline.must_be_saved(t.saved, t.baseline):
            self._schedule(t)
            return
        s = t.snapshot
        silenced = transition is not None and annotations.read(s.annotations).silenced(now)
        drafts[s.uid] = Draft(
            s.subject, phase, t.baseline, transition, facts(s) if transition else None, silenced,
            sudden=isinstance(t.phase, Steady),
            unseen=transition is not None and self._unseen(t, transition),
        )  # fmt: skip

    def _unseen(self, t: Tracked, edge: Transition) -> bool:
        """Whether it fell due, or what it tells happened, before sight of the cluster returned."""
        began = edge.edge in OPENINGS or edge.edge is Edge.RECOVERED
        return self.view.restored_at in ((edge.at, t.since) if began else (edge.at,))

    async def _commit(self, drafts: Drafts, now: datetime) -> bool:
        """Record the drafts and then let them be so; on a failure nothing has advanced."""
        if not drafts:
            return True
        openings = [(now, uid) for uid, draft in drafts.items() if _opens(draft)]
        storm = bool(openings) and self._is_storm(len(openings), drafts, now)
        if storm:  # those of a moment ago may still join it
            for at, uid in self._openings:
                if now - at < GATHER and uid not in drafts and (t := self.view.tracked.get(uid)):
                    drafts[uid] = Draft(t.snapshot.subject, t.phase, t.baseline)
        try:
            phases = await self._recorder.commit(list(drafts.values()), now, storm)
        except StoreError:
            self._uncommitted.update((uid, _opens(draft)) for uid, draft in drafts.items())
            self._retry_at = now + self._retry_after
            self._retry_after = min(self._retry_after * 2, _RETRY_MOST)
            drafts.clear()
            return False
        for (uid, draft), phase in zip(drafts.items(), phases, strict=True):
            self._uncommitted.pop(uid, None)
            if draft.forget:
                self._drop(uid)
            else:
                t = self.view.tracked[uid]
                t.phase, t.saved = phase, draft.baseline
                self._schedule(t)
        self._openings += openings
        drafts.clear()
        return True

    async def _retry(self, now: datetime) -> None:
        """Try again what the store refused: what is true by now, not what was true then."""
        if self._retry_at is None or self._retry_at > now:
            return
        self._retry_at = None
        drafts: Drafts = {}
        if self.view.outage is None:
            for uid, due in self._uncommitted.items():
                if (t := self.view.tracked.get(uid)) is not None and uid not in self._gone:
                    phase, transition = self._move(t, now, seeded=True, timed=due)
                    self._draft(t, phase, transition, now, drafts, must_save=True)
        self._close_vanished(now, drafts)
        self._uncommitted.clear()
        if await self._commit(drafts, now):
            self._retry_after = _RETRY_FIRST

    def _is_storm(self, openings: int, drafts: Drafts, now: datetime) -> bool:
        """Whether, with those about to open, more open within a minute than anybody reads singly."""
        while self._openings and self._openings[0][0] < now - STORM_WINDOW:
            self._openings.popleft()
        soon = now + STORM_WINDOW
        coming = sum(
            isinstance(t.phase, Pending) and not t.phase.blocked and t.phase.due <= soon
            for uid, t in self.view.tracked.items()
            if uid not in drafts
        )
        return len(self._openings) + openings + coming > STORM_SIZE


def _opens(draft: Draft) -> bool:
    return draft.transition is not None and draft.transition.edge in OPENINGS


def _nothing_new(t: Tracked, s: DeploymentSnapshot, now: datetime) -> bool:
    """Whether judging `s` could only repeat the verdict: labels or managers changed, or nothing did."""
    known, verdict = t.snapshot, t.verdict
    return (
        verdict.health is not Health.DEGRADED
        and isinstance(t.phase, Steady)
        and (verdict.until is None or now < verdict.until)
        and replace(s, resource_version=known.resource_version) == known
    )


def _not_newer(s: DeploymentSnapshot, known: DeploymentSnapshot) -> bool:
    """Whether it is the same version again, or an older one (versions compare as integers)."""
    if s.resource_version == known.resource_version:
        return s == known
    try:
        return int(s.resource_version) < int(known.resource_version)
    except ValueError:
        return False
