"""How hard hypothesis tries: 50 examples at a desk, 500 always the same ones in CI; and what tests of
several kinds share."""

import io
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.logs import captured
from tests.postgres import older_postgres as older_postgres
from tests.postgres import postgres as postgres
from watcher import audit
from watcher.config import secrets

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=500, deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def _own_secrets() -> Iterator[None]:
    """What is a secret in one test may be a word of the next one's messages."""
    yield
    secrets.forget()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged while the test runs, a line of JSON each; standard output depends on the tests before."""
    with captured() as lines:
        audit.configure(lines, "info", json=True)
        yield lines
