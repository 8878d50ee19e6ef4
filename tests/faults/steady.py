"""Faults that stay, one of each class, and what the watcher sends meanwhile."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from tests.faults.world import World, world
from watcher.testing.apiserver import Fault, event

Break = Callable[[World], None]
PAGE = b"<html><h1>503 Service Unavailable</h1></html>"
WARM_UP = 120


def lasting(*faults: Fault) -> Break:
    """These answers from now on, for whoever connects anew."""

    def broken(w: World) -> None:
        w.server.faults += faults
        w.server.reset_connections()

    return broken


def refuses(w: World) -> None:
    w.proxy.bad_one_in = 1
    w.proxy.reset()


def drops(w: World) -> None:
    w.proxy.drop()


def revokes(w: World) -> None:
    w.server.token = "another"
    w.server.reset_connections()


def forbids(*verbs: str) -> Break:
    def broken(w: World) -> None:
        w.server.forbidden |= {(verb, "") for verb in verbs}
        w.server.reset_connections()

    return broken


def ends_at_once(w: World) -> None:
    w.server.streams_last = 0
    w.server.end_streams()


OLD = event("ADDED", {"kind": "Deployment", "metadata": {"name": "old", "resourceVersion": "1"}})
CLASSES: MappingProxyType[str, Break] = MappingProxyType(
    {
        "connections refused or reset": refuses,
        "packets dropped": drops,
        "500 on everything": lasting(Fault("", 500, lasts=True)),
        "503 from a balancer, Retry-After 0": lasting(
            Fault("", 503, PAGE, {"Retry-After": "0"}, lasts=True)
        ),
        "429 on everything": lasting(Fault("", 429, lasts=True)),
        "401 on everything": revokes,
        "403 on everything": forbids("list", "watch"),
        "403 on the watch": forbids("watch"),
        "410 on the watch": lasting(Fault("watch", 410, lasts=True)),
        "500 on the watch": lasting(Fault("watch", 500, lasts=True)),
        "watch reset at once": lasting(Fault("watch", cut=0, lasts=True)),
        "watch closed at once": ends_at_once,
        "watch cut inside an event": lasting(
            Fault("watch", lines=b'{"type', ends=True, lasts=True)
        ),
        "watch replays an event and ends": lasting(
            Fault("watch", lines=OLD, ends=True, lasts=True)
        ),
        "watch of garbage": lasting(Fault("watch", lines=b"x\nx\nx\n", lasts=True)),
        "watch without headers": lasting(Fault("watch", mute=True, lasts=True)),
        "lists that are none": lasting(
            Fault("list", 200, b"{}", lasts=True), Fault("watch", 410, lasts=True)
        ),
        "no fault": lasting(),
    }
)


async def per_minute(folder: Path, fault: Break, minutes: int) -> list[int]:
    """Requests in each minute of the fault, after its first two; attempts to connect where none gets through."""
    counts = []
    async with world(folder) as w:
        fault(w)
        await w.pass_time(WARM_UP)
        for _ in range(minutes):
            before = len(w.server.requests), w.proxy.connections
            await w.pass_time(60)
            after = len(w.server.requests), w.proxy.connections
            counts.append(max(b - a for a, b in zip(before, after, strict=True)))
    return counts


async def half_open(folder: Path) -> float:
    """Seconds from the last byte of a stream that falls silent until it is asked for anew."""
    async with world(folder) as w:
        w.proxy.freeze()
        frozen, before = w.seconds, len(w.asked("watch"))
        await w.until(lambda: len(w.asked("watch")) > before, within=400)
        return w.seconds - frozen
