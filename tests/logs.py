"""A log of one test, with logging as it was put back afterwards."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def captured() -> Iterator[io.StringIO]:
    """Where `audit.configure` may write until the block ends."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        yield io.StringIO()
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        for handler in before[0]:
            root.addHandler(handler)
        root.setLevel(before[1])
        logging.getLogger("watcher").setLevel(logging.NOTSET)
        structlog.reset_defaults()
