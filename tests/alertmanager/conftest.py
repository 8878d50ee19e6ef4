"""Builds Alertmanager before the first test, unless the caller leaves its tests out by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alertmanager.real import AlertmanagerUnavailable, locate
from tests.parts import leave_out, say, without

HERE = Path(__file__).parent
WITHOUT = "alertmanager"
UNAVAILABLE = pytest.StashKey[AlertmanagerUnavailable]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if without(WITHOUT):
        why = f"WITHOUT={WITHOUT}: {{count}} tests against Alertmanager are left out"
        leave_out(config, items, lambda path: path.is_relative_to(HERE), why)


def pytest_collection_finish(session: pytest.Session) -> None:
    """A test's time limit knows nothing of compilers."""
    ours = any(item.path.is_relative_to(HERE) for item in session.items)
    if ours and not session.config.option.collectonly:
        try:
            locate(lambda line: say(session.config, line))
        except AlertmanagerUnavailable as error:  # the failure of every test that needs it
            session.config.stash[UNAVAILABLE] = error


@pytest.fixture(scope="session")
def binary(pytestconfig: pytest.Config) -> Iterator[Path]:
    if unavailable := pytestconfig.stash.get(UNAVAILABLE, None):
        pytest.fail(str(unavailable), pytrace=False)
    yield locate(print)
