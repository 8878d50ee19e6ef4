"""`watcher run` where there is no cluster to follow, for now or for good."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.controlplane.receivers import eventually
from tests.controlplane.watcher_process import ROOT, WatcherProcess
from watcher.testing.apiserver import FakeApiServer
from watcher.testing.objects import deployment


@pytest.fixture
async def absent() -> AsyncIterator[FakeApiServer]:
    """An API server that does not answer before it is started."""
    server = FakeApiServer()
    server.apply(deployment("shop", "web"))
    await server.start()
    await server.stop()
    yield server
    await server.stop()


def told(watcher: WatcherProcess) -> list[str]:
    """The incidents that somebody was told of."""
    sent = {line["event_id"] for line in watcher.audit if line["event"] == "notification.sent"}
    return [line["type"] for line in watcher.audit if line.get("type") and line["event_id"] in sent]


def without_a_cluster(watcher: WatcherProcess) -> None:
    watcher.start()
    eventually(lambda: told(watcher) == ["cluster.unreachable"], instead=lambda: told(watcher))
    assert watcher.get("/healthz")[0] == 200
    status, answer = watcher.get("/readyz")
    assert status == 503
    [reason] = answer["reasons"]
    assert reason.startswith("cluster far-away: cannot list deployments.apps at cluster scope: ")
    assert "connection refused" in reason
    assert watcher.get("/health/deployments")[0] == 503
    assert watcher.get("/health/apiserver")[0] == 500


def with_a_cluster(watcher: WatcherProcess) -> None:
    watcher.sees("shop", "web", health="healthy")
    assert watcher.get("/readyz")[0] == 200
    restored = ["cluster.unreachable", "cluster.restored"]
    eventually(lambda: told(watcher) == restored, instead=lambda: told(watcher))


async def test_it_starts_without_a_cluster_and_goes_on_once_there_is_one(
    absent: FakeApiServer, tmp_path: Path
) -> None:
    """Alive, not ready and why, told as unreachable; later all by itself ready, and told restored."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(absent.kubeconfig()))
    watcher = WatcherProcess(
        tmp_path,
        {
            "clusters": [{"name": "far-away", "kubeconfig": str(kubeconfig)}],
            "heartbeat": {"interval": "100ms"},
        },
    )
    try:
        await asyncio.to_thread(without_a_cluster, watcher)
        await absent.start()
        await asyncio.to_thread(with_a_cluster, watcher)
    finally:
        watcher.stop()


KUBECONFIG = """
current-context: {context}
contexts: [{{name: here, context: {{cluster: here, user: me}}}}]
clusters: [{{name: here, cluster: {{server: "https://127.0.0.1:1"}}}}]
users: [{{name: me, user: {{}}}}]
"""
WRONG = [
    pytest.param(
        {"config": None}, "config: cannot be read: No such file or directory", id="no file"
    ),
    pytest.param({"config": "health:\n  - [}"}, "config:2:6: ", id="broken YAML"),
    pytest.param(
        {"config": "health: {degraded_for: 60}"}, "config: health.degraded_for: ", id="a mistake"
    ),
    pytest.param(
        {"kubeconfig": None}, "kubeconfig kubeconfig: there is no such file", id="no kubeconfig"
    ),
    pytest.param(
        {"kubeconfig": "clusters: ["}, "kubeconfig kubeconfig: line 1: ", id="broken kubeconfig"
    ),
    pytest.param(
        {"kubeconfig": KUBECONFIG.format(context="there")},
        "kubeconfig kubeconfig: ",
        id="no such context",
    ),
]


@pytest.mark.parametrize(("files", "words"), WRONG)
def test_what_cannot_work_ends_it_with_one_line(
    tmp_path: Path, files: dict[str, str | None], words: str
) -> None:
    """On standard error, with the place, as JSON like every line of the log; exit code 2."""
    flags: list[str] = []
    for name, text in files.items():
        flags += [f"--{name}", name]
        if text is not None:
            (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "watcher", "run", *flags],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    (refused,) = [line for line in lines if line["event"] == "process.refused"]
    assert refused["error"].startswith(words)


def started(folder: Path) -> subprocess.Popen[str]:
    """A watcher whose log is to be read by the test."""
    return subprocess.Popen(
        [sys.executable, "-m", "watcher", "run", "--config", "config.yaml"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def signalled(folder: Path, signals: dict[str, signal.Signals]) -> tuple[int, list[str]]:
    """Exit code and log of a watcher that is sent these when those events are in its log."""
    with started(folder) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            event = json.loads(line)["event"] if line.startswith("{") else line
            if event in signals:
                process.send_signal(signals[event])
        return process.wait(10), lines


def test_a_hangup_is_no_end(absent_config: Path) -> None:
    """The configuration is read again; where it is the same, the log says so."""
    hangup = {"process.started": signal.SIGHUP, "config.unchanged": signal.SIGTERM}
    code, lines = signalled(absent_config, hangup)
    assert code == 0
    assert any('"config.unchanged"' in line for line in lines)
    assert '"process.stopped"' in lines[-1]


def test_nor_is_one_during_the_start(absent_config: Path) -> None:
    """As of a service manager that starts it and lets it reload in one go."""
    content = (absent_config / "config.yaml").read_text()
    (absent_config / "config.yaml").unlink()
    os.mkfifo(absent_config / "config.yaml")
    with started(absent_config) as process:
        with (absent_config / "config.yaml").open("w") as pipe:  # once it is being read
            process.send_signal(signal.SIGHUP)
            pipe.write(content)
        assert process.stderr is not None
        assert any('"process.started"' in line for line in process.stderr)
        process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize("moment", ["config.loaded", "cluster.endpoint", "store.created"])
def test_a_signal_during_the_start_leaves_no_warning(absent_config: Path, moment: str) -> None:
    """However far it has come: nothing that was begun is left unawaited."""
    code, lines = signalled(absent_config, {moment: signal.SIGTERM})
    assert code in (0, -signal.SIGTERM)
    assert [line for line in lines if not line.startswith("{")] == []


@pytest.fixture
def absent_config(tmp_path: Path) -> Path:
    """A folder with the configuration for a cluster that is not there."""
    (tmp_path / "kubeconfig").write_text(KUBECONFIG.format(context="here"))
    config = {"clusters": [{"kubeconfig": "kubeconfig"}], "web": {"address": "127.0.0.1:0"}}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    return tmp_path
