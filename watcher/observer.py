"""One cluster's watch events and deadlines become phases, and each change one store transaction."""

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from watcher.core import annotations, baseline, transitions
from watcher.core.digests import GATHER, STORM_SIZE, STORM_WINDOW
from watcher.core.events import OPENINGS, Edge, Meanwhile, Resolution, Transition
from watcher.core.health import assess, facts, fault_asserted_at, hold
from watcher.core.meanwhile import Seen, report
from watcher.core.model import EPOCH, SETTLED, Baseline, DeploymentSnapshot, Health, Subject
from watcher.core.phases import Clearing, Firing, Pending, Steady
from watcher.core.planning import Draft
from watcher.core.policy import HealthPolicy
from watcher.core.transitions import Step
from watcher.deadlines import Deadlines, due
from watcher.errors import StoreError
from watcher.ports import Applied, Broken, Deleted, Listed, Looked, Opened, Saved, WatchEvent
from watcher.recording import Recorder
from watcher.roster import Roster
from watcher.sight import Sight
from watcher.view import UNJUDGED, ClusterView, Tracked, is_older

_LAST_LOOK = timedelta(seconds=5)
"""What was confirmed longer ago is asked for once more before it is announced."""
_RETRY_FIRST, _RETRY_MOST = timedelta(seconds=1), timedelta(seconds=30)


@dataclass(eq=False)
class Observer:
    """Judges what the watch shows. Every method is a step that its caller awaits in turn."""

    view: ClusterView
    recorder: Recorder
    policy: HealthPolicy
    look: Callable[[Sequence[Subject]], Awaitable[Looked]]
    """The cluster's, as is `selective`."""
    selective: bool

    def __post_init__(self) -> None:
        self.roster = Roster(self.view)
        self._deadlines = Deadlines()
        self.sight = Sight(self.view, self._deadlines.keep)
        self._seen_at: datetime | None = None
        self._looked: dict[str, tuple[str, datetime]] = {}
        """By uid the scope and time of a look since the scope's last list, whatever it has shown."""
        self._drafts: dict[str, Draft] = {}
        """What the present step changes, by uid; committed at its end."""
        self._uncommitted: dict[str, bool] = {}
        """Subjects whose drafts the store refused; true where an opening was due already."""
        self._retry_at: datetime | None = None
        self._retry_after = _RETRY_FIRST
        self._openings: deque[tuple[datetime, str]] = deque()
        self._judged_by = self.policy
        """A reload may have exchanged the policy since all that is in view was judged."""

    def restore(self, saved: Iterable[Saved], seen_at: datetime | None) -> None:
        """Take up what a former process left, and when it last saw the cluster."""
        self.roster.restore(saved)
        self._seen_at = seen_at

    def retry_at(self, now: datetime) -> None:
        """Try again what the store refused, however long that was to wait."""
        self._retry_at = self._retry_at and now

    def next_due(self) -> datetime | None:
        """When time alone calls for a step; deadlines wait while the cluster is out of sight."""
        if self._retry_at is not None:
            return self._retry_at
        if self.view.blind_since is not None:
            return None
        return self._deadlines.earliest if self._judged_by == self.policy else EPOCH

    async def apply(self, events: Sequence[WatchEvent], now: datetime) -> None:
        """Take in what the watch delivered."""
        self.sight.look(now)
        gone_before = set(self.roster.gone)
        for event in events:
            match event:
                case Applied():
                    if event.snapshot.uid in self._drafts:
                        await self._commit(now)
                    self._take(event.scope, event.snapshot, now)
                case Deleted(snapshot=s):
                    self._looked.pop(s.uid, None)
                    self.roster.vanish(s.uid, Resolution.DELETED)
                case Listed():
                    self._replace(event, now)
                case Opened(scope=scope):
                    self.view.scopes[scope].opened()
                case Broken(scope=scope, error=error):
                    self.view.scopes[scope].broke(error, now)
        await self._find_out_why(self.roster.gone.keys() - gone_before)
        await self._conclude(now)
        self.sight.look(now)

    async def expire_due(self, now: datetime) -> None:
        """Let time pass: fire, recover and re-judge what was due by now."""
        self.sight.look(now)
        await self._look_again(now)
        await self._retry(now)
        await self._keep_given_back(now)
        while self.view.blind_since is None and (batch := self._deadlines.take(now)):
            for uid in batch:
                if (t := self.view.tracked.get(uid)) is not None:
                    self._expire(t, now)
            if not await self._commit(now):
                return
        if self._judged_by != self.policy and self.view.blind_since is None:
            await self._judge_again(now)

    async def thaw(self, now: datetime) -> None:
        """Judge everything anew, if an outage of the cluster has just been closed."""
        self.sight.look(now)
        if not self.sight.frozen or self.view.outage is not None:
            return
        self.sight.frozen = False
        unjudged, self.roster.unjudged = self.roster.unjudged, {}
        for uid, t in list(self.view.tracked.items()):
            _, s = unjudged.pop(uid, (t.scope, t.snapshot))
            if uid not in self.roster.gone:
                self._judge(t, s, now, seeded=True, anew=True)
        for scope, s in unjudged.values():
            self._meet(scope, s, now, seeded=True, anew=True)
        await self._conclude(now)

    def meanwhile(self, blind_from: datetime, now: datetime) -> Meanwhile | None:
        """What changed since then, judged as `thaw` is about to; None if nobody had seen it before."""
        began, known = self.view.complete_at, self.view.tracked or self.roster.remembered
        if not (known or self._seen_at or (began is not None and began < blind_from)):
            return None
        seen = []
        for uid, (_, s) in self.roster.unjudged.items():
            t, saved = self.view.tracked.get(uid), self.roster.remembered.get(uid)
            promised = (saved.baseline if saved else None) or baseline.NOTHING_KNOWN
            if t is not None:
                promised = self._notice(t, s, now, seeded=True, anew=False)
            kept, verdict = t or saved, assess(s, promised, now, self._policy_of(s))
            phase, before = kept.phase if kept else None, t.snapshot if t else None
            seen.append(Seen(phase, before, s, verdict))
        return report(seen, self.roster.deleted(), blind_from)

    def last_seen(self, now: datetime) -> datetime | None:
        """Up to when the cluster was in sight: time after it does not count after a restart."""
        if self.view.complete_at is None:
            return self._seen_at
        return self.view.blind_since or now

    def _take(
        self, scope: str, s: DeploymentSnapshot, now: datetime, *, listed: bool = False
    ) -> None:
        """Take in what is shown of one; `listed` beats what is known, whatever the versions say."""
        t, known = self.view.tracked.get(s.uid), self.roster.last_shown(s.uid)
        if known is not None and (s == known if listed else _not_newer(s, known)):
            if t is not None:
                t.scope = scope
                if s.resource_version == t.snapshot.resource_version:
                    t.confirmed_at = now
            return
        if self.view.outage is not None:
            self.roster.put_aside(scope, s)
            return
        seeded = listed or self.sight.is_lost(scope)
        if t is None:
            self._meet(scope, s, now, seeded=seeded)
            return
        t.scope = scope
        if _nothing_new(t, s, now):
            t.snapshot = s
        else:
            self._judge(t, s, now, seeded=seeded)
        t.confirmed_at = now

    def _meet(
        self, scope: str, s: DeploymentSnapshot, now: datetime, *, seeded: bool, anew: bool = False
    ) -> None:
        """See a Deployment for the first time in this process."""
        seen_at = (self.view.blind_since or now) if seeded else None
        left = self.roster.inherited(s, now, self.policy, seen_at)
        saved = self.roster.meet(s)
        promised, phase = (saved.baseline, saved.phase) if saved else (None, transitions.STEADY)
        away = now - self._seen_at if saved and self._seen_at else timedelta(0)
        known = promised or baseline.NOTHING_KNOWN
        known = baseline.resume(known, phase, s, now, max(away, timedelta(0)))
        if promised is None and left is not None:
            known = replace(known, shortfall=left)
        t = Tracked(scope, s, UNJUDGED, known, now, now, phase, promised)
        self.view.tracked[s.uid] = t
        self._judge(t, s, now, seeded=seeded, anew=anew)

    def _judge(
        self, t: Tracked, s: DeploymentSnapshot, now: datetime, *,
        seeded: bool, timed: bool = False, anew: bool = False,
    ) -> None:  # fmt: skip
        before, stored = t.verdict, t.phase
        seen = self._last_seen_so(t, now, seeded=seeded, anew=anew)
        if anew:
            t.phase = transitions.restart_clearing(stored, now, self.policy)
        known = self._notice(t, s, now, seeded=seeded, anew=anew)
        verdict = assess(s, known, now, self._policy_of(s))
        t.snapshot, t.verdict = s, verdict
        t.baseline = baseline.settle(t.baseline, known, s, verdict, now)
        if verdict.health is not before.health:
            t.since = now
        must_save = before.health in SETTLED and verdict.health not in SETTLED
        must_save |= t.phase is not stored
        step: Step = t.phase, None
        if verdict.health is Health.DEGRADED or not isinstance(t.phase, Steady) or s.annotations:
            step = self._move(t, now, seen, seeded=seeded, timed=timed)
        self._draft(t, step, now, must_save)

    def _notice(
        self, t: Tracked, s: DeploymentSnapshot, now: datetime, *, seeded: bool, anew: bool
    ) -> Baseline:
        """What is known of it with a new snapshot; what a condition dates was not seen happen."""
        seen_at = None
        if seeded and t.verdict is UNJUDGED:
            known = t.saved is not None or t.baseline.shortfall is not None
            seen_at = self._lost_at(anew=anew) or self._seen_at if known else None
            seen_at = seen_at or EPOCH
        elif seeded:
            seen_at = self._lost_at(anew=anew) or t.confirmed_at
        recovered_for = self.policy.recovered_for
        return baseline.notice(t.baseline, t.snapshot, s, now, recovered_for, seen_at)

    def _policy_of(self, s: DeploymentSnapshot) -> HealthPolicy:
        return annotations.read(s.annotations).apply(self.policy) if s.annotations else self.policy

    def _last_seen_so(self, t: Tracked, now: datetime, *, seeded: bool, anew: bool) -> datetime:
        """Up to when what was judged of it is known to have been true."""
        if t.verdict is UNJUDGED:
            return self._seen_at or now
        if t.verdict.health is not Health.DEGRADED:
            return t.since
        if not seeded:
            return now
        return self._lost_at(anew=anew) or t.confirmed_at

    def _lost_at(self, *, anew: bool) -> datetime | None:
        """When sight was lost; with the thaw that judges `anew` it has just returned."""
        return self.sight.lost_at if anew else self.view.blind_since

    async def _judge_again(self, now: datetime) -> None:
        """Judge by a new policy: a hold that is under way takes its length from it."""
        self._judged_by = self.policy
        for uid, t in self.view.tracked.items():
            if uid not in self.roster.gone:
                self._judge(t, t.snapshot, now, seeded=False)
        await self._commit(now)

    def _move(
        self, t: Tracked, now: datetime, seen: datetime, *, seeded: bool, timed: bool
    ) -> Step:
        s, verdict = t.snapshot, t.verdict
        overrides = annotations.read(s.annotations)
        if overrides.ignore:
            return transitions.close(t.phase, Resolution.IGNORED, now)
        policy = overrides.apply(self.policy)
        phase, transition = transitions.observe(
            t.phase, verdict, now, policy, s.subject, blind=self.sight.is_lost(t.scope),
            hold=timedelta(0) if timed else hold(s, verdict, policy), short=s.short, seen=seen,
            began=baseline.began_at(t.baseline, verdict),
            seed=fault_asserted_at(s, verdict) if seeded else None,
        )  # fmt: skip
        if transition is not None and transition.edge is not Edge.UPDATED:
            return phase, transition
        if isinstance(phase, Firing) and phase.incident.silenced and not overrides.silenced(now):
            return transitions.announce(phase, now)
        return phase, transition

    def _replace(self, listed: Listed, now: datetime) -> None:
        """Take in a complete list: whatever it omits is gone.

        It beats all that was learned before it was asked for, since the store may have been put back
        to an older copy; a look that was asked for later knows more.
        """
        scope, asked_at = listed.scope, listed.asked_at or now
        looked = {uid for uid, (_, at) in self._looked.items() if at > asked_at}
        for s in listed.snapshots:
            if s.uid not in looked:
                self.roster.gone.pop(s.uid, None)
                self._take(scope, s, now, listed=True)
            elif (known := self.roster.last_shown(s.uid)) is not None and is_older(
                known.resource_version, s.resource_version
            ):
                self._take(scope, s, now)
        # A look may show what is not selected any more.
        self.roster.vanish_but(listed.snapshots, scope, set() if self.selective else looked)
        self._looked = {uid: look for uid, look in self._looked.items() if look[0] != scope}
        self.view.scopes[scope].listed(now)
        self.sight.listed_at = now
        if self.view.complete_at is None and all(s.listed_at for s in self.view.scopes.values()):
            self.view.complete_at = now

    async def _keep_given_back(self, now: datetime) -> None:
        """A restart must not take back the time that blindness has put deadlines off by."""
        if not self.sight.given_back or self.view.blind_since is not None:
            return
        self.sight.given_back = False
        self._drafts = {
            uid: Draft(t.snapshot.subject, t.phase, t.baseline)
            for uid, t in self.view.tracked.items()
            if baseline.must_be_saved(t.saved, t.baseline)
        }
        await self._commit(now)

    async def _look_again(self, now: datetime) -> None:
        """See once more what is about to be announced and was not seen for a moment."""
        if self.view.blind_since is not None:
            return
        again = self._uncommitted if self._retry_at is not None and self._retry_at <= now else ()
        stale = [
            t.snapshot.subject
            for t in map(self.view.tracked.get, {*self._deadlines.show(now), *again})
            if t is not None
            and t.scope not in self.view.lost
            and now - t.confirmed_at > _LAST_LOOK
            and self._may_open(t, now)
        ]
        if not stale:
            return
        for uid, s in (await self.look(stale)).items():
            scope = self.view.tracked[uid].scope
            self._looked[uid] = scope, now
            if isinstance(s, Resolution):
                self.roster.vanish(uid, s)
            elif s.uid != uid:
                self.roster.vanish(uid, Resolution.RECREATED)
            else:
                self._take(scope, s, now)
        await self._conclude(now)

    def _may_open(self, t: Tracked, now: datetime) -> bool:
        """Whether its deadline may announce it for the first time."""
        unheard = not isinstance(t.phase, Firing | Clearing) or t.phase.incident.silenced
        at = due(t)
        return unheard and (t.snapshot.uid in self._uncommitted or (at is not None and at <= now))

    def _expire(self, t: Tracked, now: datetime) -> None:
        t.scheduled = None
        ends = due(t)
        if t.scope in self.view.lost:
            return
        if ends is None or ends > now:
            self._deadlines.keep(t)
            return
        at = max(ends, self.view.fresh_since or ends, self.view.scopes[t.scope].back_at or ends)
        if ends == transitions.deadline(t.phase):
            step = transitions.expire(t.phase, now, self.policy, t.snapshot.subject, at)
            self._draft(t, step, at)
        elif ends == t.verdict.until:
            self._judge(t, t.snapshot, at, seeded=False, timed=True)
        else:
            self._draft(t, self._move(t, at, at, seeded=False, timed=False), at)

    async def _find_out_why(self, uids: Iterable[str]) -> None:
        """Tell apart what was deleted and what only is not selected any more, where it is told."""
        if self.selective and (asked := self.roster.told_of(uids)):
            self.roster.left(await self.look(asked))

    async def _conclude(self, now: datetime) -> bool:
        """Commit, and with it the end of what has vanished."""
        if self.view.outage is None:
            self._drafts.update(self.roster.closings(now, self.policy))
        return await self._commit(now)

    def _draft(self, t: Tracked, step: Step, now: datetime, must_save: bool = False) -> None:
        phase, transition = transitions.with_numbers_of_now(step, t.verdict)
        must_save |= transition is not None or phase is not t.phase
        if not must_save and not baseline.must_be_saved(t.saved, t.baseline):
            self._deadlines.keep(t)
            return
        s = t.snapshot
        silenced = transition is not None and annotations.read(s.annotations).silenced(now)
        self._drafts[s.uid] = Draft(
            s.subject, phase, t.baseline, transition, facts(s) if transition else None, silenced,
            sudden=isinstance(t.phase, Steady), before=t.phase,
            unseen=transition is not None and self._unseen(t, transition),
        )  # fmt: skip

    def _unseen(self, t: Tracked, edge: Transition) -> bool:
        """Whether it fell due, or what it tells happened, before sight of the cluster returned."""
        began = edge.edge in OPENINGS or edge.edge is Edge.RECOVERED
        return self.view.restored_at in ((edge.at, t.since) if began else (edge.at,))

    async def _commit(self, now: datetime) -> bool:
        """Record the drafts and then let them be so; on a failure nothing has advanced."""
        drafts, self._drafts = self._drafts, {}
        if not drafts:
            return True
        openings = [(now, uid) for uid, draft in drafts.items() if _opens(draft)]
        storm = bool(openings) and self._is_storm(len(openings), drafts, now)
        if storm:  # those of a moment ago may still join it
            for at, uid in self._openings:
                if now - at < GATHER and uid not in drafts and (t := self.view.tracked.get(uid)):
                    drafts[uid] = Draft(t.snapshot.subject, t.phase, t.baseline)
        try:
            phases = await self.recorder.commit(list(drafts.values()), now, storm)
        except StoreError:
            self._uncommitted.update((uid, _opens(draft)) for uid, draft in drafts.items())
            self._retry_at = now + self._retry_after
            self._retry_after = min(self._retry_after * 2, _RETRY_MOST)
            return False
        for (uid, draft), phase in zip(drafts.items(), phases, strict=True):
            self._uncommitted.pop(uid, None)
            if draft.forget:
                self.roster.forget(uid, now, self.policy)
            else:
                t = self.view.tracked[uid]
                t.phase, t.saved = phase, draft.baseline
                self._deadlines.keep(t)
        self._openings += openings
        return True

    async def _retry(self, now: datetime) -> None:
        """Try again what the store refused: what is true by now, not what was true then."""
        if self._retry_at is None or self._retry_at > now:
            return
        self._retry_at = None
        if self.view.outage is None:
            for uid, opening in self._uncommitted.items():
                if (t := self.view.tracked.get(uid)) is not None and uid not in self.roster.gone:
                    step = self._move(t, now, t.since, seeded=True, timed=opening)
                    self._draft(t, step, now, must_save=True)
        self._uncommitted.clear()
        if await self._conclude(now):
            self._retry_after = _RETRY_FIRST

    def _is_storm(self, openings: int, drafts: Collection[str], now: datetime) -> bool:
        """Whether, with those about to open, more open within a minute than anybody reads singly."""
        while self._openings and self._openings[0][0] < now - STORM_WINDOW:
            self._openings.popleft()
        soon = now + STORM_WINDOW
        coming = sum(
            isinstance(t.phase, Pending)
            and (at := transitions.deadline(t.phase)) is not None
            and at <= soon
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
    """Whether it is the same version again, or an older one."""
    if s.resource_version == known.resource_version:
        return s == known
    return is_older(s.resource_version, known.resource_version)
