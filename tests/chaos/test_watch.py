"""Random faults of the API server and the network while Deployments come, break, heal and go.

What the receiver got is compared with what a simple oracle derives from the true history. It knows
only what was done, and four rules: who is down at the end of a round, for longer than the hold, is
told once; who was told and is well again, told so once; who was told and is gone, closed once; an
API server that was away for minutes, told once and once again. Nothing else may arrive.
"""

import copy
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.faults.warp import warped
from tests.faults.world import World, headline
from watcher.testing.apiserver import Fault, status
from watcher.testing.objects import deployment, set_ready

NAMES = tuple("abcdefghij")
DESIRED = 4
HOLD = 300
HEALTH = {
    "degraded_for": "5m",
    "none_available_for": "5m",
    "recovered_for": "5m",
    "flapping": {"cycles": 1000, "episodes": 1000},
}
SECONDS = 15
"""Real ones, in `make test`."""
Act = Callable[["Chaos"], Awaitable[None]]


class Oracle:
    """What must have been told, from nothing but what was done."""

    def __init__(self) -> None:
        self.told: set[str] = set()
        """The uids of whom people know that they are down."""

    def round(self, truth: dict[str, str], lost: bool) -> Counter[str]:
        """What a round must tell: `truth` is how each that exists ended it, up, down or zero."""
        expected = Counter({"unreachable": 1, "restored": 1} if lost else {})
        for uid in sorted(self.told):
            ending = {"up": "recovered", "zero": "closed", None: "closed"}
            if (found := truth.get(uid)) != "down":
                expected[f"{ending[found]} {uid}"] += 1
                self.told.discard(uid)
        for uid, state in truth.items():
            if state == "down" and uid not in self.told:
                expected[f"degraded {uid}"] += 1
                self.told.add(uid)
        return expected


class Chaos:
    """One run: a world, its dice, and the log of what was done to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.world = World(folder)
        self.log: list[str] = []
        self.oracle = Oracle()
        self.lost = False
        """Whether this round's fault is one to be told."""
        self.before: dict[str, str] = {}
        """How everybody stood when sight was lost."""
        self.over: set[str] = set()
        """Who ended in this round: what comes after it in the same fault might hide it or not."""
        self._process = AsyncExitStack()
        self._seen = 0

    async def begin(self) -> None:
        """Ten Deployments, and a process that follows them."""
        for name in NAMES:
            self.world.server.apply(deployment("shop", name, DESIRED))
        await self.start()
        await self.world.pass_time(10)

    async def start(self) -> None:
        """Run the process, anew if it was stopped."""
        await self._process.enter_async_context(self.world.watcher(HEALTH=HEALTH))

    async def stop(self) -> None:
        await self._process.aclose()

    async def rest(self, most: float) -> None:
        await self.world.pass_time(self.dice.uniform(0, most))

    async def round(self) -> None:
        """A fault, changes while it lasts, and then time enough for everything to be told."""
        fault = self.dice.choice(FAULTS)
        self.log.append(f"round: {fault.__name__}")
        self.lost = False
        self.over.clear()
        for name in self.dice.sample(NAMES, self.dice.randrange(3)):
            self.change(name)
        await self.rest(2)
        await fault(self)
        await self.in_step()
        await self.world.pass_time(HOLD + 60)
        await self.check()

    def change(self, name: str) -> None:
        """Something happens to one Deployment, unless it has ended in this round."""
        if name in self.over:
            return
        if name not in self.names():
            self.end(name, "create")
        elif not (obj := self.copy(name))["spec"]["replicas"]:
            self.over.add(name)
            self.scale(obj, DESIRED)
        else:
            acts = ("down", "up", "touch", "delete", "anew", "zero")
            self.act(name, obj, self.dice.choices(acts, (6, 4, 2, 1, 1, 1))[0])

    def act(self, name: str, obj: dict[str, Any], what: str) -> None:
        match what:
            case "down":
                self.serve(obj, self.dice.choice((0, 1, 2)))
            case "up":
                self.serve(obj, obj["spec"]["replicas"])
            case "touch":
                obj["metadata"]["labels"]["touched"] = str(self.dice.random())
                self.world.server.apply(obj)
            case "zero":
                self.over.add(name)
                self.scale(obj, 0)
            case _:
                self.end(name, what)

    def end(self, name: str, how: str) -> None:
        """Delete it, or create it: as another one if there was one of this name."""
        self.over.add(name)
        self.log.append(f"{self.world.seconds:.0f} {name} {how}")
        if how == "delete":
            self.world.server.delete("shop", name)
        else:
            self.world.server.apply(deployment("shop", name, DESIRED))

    def copy(self, name: str) -> dict[str, Any]:
        return copy.deepcopy(self.world.server.get("shop", name))

    def serve(self, obj: dict[str, Any], ready: int) -> None:
        set_ready(obj, ready, self.world.clock.wall())
        self.world.server.apply(obj)
        self.log.append(f"{self.world.seconds:.0f} {obj['metadata']['name']} {ready} ready")

    def scale(self, obj: dict[str, Any], desired: int) -> None:
        obj["spec"]["replicas"] = desired
        obj["metadata"]["generation"] += 1
        obj["status"] |= {
            "observedGeneration": obj["metadata"]["generation"],
            "replicas": desired,
            "updatedReplicas": desired,
        }
        self.serve(obj, desired)

    async def stir(self, seconds: float) -> None:
        """Let so much time pass, with changes in it."""
        for name in self.dice.sample(NAMES, self.dice.randrange(1, 5)):
            await self.world.pass_time(seconds / 5)
            self.change(name)
            if name in set(self.names()) - self.over and self.dice.random() < 0.4:
                self.serve(self.copy(name), self.dice.choice((0, DESIRED)))  # it flickers
        await self.world.pass_time(seconds / 5)

    def names(self) -> list[str]:
        return [name for name in NAMES if self.world.server.has("shop", name)]

    def truth(self) -> dict[str, str]:
        """How each one stands, by uid."""
        found = {}
        for name in self.names():
            obj = self.world.server.get("shop", name)
            ready, desired = obj["status"]["readyReplicas"], obj["spec"]["replicas"]
            state = "zero" if desired == 0 else "up" if ready == desired else "down"
            found[obj["metadata"]["uid"]] = state
        return found

    async def in_step(self) -> None:
        """The process sees the cluster as it is, within four minutes of any fault's end."""

        def same() -> bool:
            view = self.world.process.view.clusters["prod"]
            seen = {uid: t.snapshot.resource_version for uid, t in view.tracked.items()}
            objects = (self.world.server.get("shop", name)["metadata"] for name in self.names())
            true = {m["uid"]: m["resourceVersion"] for m in objects}
            return seen == true and view.fresh(self.world.clock.now())

        await self.world.until(same, 240)

    async def check(self) -> None:
        """What arrived in this round is what had to, each event once."""
        received = [event for _, event in self.world.received[self._seen :]]
        self._seen = len(self.world.received)
        updates = [e["data"]["uid"] for e in received if e["data"]["event"] == "updated"]
        told = Counter(line(e) for e in received if e["data"]["event"] != "updated")
        known = self.oracle.told.copy()
        assert told == self.oracle.round(self.truth(), self.lost)
        assert set(updates) <= known | self.oracle.told, "an update of what was never told"
        for event in received:
            if headline(event) == "restored":
                self.check_report(event["data"]["meanwhile"])
        ids = Counter(event["id"] for _, event in self.world.received)
        assert max(ids.values(), default=1) == 1

    def check_report(self, report: dict[str, Any]) -> None:
        """What the restored says of the time without sight is what happened in it."""
        after = self.truth()
        fell = [u for u, state in after.items() if (state, self.before.get(u)) == ("down", "up")]
        gone = self.before.keys() - after.keys()
        assert (report["degraded"]["count"], report["deleted"]["count"]) == (len(fell), len(gone))

    async def fresh_list(self) -> None:
        """At the end the process shows what a list of anybody else shows."""
        url = f"{self.world.server.url}/apis/apps/v1/deployments"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            items = (await answer.json())["items"]
        true = {
            (i["metadata"]["name"], i["spec"]["replicas"], i["status"]["readyReplicas"])
            for i in items
        }
        assert {(r["name"], r["desired"], r["ready"]) for r in await self.world.rows()} == true


def line(event: dict[str, Any]) -> str:
    uid = event["data"].get("uid", "")
    return f"{headline(event).partition(' ')[0]} {uid}".rstrip()


async def calm(chaos: Chaos) -> None:
    await chaos.stir(20)


async def cut(chaos: Chaos) -> None:
    for _ in range(3):
        chaos.world.proxy.reset()
        await chaos.stir(5)


async def half_open(chaos: Chaos) -> None:
    """The watch is carried nowhere any more, and nobody says so."""
    chaos.world.proxy.freeze()
    await chaos.stir(20)


async def packets_lost(chaos: Chaos) -> None:
    chaos.world.proxy.drop()
    await chaos.stir(15)
    chaos.world.proxy.heal()


async def gone_for_minutes(chaos: Chaos) -> None:
    """Longer than any hold; what broke just before may have healed when it is back."""
    chaos.lost = True
    known = [name for name in chaos.names() if name not in chaos.over]
    broke = [name for name in known if chaos.copy(name)["spec"]["replicas"]][:4]
    for name in broke:
        chaos.serve(chaos.copy(name), 0)
    await chaos.rest(2)
    await chaos.world.pass_time(1)
    chaos.before = chaos.truth()
    how = chaos.dice.choice(("dropped", "stopped"))
    if how == "dropped":
        chaos.world.proxy.drop()
    else:
        await chaos.world.server.stop()
    await chaos.stir(400)
    for name in [name for name in broke if name not in chaos.over]:
        chaos.serve(chaos.copy(name), chaos.dice.choice((0, DESIRED, DESIRED)))
    if how == "dropped":
        chaos.world.proxy.heal()
    else:
        await chaos.world.server.start()


async def restarted(chaos: Chaos) -> None:
    """The API server, with its history or without."""
    await chaos.world.server.stop()
    await chaos.stir(10)
    if chaos.dice.random() < 0.5:
        chaos.world.server.compact()
    await chaos.world.server.start()


async def expired(chaos: Chaos) -> None:
    server = chaos.world.server
    server.expired_as_event = chaos.dice.random() < 0.5
    chaos.world.proxy.reset()
    for name in NAMES[:5]:
        chaos.change(name)
    server.compact()
    await chaos.stir(10)


async def refused(chaos: Chaos) -> None:
    """Answers that are none, one after the other, to whatever is asked next."""
    answers = [
        Fault("list", status=500, body=msgspec.json.encode(status(500))),
        Fault("list", status=503, body=b"<html>try again</html>"),
        Fault("list", status=429, headers={"Retry-After": "3"}),
        Fault("list", cut=200),
        Fault("list", status=200, body=b"{}"),
        Fault("watch", status=410, body=msgspec.json.encode(status(410, "Expired"))),
        Fault("watch", status=500),
        Fault("watch", status=200, body=b'{"type":"MODIFIED","object":{"kind'),
        Fault("watch", lines=b'{"type":"MODIFIED","object":{"kind', ends=True),
        Fault("watch", mute=True),
        Fault("get", status=500),
        Fault("get", mute=True),
    ]
    chaos.world.server.faults += chaos.dice.sample(answers, 4)
    chaos.world.proxy.reset()
    await chaos.stir(20)


async def nonsense(chaos: Chaos) -> None:
    """Lines that are no events, and events from long ago."""
    old = [chaos.copy(name) for name in chaos.names()]
    await chaos.stir(5)
    for line in (b"garbage\n", b'{"type":"PATCHED","object":{}}\n', b"\n"):
        chaos.world.server.send(line)
        await chaos.rest(1)
    for obj in old:  # deletions cannot be told from news: an old object that is gone is not sent
        if obj["metadata"]["uid"] in chaos.truth():
            chaos.world.server.send(msgspec.json.encode({"type": "ADDED", "object": obj}) + b"\n")
    await chaos.stir(5)


async def short_streams(chaos: Chaos) -> None:
    chaos.world.server.streams_last = 1.5
    chaos.world.server.end_streams()
    await chaos.stir(20)
    chaos.world.server.streams_last = None


async def slow_network(chaos: Chaos) -> None:
    chaos.world.proxy.delay = 0.8
    await chaos.stir(20)
    chaos.world.proxy.delay = 0.0


async def process_restarted(chaos: Chaos) -> None:
    """The watcher itself, and it stays away for a while."""
    await chaos.stop()
    await chaos.stir(15)
    await chaos.start()


FAULTS: tuple[Act, ...] = (
    calm, cut, half_open, packets_lost, gone_for_minutes, gone_for_minutes, restarted, expired, refused, nonsense,
    short_streams, slow_network, process_restarted,
)  # fmt: skip


async def run(folder: Path, seconds: float) -> None:
    """Rounds for so long in real time; the seed and what was done are shown by a failure."""
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(1 << 32)))
    chaos = Chaos(folder, seed)
    until, rounds = time.monotonic() + seconds, 0
    try:
        async with chaos.world.open():
            try:
                await chaos.begin()
                while time.monotonic() < until:
                    await chaos.round()
                    rounds += 1
                await chaos.fresh_list()
            finally:
                await chaos.stop()
    finally:
        print(f"CHAOS_SEED={seed}: {rounds} rounds, {len(chaos.world.received)} messages")
        print(*chaos.log[-40:], sep="\n")
    assert rounds > 5


@warped
async def test_every_real_outage_is_told_once(tmp_path):
    """Whatever the network and the API server do: each degraded and its end once, nothing else."""
    await run(tmp_path, SECONDS)


@pytest.mark.soak
@warped
async def test_every_real_outage_is_told_once_for_long(tmp_path):
    """The same for half an hour."""
    await run(tmp_path, 1800)
