"""One clearly marked test message to a sink, to see whether it takes it."""

from msgspec import Struct

from watcher.adapters import make_sink
from watcher.alarm import opening
from watcher.attempt import notice
from watcher.clock import SystemClock
from watcher.config import Config
from watcher.core.model import Severity, Subject
from watcher.errors import SinkError
from watcher.ports import Clock, Sink


class TestResult(Struct, frozen=True):
    """How one sink took a test message; `latency` in seconds."""

    __test__ = False  # not a test case, whatever pytest makes of its name

    sink: str
    ok: bool
    latency: float
    error: str = ""


async def test_notify(config: Config, name: str | None = None) -> list[TestResult]:
    """Send one clearly marked test to each sink, or to the one of that name."""
    clock = SystemClock()
    chosen = [settings for settings in config.sinks if name in (None, settings.name)]
    return [await _test(make_sink(settings, clock), clock) for settings in chosen]


async def _test(sink: Sink, clock: Clock) -> TestResult:
    name, began, error = sink.traits.name, clock.now(), ""
    what = f"A test of the sink {name}, asked for on the command line. Nothing is wrong."
    try:
        subject, at = Subject("", name=name), clock.wall()
        event = opening(subject, "test", Severity.WARNING, what, at, at)
        await sink.send(notice(sink, event, at))
    except SinkError as refused:
        error = str(refused)
    return TestResult(name, not error, (clock.now() - began).total_seconds(), error)
