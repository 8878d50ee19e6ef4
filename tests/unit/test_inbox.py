"""The queue between readers and consumer: bounded, in order, and nothing that matters is lost."""

import asyncio

import pytest

from watcher.cluster.inbox import Inbox
from watcher.core.model import DeploymentSnapshot
from watcher.errors import Unreachable
from watcher.ports import Applied, Broken, Deleted, Listed, Opened, WatchEvent
from watcher.view import is_older


def snapshot(name: str, version: int = 1, namespace: str = "shop") -> DeploymentSnapshot:
    return DeploymentSnapshot("prod", namespace, name, f"uid-{name}", str(version))


def applied(name: str, version: int = 1, scope: str = "") -> Applied:
    return Applied(scope, snapshot(name, version))


def deleted(name: str, version: int = 1, scope: str = "") -> Deleted:
    return Deleted(scope, snapshot(name, version))


LOST = Broken("", Unreachable("gone"))


@pytest.mark.parametrize(
    ("put", "want"),
    [
        pytest.param(
            [applied("a", 1), applied("b"), applied("a", 2)],
            [applied("b"), applied("a", 2)],
            id="the latest of each, at its place",
        ),
        pytest.param([applied("a", 2), applied("a", 1)], [applied("a", 2)], id="no replay wins"),
        pytest.param(
            [applied("a", 1), deleted("a", 2)], [deleted("a", 2)], id="deleted supersedes"
        ),
        pytest.param(
            [deleted("a", 2), applied("a", 3)],
            [deleted("a", 2), applied("a", 3)],
            id="a deletion is kept although the object is back",
        ),
        pytest.param(
            [applied("a"), deleted("b"), Listed("", ()), applied("c")],
            [Listed("", ()), applied("c")],
            id="a list supersedes what came before",
        ),
        pytest.param(
            [applied("a", scope="x"), Listed("y", ()), Listed("x", ())],
            [Listed("y", ()), Listed("x", ())],
            id="a list supersedes its own scope",
        ),
        pytest.param(
            [applied("a", scope="x"), Listed("y", ())],
            [applied("a", scope="x"), Listed("y", ())],
            id="a list leaves other scopes",
        ),
        pytest.param(
            [LOST, Opened(""), applied("a"), LOST],
            [applied("a"), LOST],
            id="the stream's last state",
        ),
        pytest.param(
            [Opened("x"), Broken("y", None)], [Opened("x"), Broken("y", None)], id="of each scope"
        ),
        pytest.param([LOST, Listed("", ())], [LOST, Listed("", ())], id="a list hides no break"),
    ],
)
async def test_keeps_what_matters(put: list[WatchEvent], want: list[WatchEvent]) -> None:
    """W24: whether put one by one or at once, the consumer takes the same."""
    together, single = Inbox(), Inbox()
    together.put(put)
    for event in put:
        single.put([event])
    assert list(await together.take()) == list(await single.take()) == want


async def test_waits_for_news():
    """What was taken is gone, and the next take waits for more."""
    inbox = Inbox()
    inbox.put([applied("a")])
    await inbox.take()
    waiting = asyncio.create_task(inbox.take())
    inbox.put([applied("b")])
    assert await waiting == (applied("b"),)


async def test_readers_wait_when_nobody_takes():
    """W24: what piles up is bounded even where ever new objects come and go."""
    inbox = Inbox(limit=2)
    inbox.put([deleted("a"), deleted("b")])
    reader = asyncio.create_task(inbox.room())
    done, _ = await asyncio.wait([reader], timeout=0.01)
    assert not done
    await inbox.take()
    await reader


@pytest.mark.parametrize(
    ("version", "than", "want"),
    [
        ("9", "10", True),
        ("10", "9", False),
        ("10", "10", False),
        ("", "10", False),
        ("10", "", False),
        ("abc", "abd", False),
        ("1", "9" * 5000, True),
    ],
)
def test_knows_older_versions_only_where_they_are_numbers(version, than, want):
    """Row 33: resource versions are compared as integers, or not at all."""
    assert is_older(version, than) is want
