"""Real parts that a run may go without: `WITHOUT=controlplane` leaves their tests out, and says so."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest


def without(part: str) -> bool:
    """Whether the caller does without it."""
    return part in re.split(r"[\s,]+", os.environ.get("WITHOUT", ""))


def leave_out(
    config: pytest.Config, items: list[pytest.Item], wanted: Callable[[Path], bool], why: str
) -> None:
    """Take the tests in the wanted files out of the run, with one line that says how many."""
    left_out = [item for item in items if wanted(item.path)]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        say(config, why.format(count=len(left_out)))


def say(config: pytest.Config, line: str) -> None:
    """A line of the run's own output, whatever it captures."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(line)
