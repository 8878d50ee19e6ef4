"""How long a watch is asked for: proxies and balancers in between are learned from how watches end."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import Struct

from watcher.cluster.transport import Timings
from watcher.ports import Shortening

_SHARE: Final = 0.75
"""Of the age or silence at which watches are cut off, what is asked for."""
_ALIKE: Final = 0.1
_ENOUGH: Final = 2
"""Watches that end alike: one may be chance."""
_WITH_THE_END: Final = 1.0
"""Headers that come so few seconds before the end have come with it."""
_PAGE: Final = 'See docs/operations.md, "What stands between".'


class End(Struct, frozen=True):
    """How one watch ended; all times in seconds."""

    age: float
    """Since it was asked for."""
    silence: float
    """Since its last byte."""
    headers_after: float | None
    """When its headers came; None if they never did."""
    orderly: bool = False
    """The server ended it."""
    cut: bool = False
    """Something else ended it."""
    silent: bool = False
    """We ended it, since nothing came any more."""


@dataclass(eq=False)
class Lifetime:
    """What the watches of one scope have taught."""

    timings: Timings
    uniform: Callable[[float, float], float]
    limit: float | None = None
    """The most that is asked for, if less than usual."""
    withheld: bool = False
    """Whether answers are held back on the way: nothing comes until a watch is over."""
    cut_after: float | None = None
    """The age, or the silence, at which watches are cut off, or given up."""
    _why: Literal["age", "silence", "silent"] = "age"
    _shut: int = 0
    """Watches in a row of which nothing came before their end."""
    _unanswered: int = 0
    """Watches in a row of which nothing came at all."""
    _last: End | None = None
    """The last that was cut off."""
    _calm_since: datetime | None = None
    _patience: timedelta = timedelta()
    _raised: bool = False

    @property
    def suspected(self) -> bool:
        """Whether so little comes that answers may be held back."""
        return self.withheld or self._shut >= _ENOUGH

    @property
    def wants_list(self) -> bool:
        """Whether only a list tells what a watch does not."""
        return self._unanswered >= (1 if self.withheld else _ENOUGH)

    def ask(self) -> tuple[int, float]:
        """For how many seconds to ask, and how long to wait for the headers."""
        most = min(self.limit or self.timings.withheld, self.timings.withheld)
        if self.suspected:  # they come with its end
            return int(most), most + self.timings.grace
        usual = self.uniform(*self.timings.watch)
        return round(usual) if self.limit is None else int(self.limit), self.timings.headers

    def learn(self, end: End, now: datetime) -> None:
        """Take in how a watch ended."""
        lived, after = self.timings.lived, end.headers_after
        self._unanswered = (
            self._unanswered + 1 if after is None else int(self.withheld and not end.orderly)
        )
        with_the_end = after is not None and after >= lived and end.age - after < _WITH_THE_END
        self._shut = self._shut + 1 if after is None or with_the_end else 0
        if after is None or after > self.timings.prompt:
            self._calm_since = now
        if with_the_end and self._shut >= _ENOUGH:
            self.hold_back(now)
        if (end.cut or end.silent) and end.age >= lived:
            self._learn_cut(end, now)
        elif end.orderly:
            self._lengthen(end, now)

    def hold_back(self, now: datetime) -> None:
        """Conclude that answers are held back, since the server answers everything else."""
        self.withheld = True
        self._shorten(self.timings.withheld, now)

    def acquit(self) -> None:
        """Nothing need be held back by a server that does not answer lists either."""
        if not self.withheld:
            self._shut = self._unanswered = 0

    def fail(self) -> None:
        """List or watch could not be had: a list is the sooner one to show something again."""
        self._unanswered = max(self._unanswered, int(self.withheld))

    @property
    def shortened_by(self) -> Shortening | None:
        """Why less than usual is asked for, as far as it is known to be needed."""
        if self.withheld or self.cut_after is None:
            return "withheld" if self.withheld else None
        return "silent" if self._why == "silent" else "cut"

    @property
    def obstacle(self) -> str:
        """What stands in between, for whoever can change it; empty if nothing is known of any."""
        after, asked = f"{self.cut_after or 0:.0f} s", f"each is asked for {int(self.limit or 0)} s"
        match self.shortened_by:
            case "withheld":
                return (
                    "something between here and the API server holds back what a watch shows until it "
                    f"is over, so {asked}: changes are seen so much later at most. Let it pass on "
                    f"at once what comes (nginx: proxy_buffering off). {_PAGE}"
                )
            case "cut":
                after = after if self._why == "age" else f"{after} of silence"
                return (
                    f"something between here and the API server cuts watches off after {after}, so "
                    f"{asked}: nothing is missed. Let it keep quiet connections for 330 s (haproxy: "
                    f"timeout client, timeout server; nginx: proxy_read_timeout). {_PAGE}"
                )
            case "silent":
                return (
                    f"nothing came on watches for {after}, not even a bookmark: the API server sends "
                    f"none, or something in between keeps them, so {asked} and shows at its end "
                    f"what there was. {_PAGE}"
                )
            case None:
                return ""

    def _learn_cut(self, end: End, now: datetime) -> None:
        self._calm_since = now
        last, self._last = self._last, end
        if last is None:
            return
        if _alike(end.age, last.age) and end.age >= self.timings.lived:
            self.cut_after, self._why = min(end.age, last.age), "age"
        elif _alike(end.silence, last.silence) and end.silence >= self.timings.lived:
            self.cut_after, self._why = min(end.silence, last.silence), "silence"
        else:
            return
        if end.silent and last.silent:
            self.cut_after, self._why = end.silence, "silent"
        self._shorten(_SHARE * self.cut_after, now)

    def _shorten(self, seconds: float, now: datetime) -> None:
        first = timedelta(seconds=self.timings.longer_after)
        most = timedelta(seconds=self.timings.longer_after_cap)
        if self.limit is None:
            self._patience = first
        elif self._raised:  # it still stands there: look again, but not as soon
            self._patience = min(2 * self._patience, most)
        self.limit = max(min(self.limit or seconds, seconds), self.timings.lived)
        self._calm_since, self._raised = now, False

    def _lengthen(self, end: End, now: datetime) -> None:
        """Ask for a third more, once nothing has gone wrong for a while."""
        if self.limit is None:
            if self._last is not None and end.age > (1 + _ALIKE) * self._last.age:
                self._last = None  # that was chance
            return
        if self._calm_since is not None and now - self._calm_since < self._patience:
            return
        self.withheld, self._calm_since, self._raised = False, now, True
        self.limit /= _SHARE
        if self.limit >= self.timings.watch[0]:
            self.limit = self.cut_after = self._last = None


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= _ALIKE * max(one, other)
