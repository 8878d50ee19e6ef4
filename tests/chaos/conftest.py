"""What is around the processes that are treated badly; leaves out what the kernel does not let us do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.outside import Outside, outside
from tests.parts import leave_out, without
from tests.postgres import rival as rival
from tests.postgres import url as url
from tests.postgres import writer as writer
from watcher.testing.objects import deployment

READ_ONLY = Path(__file__).with_name("test_read_only.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if without("seccomp"):
        why = "WITHOUT=seccomp: {count} tests of a volume that turns read-only are left out"
        leave_out(config, items, lambda path: path == READ_ONLY, why)


@pytest.fixture
def world() -> Iterator[Outside]:
    """A cluster with one Deployment, and a receiver of webhooks."""
    with outside() as made:
        made.do(lambda: made.server.apply(deployment("shop", "web")))
        yield made
