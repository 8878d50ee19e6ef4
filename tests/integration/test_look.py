"""Asking for Deployments beside the watch: how often, for how long, and what counts as an answer."""

import pytest

from tests.integration.conftest import asked
from watcher.core.model import Subject
from watcher.testing.apiserver import Fault
from watcher.testing.objects import deployment


def subject(name: str, uid: str = "") -> Subject:
    return Subject("prod", "shop", name, uid or f"uid-of-{name}")


@pytest.fixture
def names(server):
    """What is there, and one that is not."""
    for name in "abc":
        obj = deployment("shop", name, labels={"tier": name})
        obj["metadata"]["uid"] = f"uid-of-{name}"
        server.apply(obj)
    return [subject(name) for name in ("a", "b", "gone")]


async def test_a_few_are_asked_for_by_name(server, watch, names):
    """One request each; what is not there is told apart from what was not answered."""
    watched = await watch(label_selector="tier=a")
    found = await watched.cluster.look(names)
    assert {uid: s and s.uid for uid, s in found.items()} == {
        "uid-of-a": "uid-of-a", "uid-of-b": "uid-of-b", "uid-of-gone": None,
    }  # fmt: skip
    assert len(asked(server, "get")) == 3


async def test_what_was_made_anew_has_another_uid(server, watch, names):
    """Whoever asks for the old one sees that this is not it."""
    watched = await watch()
    found = await watched.cluster.look([subject("a", "the-old-one")])
    assert found["the-old-one"].uid == "uid-of-a"


async def test_many_are_one_list(server, watch, names):
    """Above twenty at once everything is listed, in pages, whatever the watch selects."""
    watched = await watch(label_selector="tier=a", timings={"page": 2})
    await server.until(lambda: server.watches == 1)
    server.requests.clear()
    more = [subject(f"gone-{n}") for n in range(18)]
    found = await watched.cluster.look([*names, *more])
    assert len(found) == 21
    assert [uid for uid, s in found.items() if s is not None] == ["uid-of-a", "uid-of-b"]
    assert [seen.verb for seen in server.requests] == ["list", "page"]
    assert "labelSelector" not in server.requests[0].query


@pytest.mark.parametrize(
    "fault",
    [
        Fault("get", mute=True),
        Fault("get", status=500),
        Fault("get", status=200, body=b"{}"),
        Fault("get", status=200, body=b"<html>Welcome</html>"),
    ],
    ids=["silence", "500", "an empty object", "a login page"],
)
async def test_no_answer_is_none(server, watch, clock, names, fault):
    """Who does not answer in time, or something else, has said nothing; others are believed.

    After that nobody waits for such a server for a while.
    """
    watched = await watch(timings={"look": 0.1})
    server.faults.append(fault)
    found = await watched.cluster.look(names[:2])
    assert len(found) == 1
    assert await watched.cluster.look(names) == {}
    clock.forward(15)
    assert len(await watched.cluster.look(names)) == 3
