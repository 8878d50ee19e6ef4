"""PgBouncer between the watcher and its PostgreSQL."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.outside import Outside, outside
from tests.parts import leave_out, say, without
from tests.poolers import debian
from tests.poolers.pgbouncer import PgBouncer
from tests.postgres import Postgres
from watcher.testing.objects import deployment

HERE = Path(__file__).parent
UNAVAILABLE = pytest.StashKey[debian.PoolerUnavailable]()


class Pooled(Protocol):
    """Puts one before the server."""

    def __call__(self, mode: str = "transaction", size: int = 2) -> PgBouncer: ...


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if any(item.path.is_relative_to(HERE) for item in items):
        reason = "WITHOUT=pgbouncer" if without("pgbouncer") else debian.why_not()
        if reason:
            why = f"{reason}: {{count}} tests of PgBouncer are left out"
            leave_out(config, items, lambda path: path.is_relative_to(HERE), why)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch before the first test, whose time limit knows nothing of downloads."""
    asked = any(item.path.is_relative_to(HERE) for item in session.items)
    if asked and not session.config.option.collectonly:
        try:
            debian.prepare(lambda line: say(session.config, line))
        except debian.PoolerUnavailable as error:
            session.config.stash[UNAVAILABLE] = error  # the failure of every test that needs it


@pytest.fixture(params=list(debian.RELEASES))
def pooled(
    request: pytest.FixtureRequest, pytestconfig: pytest.Config, postgres: Postgres
) -> Iterator[Pooled]:
    if unavailable := pytestconfig.stash.get(UNAVAILABLE, None):
        pytest.fail(str(unavailable), pytrace=False)
    with ExitStack() as stack:

        def make(mode: str = "transaction", size: int = 2) -> PgBouncer:
            return stack.enter_context(PgBouncer(request.param, postgres.socket, mode, size))

        yield make


@pytest.fixture
def world() -> Iterator[Outside]:
    """A cluster with one Deployment, and a receiver of webhooks."""
    with outside() as made:
        made.do(lambda: made.server.apply(deployment("shop", "web")))
        yield made
