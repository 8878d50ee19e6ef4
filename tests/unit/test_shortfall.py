"""Since when too little serves, where what happened in between was not seen."""

from datetime import timedelta

import pytest

from tests.deployments import ZERO, web
from watcher.cluster.decode import snapshot_from
from watcher.core import shortfall
from watcher.core.model import Shortfall

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("turned", "since"),
    [
        pytest.param(100, 100.4, id="the fall that is known, which the API dates by whole seconds"),
        pytest.param(150, 100.4, id="well again for less than a minute at most"),
        pytest.param(161, 161, id="perhaps well for a minute"),
    ],
)
def test_after_a_kill(turned: float, since: float) -> None:
    """A restart may not know that it was seen short since, but it was when that was stored."""
    known = Shortfall(ZERO + timedelta(seconds=100.4))
    now, in_sight_before = ZERO + timedelta(seconds=200), ZERO + timedelta(seconds=10)
    s = snapshot_from(web(0, turned=turned), "prod")
    found = shortfall.follow(known, s, now, MINUTE, served=True, seen_at=in_sight_before)
    assert found
    assert (found.since - ZERO).total_seconds() == since
