"""Whether a cluster can be seen, and since when not: time out of sight counts for no limit."""

from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from watcher.core import baseline, transitions
from watcher.core.model import EPOCH
from watcher.view import ClusterView, Tracked


class Sight:
    """Notices that sight is lost or returns. `found` is called with what is back while the rest stayed."""

    def __init__(self, view: ClusterView, found: Callable[[Tracked], None]) -> None:
        self.frozen = False
        """Whether an outage of the cluster has kept news from being judged."""
        self.given_back = False
        """Whether limits were put off by blind time since this was last false."""
        self.lost_at: datetime | None = None
        """When the last time out of sight began."""
        self.listed_at = EPOCH
        """When a complete list last came in."""
        self._view = view
        self._found = found
        self._blind_from = dict.fromkeys(view.scopes, view.blind_since or EPOCH)
        """Of each scope that cannot be seen: from when its blind time is yet to be given back."""

    def look(self, now: datetime) -> None:
        """Put limits off by the blind time up to now, and see which scopes can be seen."""
        view = self._view
        self._give_back(now)
        former, view.lost = view.lost, view.lost_scopes(now)
        for scope in former - view.lost:  # its deadlines came while only it was out of sight
            view.scopes[scope].back_at = now
            for t in view.tracked.values():
                if t.scope == scope:
                    self._found(t)
        self.frozen |= view.outage is not None
        relisted = view.outage is None or self.listed_at >= view.outage.opened_at
        shown = view.shown(now)
        sighted = shown or view.in_sight(now) or all(s.opening for s in view.scopes.values())
        self._blind_from = dict.fromkeys(view.lost if relisted and sighted else view.scopes, now)
        if not shown:
            view.blind_since, view.fresh_since = view.blind_since or now, None
        elif view.blind_since is not None:
            self.lost_at, view.blind_since, view.fresh_since = view.blind_since, None, now

    def slept(self, since: datetime) -> None:
        """This machine was asleep: no limit ran on meanwhile, whatever the streams come to say."""
        for scope in self._view.scopes:
            self._blind_from[scope] = min(self._blind_from.get(scope, since), since)

    def is_lost(self, scope: str) -> bool:
        """Whether nothing may be concluded from what this scope does not show."""
        return self._view.blind_since is not None or scope in self._view.lost

    def _give_back(self, now: datetime) -> None:
        for t in self._view.tracked.values() if self._blind_from else ():
            if (blind := now - self._blind_from.get(t.scope, now)) > transitions.NO_TIME:
                t.baseline = baseline.put_off(t.baseline, blind)
                if t.verdict.until is not None:
                    t.verdict = replace(t.verdict, until=t.verdict.until + blind)
                self.given_back = True
