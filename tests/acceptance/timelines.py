"""Timelines in one line a record, and what was printed of them in one line an event."""

import copy
import json
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.deployments import ZERO, Json, having, stamp, web
from watcher.core.events import Event
from watcher.replay import Stage
from watcher.stores.database import migrate
from watcher.timeline import Timeline as Read
from watcher.timeline import read


def see(at: float | str, obj: Json, kind: str = "MODIFIED") -> Json:
    """The server shows a new state of one Deployment."""
    return {"at": at, "type": kind, "object": obj}


def gone(at: float, obj: Json) -> Json:
    """The server shows that one is deleted."""
    return see(at, obj, "DELETED")


def listed(at: float | str, *objs: Json) -> Json:
    """A complete list."""
    return {"at": at, "type": "LIST", "items": list(objs)}


def down(at: float) -> Json:
    """The API server goes."""
    return {"at": at, "type": "API_DOWN"}


def up(at: float) -> Json:
    """The API server is back."""
    return {"at": at, "type": "API_UP"}


def restart(at: float, away: float = 0) -> Json:
    """The watcher's process restarts."""
    return {"at": at, "type": "RESTART", "down": away}


def end(at: float) -> Json:
    """Nothing after this instant."""
    return {"at": at, "type": "END"}


Timeline = tuple[list[Json], list[str]]
"""What happens, and what is told of it."""

OK, LOW, NONE, SHORT = web(3), web(1), web(0), web(2)
"""Of three, two are needed: healthy, below the minimum, nothing, and short within the budget."""
ROLLING = web(3, updated=1, total=4, reason="ReplicaSetUpdated", moved=-50)
STALLED = web(
    3, updated=1, total=4, reason="ProgressDeadlineExceeded", progressing="False", moved=-300
)
UNSEEN = web(1, generation=2, observed=1)
MALFORMED = having(web(), status__availableReplicas=-1)
ONE_OK, ONE_GONE = web(1, 1, unavailable=0), web(0, 1, unavailable=0)
ZERO_PODS = web(0, 0)
QUIET_LOW, QUIET_OK = web(1, silence_until=stamp(300)), web(3, silence_until=stamp(300))
START = listed(0, OK)
DEGRADED = "70 A degraded below_minimum warning since 10"
FIRING = [START, see(10, LOW)]
CUT = [down(100), up(200)]
LOST, FOUND = "135 A cluster unreachable since 105", "225 A cluster restored since 105"


def table(cases: dict[str, Timeline]) -> pytest.MarkDecorator:
    """One test a case, named by it."""
    return pytest.mark.parametrize(("steps", "expected"), cases.values(), ids=cases.keys())


def closed(at: float, why: str) -> str:
    """The end of what DEGRADED opened."""
    return f"{at} A closed below_minimum warning since 10 ({why})"


def lines(steps: Iterable[Json]) -> list[str]:
    """The records as JSON lines; each object gets the next resourceVersion unless it has one."""
    version = 1000
    written = []
    for step in map(copy.deepcopy, steps):
        for obj in [*step.get("items", []), step.get("object")]:
            if obj is not None:
                version += 1
                obj["metadata"].setdefault("resourceVersion", str(version))
        written.append(json.dumps(step))
    return written


async def told(steps: Iterable[Json]) -> list[str]:
    """What would be sent: `70 A degraded below_minimum warning since 10`, a letter an incident."""
    letters: dict[str, str] = {}
    timeline = read(lines(steps))
    return [
        _line(
            event, letters.setdefault(event.incident, chr(ord("A") + len(letters))), timeline.base
        )
        for event in await sent(timeline)
    ]


async def sent(timeline: Read) -> list[Event]:
    """What some sink would have been sent."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "replay.db"
        path.write_bytes(_empty_store())
        return [event async for event in Stage(timeline, f"sqlite:///{path}").play()]


@cache
def _empty_store() -> bytes:
    """A store as it is at first; bringing each one up to date would take most of a test's time."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        migrate(f"sqlite:///{path}")
        return path.read_bytes()


def _line(event: Event, letter: str, base: datetime) -> str:
    subject = event.subject
    who = "cluster" if subject.is_cluster else subject.name
    words = [
        f"{(event.at - base).total_seconds():g}",
        letter,
        who if who != "web" else "",
        event.type.partition(".")[2],
        *(() if subject.is_cluster else (event.reason, event.severity)),
        f"since {(event.since - ZERO).total_seconds():g}",
        f"({event.resolution})" if event.resolution else "",
    ]
    return " ".join(filter(None, words))
