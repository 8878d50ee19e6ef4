"""Leaves out by name what takes a kernel that lets tests answer for it."""

from pathlib import Path

import pytest

from tests.parts import leave_out, without

READ_ONLY = Path(__file__).with_name("test_read_only.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if without("seccomp"):
        why = "WITHOUT=seccomp: {count} tests of a volume that turns read-only are left out"
        leave_out(config, items, lambda path: path == READ_ONLY, why)
