"""Standard output and error as pipes that nobody reads, or not in time."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.logs import captured
from watcher import audit, pipes
from watcher.metrics import Metrics
from watcher.testing.apiserver import FakeApiServer
from watcher.testing.clock import ManualClock
from watcher.testing.objects import EARLIER, deployment, set_ready
from watcher.view import View

ROOT = Path(__file__).parents[2]
FULL = b"x" * 4095 + b"\n"


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, int]]:
    """Its two ends; there is room for nothing more in it."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, FULL)
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            continue


@pytest.fixture
async def kubeconfig(tmp_path: Path) -> AsyncIterator[Path]:
    """Of an API server with one degraded Deployment."""
    server, broken = FakeApiServer(), deployment("shop", "checkout")
    set_ready(broken, 0, EARLIER + timedelta(hours=1))
    server.apply(broken)
    await server.start()
    (tmp_path / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
    yield tmp_path / "kubeconfig"
    await server.stop()


async def start(stderr: int, kubeconfig: Path, **env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "watcher", "run", "--kubeconfig", str(kubeconfig),
        "--address", "127.0.0.1:0",
        cwd=kubeconfig.parent,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )  # fmt: skip


async def everything(reader: int) -> list[str]:
    """What comes out of a pipe until its end."""
    with open(reader, "rb", closefd=False) as pipe:  # noqa: ASYNC230 - in a thread
        return (await asyncio.to_thread(pipe.read)).decode().splitlines()


async def test_a_log_that_nobody_reads_stops_nothing(
    full_pipe: tuple[int, int], kubeconfig: Path
) -> None:
    """People are told, and the process ends when it is asked to, in time and with its exit code."""
    process = await start(full_pipe[1], kubeconfig)
    assert process.stdout is not None
    told = await asyncio.wait_for(process.stdout.readline(), 15)
    assert "shop/checkout" in told.decode()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 6) == 0


async def test_a_log_that_is_read_late_is_whole_and_in_order(
    full_pipe: tuple[int, int], kubeconfig: Path
) -> None:
    """Down to the last line, which is written when the process is asked to end."""
    reader, writer = full_pipe
    process = await start(writer, kubeconfig)
    os.close(writer)
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readline(), 15)
    process.send_signal(signal.SIGTERM)
    junk, *log = await asyncio.wait_for(everything(reader), 6)
    assert await process.wait() == 0
    assert junk == FULL.decode().strip()
    lines = [json.loads(line) for line in log]
    names = [line["event"] for line in lines]
    assert (names[0], names[-1]) == ("config.loaded", "process.stopped")
    assert {"incident.opened", "notification.queued", "notification.sent"} < set(names)
    assert [line["ts"] for line in lines] == sorted(line["ts"] for line in lines)


async def test_what_finds_no_room_is_dropped_counted_and_said(full_pipe: tuple[int, int]) -> None:
    """The oldest lines stay, the log says where some are missing, and goes on with what comes then."""
    reader, writer = full_pipe
    metrics, clock = Metrics(View(), ManualClock(EARLIER)), ManualClock(EARLIER)

    def dropped() -> float:
        return metrics.registry.get_sample_value("watcher_log_lines_dropped_total") or 0

    before, stream = dropped(), open(writer, "w", closefd=False)  # noqa: SIM115, ASYNC230
    with captured():
        audit.configure(stream, "info", json=True, clock=clock)
        for number in range(10_000):
            audit.emit("dead_man.withheld", reason=str(number))
        missing = dropped() - before
        assert 2_000 <= 10_000 - missing <= 8_000
        read = asyncio.create_task(everything(reader))
        await asyncio.to_thread(pipes.end)
        audit.emit("dead_man.resumed")
        pipes.end()
        os.close(writer)
        lines = [json.loads(line) for line in (await read)[1:]]
    kept = [line["reason"] for line in lines if line["event"] == "dead_man.withheld"]
    assert kept == [str(number) for number in range(len(kept))]
    assert len(kept) == 10_000 - missing
    *_, note, last = lines
    assert (note["event"], note["lines"], note["level"]) == ("log.dropped", missing, "warning")
    assert last["event"] == "dead_man.resumed"


async def test_a_log_that_nobody_can_read_any_more_stops_nothing() -> None:
    """Its lines are lost, and counted."""
    reader, writer = os.pipe()
    os.close(reader)
    before = pipes.Log.dropped
    with captured(), open(writer, "w") as stream:  # noqa: ASYNC230, PTH123
        audit.configure(stream, "info", json=True)
        audit.emit("dead_man.resumed")
        pipes.end()
        assert pipes.Log.dropped == before + 1


CRASH = """
import sys
from watcher import audit, cli
@cli.app.command()
def crash():
    audit.configure(sys.stderr, "info", json=True)
    for number in range(1000):
        audit.emit("dead_man.withheld", reason=str(number))
    raise KeyError("a bug")
sys.argv = ["watcher", "crash"]
cli.main()
"""


def crash(stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CRASH], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=stderr
    )


def test_a_crash_is_told_after_all_that_led_to_it() -> None:
    process = crash(subprocess.PIPE)
    _, err = process.communicate(timeout=8)
    lines = err.decode().splitlines()
    assert process.returncode == 1
    assert [json.loads(line)["reason"] for line in lines[:1000]] == [str(n) for n in range(1000)]
    assert lines[1000].startswith("Traceback")
    assert lines[-1] == "KeyError: 'a bug'"


def test_a_crash_that_nobody_reads_of_ends_the_process(full_pipe: tuple[int, int]) -> None:
    assert crash(full_pipe[1]).wait(8) == 1


async def test_a_terminal_shows_why_it_ends_after_what_came_before(kubeconfig: Path) -> None:
    """Where the reason is a message, and no line of the log."""
    (kubeconfig.parent / "no-database").write_text("not SQLite" * 1000)
    terminal, its_other_end = os.openpty()
    process = await start(its_other_end, kubeconfig, WATCHER_STORE__URL="sqlite:///no-database")
    os.close(its_other_end)
    assert await asyncio.wait_for(process.wait(), 10) == 2
    shown = b""
    while b"watcher: " not in shown:
        shown += os.read(terminal, 65_536)
    os.close(terminal)
    assert shown.index(b"config.loaded") < shown.index(b"watcher: ")
