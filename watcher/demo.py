"""The real `run` on an embedded API server and an embedded Slack: one scripted outage, told as it happens."""

import asyncio
import contextlib
import copy
import io
import json
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from watcher import audit
from watcher.app import Process, run
from watcher.clock import SystemClock
from watcher.config import Config
from watcher.config.load import load
from watcher.core.compose import short_id
from watcher.testing.apiserver import FakeApiServer
from watcher.testing.objects import condition, deployment, set_ready
from watcher.testing.slack import CHANNEL, FakeSlack

_HOLDS: Final = {
    "WATCHER_HEALTH__DEGRADED_FOR": "4s",
    "WATCHER_HEALTH__NONE_AVAILABLE_FOR": "3s",
    "WATCHER_HEALTH__RECOVERED_FOR": "4s",
    "WATCHER_HEARTBEAT__INTERVAL": "1s",
}
_CLUSTER: Final = (
    ("shop", "web", 4),
    ("shop", "checkout", 3),
    ("shop", "search", 2),
    ("payments", "ledger", 4),
    ("payments", "fraud-check", 1),
)


async def demo(keep: bool, console: Console) -> None:
    """Play the outage in about a minute, then print the channel; with `keep` go on until stopped."""
    clock = SystemClock()
    server = FakeApiServer(clock=clock)
    for namespace, name, desired in _CLUSTER:
        server.apply(deployment(namespace, name, desired, at=clock.wall()))
    await server.start()
    stop = asyncio.Event()
    started: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
    with tempfile.TemporaryDirectory(prefix="watcher-demo-") as folder:
        log = io.StringIO()
        audit.configure(log, "info", json=True)
        async with FakeSlack(clock) as slack:
            config = _config(server, slack, Path(folder))
            life = run(config, clock=clock, ready=started.set_result, stop=stop)
            process = asyncio.create_task(life)
            play = asyncio.create_task(_play(_Stage(server, slack, clock, console), started))
            try:
                await asyncio.wait({process, play}, return_when=asyncio.FIRST_COMPLETED)
                if play.done() and keep:
                    where = f"http://{started.result().addresses[0]}"
                    console.print(f"\nStill up at {where}, Ctrl-C ends it.")
                    await process
            finally:
                stop.set()
                play.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await play
                await process
            console.print(_channel(slack))
        await server.stop()
    _print_audit(console, log.getvalue().splitlines())


def _config(server: FakeApiServer, slack: FakeSlack, folder: Path) -> Config:
    kubeconfig, token = folder / "kubeconfig", folder / "slack-token"
    kubeconfig.write_text(json.dumps(server.kubeconfig()), encoding="utf-8")
    token.write_text(slack.token, encoding="utf-8")
    sink = {
        "name": "oncall",
        "type": "slack",
        "token": {"file": str(token)},
        "channel": CHANNEL,
        "api_url": slack.api_url,
    }
    environment = {
        **_HOLDS,
        "WATCHER_CLUSTERS": json.dumps([{"name": "demo", "kubeconfig": str(kubeconfig)}]),
        "WATCHER_SINKS": json.dumps([sink]),
        "WATCHER_STORE__URL": f"sqlite:///{folder / 'watcher.db'}",
        "WATCHER_WEB__ADDRESS": "127.0.0.1:0",
    }
    return load(None, environment, {})


@dataclass
class _Stage:
    """The cluster that things happen to, and the console that tells of them."""

    server: FakeApiServer
    slack: FakeSlack
    clock: SystemClock
    console: Console
    _began: datetime | None = None
    _told: int = 0

    def say(self, text: str) -> None:
        """Tell what happens now."""
        now = self.clock.now()
        self._began = self._began or now
        seconds = (now - self._began).total_seconds()
        self.console.print(Text.assemble((f"{seconds:5.1f} s  ", "dim"), (text, "bold")))

    async def wait(self, seconds: float) -> None:
        """Let time pass, and tell what on-call gets to read meanwhile."""
        until = self.clock.now().timestamp() + seconds
        while self.clock.now().timestamp() < until:
            await self.clock.sleep(0.25)
            posts = [(p.ts, p.text) for m in self.slack.messages for p in (m, *m.replies)]
            for _, text in sorted(posts)[self._told :]:
                headline = text.partition("\n")[0].partition(". ")[0]
                told = Text(f"Slack: {headline}", style="yellow")
                self.console.print(Padding(told, (0, 0, 0, 9)))
            self._told = len(posts)

    async def roll_out(self, namespace: str, name: str) -> None:
        """Replace the pods one by one, as the Deployment controller reports it."""
        obj = copy.deepcopy(self.server.get(namespace, name))
        desired = obj["spec"]["replicas"]
        obj["metadata"]["generation"] += 1
        self.server.apply(obj)
        obj["status"]["observedGeneration"] += 1
        for updated in range(desired + 1):
            done = updated == desired
            obj["status"] |= {"updatedReplicas": updated, "replicas": desired + (not done)}
            reason = "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"
            condition(obj, "Progressing", "True", reason, self.clock.wall())
            set_ready(obj, desired if done else desired - 1, self.clock.wall())
            self.server.apply(obj)
            await self.wait(1)


async def _play(stage: _Stage, started: asyncio.Future[Process]) -> None:
    await asyncio.shield(started)  # which a Ctrl-C before the start must not cancel
    stage.say("Five Deployments; holds are cut to 3 and 4 s, heartbeats to 1 s.")
    await stage.wait(3)
    stage.say("shop/web rolls out a new version, pod by pod: nobody needs to know.")
    await stage.roll_out("shop", "web")
    await stage.wait(2)
    stage.say("All pods of shop/checkout crash.")
    stage.server.set_ready("shop", "checkout", 0)
    await stage.wait(7)
    stage.say("The API server goes away; payments/ledger loses 3 of 4 pods.")
    await stage.server.stop()
    await stage.wait(2)
    stage.server.set_ready("payments", "ledger", 1)
    await stage.wait(7)
    stage.say("The API server is back.")
    await stage.server.start()
    await stage.wait(10)
    stage.say("Both are repaired.")
    stage.server.set_ready("shop", "checkout", 3)
    stage.server.set_ready("payments", "ledger", 4)
    await stage.wait(9)
    stage.say("That was all.")


def _channel(slack: FakeSlack) -> Panel:
    title, about = "#oncall as it stands now", "one message an incident, its history in the thread"
    return Panel(Text(slack.render()), title=title, subtitle=about, padding=(1, 2))


def _print_audit(console: Console, lines: list[str]) -> None:
    console.print(f"The audit log has {len(lines)} lines; of the notifications that were sent:")
    for line in lines:
        row = json.loads(line)
        if row["event"] == "notification.sent":
            what = f"{row['part']:5}  incident {short_id(row['incident'])}"
            shown = f"{row['ts'][11:19]}  {what}  {row['latency']:.3f} s after its commit"
            console.print(Text(shown, style="dim"))
