"""What a broken API server is asked in each class of fault, and when a half-open connection is noticed.

The real program with its default settings, in the virtual time of the tests.
"""

import io
import statistics
import tempfile
from pathlib import Path

from tests.faults.steady import CLASSES, Break, half_open, per_minute
from tests.faults.warp import warped
from watcher import audit

MINUTES = 30


def main() -> None:
    """Print requests a minute, on average and in the worst one; the goal is at most 20."""
    audit.configure(io.StringIO(), "critical", json=True)
    width = max(map(len, CLASSES))
    for name, fault in CLASSES.items():
        counts = _measured(fault)
        print(f"{name:{width}} : {statistics.mean(counts):5.1f} a minute, at most {max(counts):2}")
    print(f"{'half-open connection':{width}} : noticed after {_half_open():.1f} s (goal 75)")


def _measured(fault: Break) -> list[int]:
    with tempfile.TemporaryDirectory() as folder:
        return warped(per_minute)(Path(folder), fault, MINUTES)


def _half_open() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return warped(half_open)(Path(folder))
