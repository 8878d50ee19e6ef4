"""Which Deployments of a cluster there are: seen, kept from a former process, or gone and not closed yet."""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime

from watcher.core import transitions
from watcher.core.events import Change, Resolution
from watcher.core.health import facts
from watcher.core.model import Baseline, DeploymentSnapshot, Shortfall, Subject
from watcher.core.phases import Clearing, Firing, Phase
from watcher.core.planning import Draft
from watcher.core.policy import HealthPolicy
from watcher.core.shortfall import inherited
from watcher.ports import Broken, Listed, Looked, Opened, Saved, WatchEvent
from watcher.view import ClusterView


class Roster:
    """By uid; those that have been judged are in the view."""

    def __init__(self, view: ClusterView) -> None:
        self.remembered: dict[str, Saved] = {}
        """What the store knows of subjects not seen since the start."""
        self.unjudged: dict[str, tuple[str, DeploymentSnapshot]] = {}
        """News that came in during an outage of the cluster, with its scope."""
        self.gone: dict[str, Resolution] = {}
        """Vanished subjects whose end is not committed yet."""
        self._left: dict[tuple[str, str], Saved] = {}
        """By name, what those that are gone leave to whoever comes after them, the oldest first."""
        self._dropped: dict[str, Subject] = {}
        """Those of which the store need keep that no more."""
        self._view = view
        self._uids: dict[tuple[str, str], str] = {}

    def restore(self, saved: Iterable[Saved]) -> None:
        """Take up what a former process left."""
        left = []
        for row in saved:
            subject, name = row.subject, (row.subject.namespace, row.subject.name)
            if row.baseline is not None and row.baseline.left_at is not None:
                left.append((row.baseline.left_at, name, row))
            elif not subject.is_cluster and not subject.is_digest:
                self.remembered[subject.uid] = row
                self._uids[name] = subject.uid
                if not self._view.watches(subject.namespace):
                    self.gone[subject.uid] = Resolution.NOT_WATCHED
        self._left = {name: row for _, name, row in sorted(left, key=lambda each: each[:2])}

    def shown(self) -> Sequence[WatchEvent]:
        """What the watch has shown up to now, as it would be shown to whoever comes new to it."""
        tracked = self._view.tracked.items()
        kept = {uid: (t.scope, t.snapshot) for uid, t in tracked if uid not in self.gone}
        found: dict[str, list[DeploymentSnapshot]] = {}
        for name, snapshot in (kept | self.unjudged).values():
            found.setdefault(name, []).append(snapshot)
        events: list[WatchEvent] = []
        for name, scope in self._view.scopes.items():
            if scope.listed_at:
                events.append(Listed(name, tuple(found.get(name, ()))))
            if scope.open:
                events.append(Opened(name))
            elif scope.error is not None:
                events.append(Broken(name, scope.error))
        return events

    def meet(self, s: DeploymentSnapshot) -> Saved | None:
        """Take in one that is new to this process, and give what a former one has left of it."""
        self._replaces(s)
        self._uids[s.namespace, s.name] = s.uid
        return self.remembered.pop(s.uid, None)

    def last_shown(self, uid: str) -> DeploymentSnapshot | None:
        """The newest that the server has shown of it, judged or not."""
        if (aside := self.unjudged.get(uid)) is not None:
            return aside[1]
        t = self._view.tracked.get(uid)
        return t.snapshot if t is not None else None

    def inherited(
        self, s: DeploymentSnapshot, now: datetime, policy: HealthPolicy, seen_at: datetime | None
    ) -> Shortfall | None:
        """What its predecessor of the same name served, if that is gone for a moment only.

        `seen_at` is given when that was out of sight, and is when it was last in sight.
        """
        name, at = (s.namespace, s.name), now
        if (former := self._uids.get(name)) is None:
            self._drop_old(now, policy)
            left = self._drop(name) if name in self._left else None
            known_again = self._dropped.pop(s.uid, None) is not None  # its own row is kept
            return None if known_again else left
        known = self._view.tracked.get(former)
        saved = self.remembered.get(former)
        served = known.baseline if known is not None else saved.baseline if saved else None
        if served is None or former == s.uid:
            return None
        if seen_at is not None:  # nothing dates its end but what came after it
            at = min(max(s.created_at or now, seen_at), now)
        return inherited(served, at, now, policy.recovered_for)

    def put_aside(self, scope: str, s: DeploymentSnapshot) -> None:
        """Keep news that is not to be judged now."""
        self._replaces(s)
        self.unjudged[s.uid] = (scope, s)
        self.gone.pop(s.uid, None)

    def _replaces(self, s: DeploymentSnapshot) -> None:
        """A name is one Deployment's: another uid under it is gone."""
        former = self._uids.get((s.namespace, s.name))
        if former is not None and former != s.uid:
            self.vanish(former, Resolution.RECREATED)

    def vanish(self, uid: str, resolution: Resolution) -> None:
        """It is not there any more."""
        self.unjudged.pop(uid, None)
        if uid in self._view.tracked or uid in self.remembered:
            self.gone[uid] = resolution

    def vanish_but(
        self, snapshots: Sequence[DeploymentSnapshot], scope: str, kept: AbstractSet[str]
    ) -> None:
        """These are all there are in that scope, but for those that are known to be there by now."""
        known = {uid for uid, t in self._view.tracked.items() if t.scope == scope}
        known |= {uid for uid, (its, _) in self.unjudged.items() if its == scope}
        saved = self.remembered.items()
        known |= {uid for uid, row in saved if scope in ("", row.subject.namespace)}
        known -= {uid for uid, why in self.gone.items() if why is Resolution.NOT_WATCHED}
        if missing := known - {s.uid for s in snapshots} - kept:
            names = {(s.namespace, s.name) for s in snapshots}
            for uid in missing:
                recreated = self._name_of(uid) in names
                self.vanish(uid, Resolution.RECREATED if recreated else Resolution.DELETED)

    def told_of(self, uids: Iterable[str]) -> list[Subject]:
        """Those of them whose end somebody is waiting for."""
        known, told = map(self._known, uids), self._view.outage is not None
        return [s for s, phase in known if told or isinstance(phase, Firing | Clearing)]

    def left(self, found: Looked) -> None:
        """Some of those that vanished the server still has, or does not say: they left the scope."""
        for uid, s in found.items():
            if s.uid == uid if isinstance(s, DeploymentSnapshot) else s is Resolution.LEFT_SCOPE:
                self.gone[uid] = Resolution.LEFT_SCOPE

    def deleted(self) -> list[Change]:
        """What is gone and was watched to the end."""
        ends = (Resolution.DELETED, Resolution.RECREATED)
        gone = (item for item in self.gone.items() if item[1] in ends)
        return [Change(*self._name_of(uid), resolution) for uid, resolution in gone]

    def closings(self, now: datetime, policy: HealthPolicy) -> Iterator[tuple[str, Draft]]:
        """The last edge of each that is gone, and the rows of those that have no successor any more."""
        unseen = self._view.restored_at == now
        for uid, resolution in self.gone.items():
            subject, phase = self._known(uid)
            t = self._view.tracked.get(uid)
            last = facts(t.snapshot) if t is not None else None
            end, edge = transitions.close(phase, resolution, now)
            left = self._leaves(uid, now, policy)
            draft = Draft(subject, end, left, edge, last, unseen=unseen, forget=True, before=phase)
            yield uid, draft
        self._drop_old(now, policy)
        for uid, subject in self._dropped.items():
            yield uid, Draft(subject, transitions.STEADY, forget=True)

    def forget(self, uid: str, now: datetime, policy: HealthPolicy) -> None:
        """Its end is committed."""
        subject, _ = self._known(uid)
        name = subject.namespace, subject.name
        if (left := self._leaves(uid, now, policy)) is not None:
            self._left[name] = Saved(subject, transitions.STEADY, left)
        if self._uids.get(name) == uid:
            del self._uids[name]
        self._view.tracked.pop(uid, None)
        self.remembered.pop(uid, None)
        self.gone.pop(uid, None)
        self._dropped.pop(uid, None)

    def _leaves(self, uid: str, now: datetime, policy: HealthPolicy) -> Baseline | None:
        """What a successor of its name is to be measured by, while there is none yet."""
        t = self._view.tracked.get(uid)
        if t is None or self._uids.get(self._name_of(uid)) != uid:
            return None
        left = inherited(t.baseline, now, now, policy.recovered_for)
        return Baseline(shortfall=left, left_at=now) if left is not None else None

    def _drop_old(self, now: datetime, policy: HealthPolicy) -> None:
        while self._left:
            name, row = next(iter(self._left.items()))
            at = row.baseline.left_at if row.baseline else None
            if at is not None and now - at < policy.nothing_serves_for:
                return
            self._drop(name)

    def _drop(self, name: tuple[str, str]) -> Shortfall | None:
        row = self._left.pop(name)
        self._dropped[row.subject.uid] = row.subject
        return row.baseline.shortfall if row.baseline else None

    def _name_of(self, uid: str) -> tuple[str, str]:
        subject, _ = self._known(uid)
        return subject.namespace, subject.name

    def _known(self, uid: str) -> tuple[Subject, Phase]:
        """What it is and how it stands; nothing of one that was never judged."""
        if (t := self._view.tracked.get(uid)) is not None:
            return t.snapshot.subject, t.phase
        saved = self.remembered.get(uid)
        return (saved.subject, saved.phase) if saved else (Subject(""), transitions.STEADY)
