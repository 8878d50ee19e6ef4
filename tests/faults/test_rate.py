"""However it fails, a broken API server is asked at most 20 times a minute."""

import pytest

from tests.faults.steady import CLASSES, half_open, per_minute
from tests.faults.warp import warped


@pytest.mark.parametrize("fault", CLASSES.values(), ids=CLASSES)
@warped
async def test_nothing_is_hammered(tmp_path, fault):
    """In any minute of a fault that stays; F2, F9, F16, F17, F29, F30 and F47 among them."""
    counts = await per_minute(tmp_path, fault, minutes=10)
    assert max(counts) <= 20, counts
    assert min(counts) > 0


@warped
async def test_a_half_open_connection_is_noticed(tmp_path):
    """F3: with the default settings within 75 s, also before the first bookmark."""
    assert await half_open(tmp_path) <= 75
