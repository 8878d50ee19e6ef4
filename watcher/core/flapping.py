"""What makes a subject flapping: how often it was degraded lately, and how long that was in all.

A hold starts anew in each episode, so that what comes and goes within it would never be told. From
the episode on with which they are too many, the times below the floor count as one hold.
"""

from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from watcher.core.events import Flaps
from watcher.core.phases import Fall, History
from watcher.core.policy import Flapping

_MOST_STARTS: Final = 1000
_MOST_FALLS: Final = 64


def began(history: History, now: datetime, policy: Flapping) -> History:
    """Take in that a degraded episode begins."""
    history = recent(history, now, policy)
    kept = min(policy.episodes + 1, _MOST_STARTS)  # more of them would decide nothing
    return replace(history, episodes=(*history.episodes, now)[-kept:])


def weighed(history: History, short: bool, now: datetime, until: datetime) -> History:
    """Take in whether serving is below the floor in the present episode.

    `until` is up to when it was in sight as it was before: later time counts for no fall.
    """
    if not short:
        return over(history, until)
    return history if history.falling is not None else replace(history, falling=now)


def over(history: History, until: datetime) -> History:
    """Take in that serving is not below the floor any more, or that it cannot be told."""
    if history.falling is None:
        return history
    falls, lasted = history.falls, max(timedelta(0), until - history.falling)
    if _goes_on(history):
        falls = (*falls[:-1], replace(falls[-1], lasted=falls[-1].lasted + lasted))
    else:
        falls = (*falls, Fall(history.falling, lasted))
    if len(falls) > _MOST_FALLS:
        falls = (*map(_together, falls[:-1:2], falls[1:-1:2]), falls[-1])
    return replace(history, falls=falls, falling=None)


def recent(history: History, now: datetime, policy: Flapping) -> History:
    """Only what is in the window that ends now."""
    start = now - policy.window
    return replace(
        history,
        episodes=tuple(e for e in history.episodes if e >= start),
        recoveries=tuple(r for r in history.recoveries if r >= start),
        falls=tuple(f for f in history.falls if f.at >= start),
    )


def adds_up_at(history: History, hold: timedelta, policy: Flapping) -> datetime | None:
    """When the present fall makes `hold` full together with those before it in the window.

    None while serving is not below the floor, and while it was so in too few episodes.
    """
    if history.falling is None:
        return None
    falls = recent(history, history.falling, policy).falls
    if sum(f.times for f in falls) + (not _goes_on(history)) < policy.episodes:
        return None
    return history.falling + max(timedelta(0), hold - _lasted(falls))


def counted(history: History, at: datetime) -> Flaps:
    """How often it was degraded, since when, and how long below its floor, up to `at`."""
    falls, episodes = over(history, at).falls, history.episodes
    times = max(len(episodes), sum(f.times for f in falls))
    since = min((*episodes[:1], *(f.at for f in falls[:1])), default=at)
    return Flaps(times, since, _lasted(falls))


def _goes_on(history: History) -> bool:
    """Whether the last fall was in the present episode, and has only eased meanwhile."""
    falls, episodes = history.falls, history.episodes
    return bool(falls and episodes) and falls[-1].at >= episodes[-1]


def _lasted(falls: tuple[Fall, ...]) -> timedelta:
    return sum((f.lasted for f in falls), timedelta(0))


def _together(first: Fall, second: Fall) -> Fall:
    return Fall(first.at, first.lasted + second.lasted, first.times + second.times)
