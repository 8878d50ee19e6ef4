"""Gets Go and Node before the first test, unless the caller leaves theirs out by name."""

from pathlib import Path

import pytest

from tests.controlplane.receivers import Receiver, Request
from tests.events import event, notification
from tests.parts import leave_out, say, without
from tests.snippets import runtimes
from tests.snippets.runtimes import RuntimeUnavailable
from watcher.clock import SystemClock
from watcher.core.events import Edge
from watcher.sinks.http import Sender
from watcher.sinks.webhook import Webhook

HERE = Path(__file__).parent
RUNTIMES = {"go": runtimes.go, "node": runtimes.node}
FOUND = pytest.StashKey[dict[str, str | RuntimeUnavailable]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for part in RUNTIMES:
        if without(part):
            why = (
                f"WITHOUT={part}: {{count}} tests of what docs/webhooks.md has for it are left out"
            )
            leave_out(config, items, lambda path, part=part: path == _file(part), why)  # type: ignore[misc]


def pytest_collection_finish(session: pytest.Session) -> None:
    """A test's time limit knows nothing of downloads."""
    found = session.config.stash.setdefault(FOUND, {})
    files = {item.path for item in session.items}
    for part, locate in RUNTIMES.items():
        if _file(part) in files and not session.config.option.collectonly:
            try:
                found[part] = locate(lambda line: say(session.config, line))
            except RuntimeUnavailable as error:  # the failure of every test that needs it
                found[part] = error


@pytest.fixture
def go(pytestconfig: pytest.Config) -> str:
    return _command(pytestconfig, "go")


@pytest.fixture
def node(pytestconfig: pytest.Config) -> str:
    return _command(pytestconfig, "node")


@pytest.fixture(params=[True, False], ids=["whsec", "without whsec"])
async def sent(request: pytest.FixtureRequest) -> tuple[str, Request]:
    """The secret, and a request of the watcher's own, signed with it and with its successor."""
    async with Receiver() as receiver:
        secret = receiver.secret if request.param else receiver.secret.removeprefix("whsec_")
        keys = [lambda: f"whsec_{'bmV3' * 8}", lambda: secret]
        sender = Sender(SystemClock(), allow_http=True)
        sink = Webhook("hook", sender, url=lambda: receiver.url, secrets=keys)
        await sink.send(notification(event(Edge.DEGRADED, message="Größe: 0 of 3 — €")))
        [made] = receiver.requests
        return secret, made


def _file(part: str) -> Path:
    return HERE / f"test_{part}.py"


def _command(config: pytest.Config, part: str) -> str:
    found = config.stash[FOUND][part]
    if isinstance(found, RuntimeUnavailable):
        pytest.fail(str(found), pytrace=False)
    return found
