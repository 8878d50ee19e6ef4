"""Asking for Deployments beside the watch: how often, for how long, and what counts as an answer."""

import pytest

from tests.integration.conftest import asked, opened
from watcher.core.events import Resolution
from watcher.core.model import Subject
from watcher.ports import Looked
from watcher.testing.apiserver import Fault
from watcher.testing.objects import deployment


def answers(found: Looked) -> dict[str, str]:
    """The uid of what is there, or how it ended."""
    return {uid: s if isinstance(s, Resolution) else s.uid for uid, s in found.items()}


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
    assert answers(found) == {
        "uid-of-a": "uid-of-a", "uid-of-b": "uid-of-b", "uid-of-gone": "deleted",
    }  # fmt: skip
    assert len(asked(server, "get")) == 3


async def test_what_was_made_anew_has_another_uid(server, watch, names):
    """Whoever asks for the old one sees that this is not it."""
    watched = await watch()
    found = await watched.cluster.look([subject("a", "the-old-one")])
    assert found["the-old-one"].uid == "uid-of-a"


@pytest.mark.parametrize(
    ("selector", "others", "verbs", "unlisted"),
    [
        pytest.param(
            "", 18, ["list", "page"], "deleted", id="without a selector the list says all"
        ),
        pytest.param("tier=a", 18, ["list"] + ["get"] * 20, "deleted", id="a few are not selected"),
        pytest.param("tier=a", 19, ["list"], "left_scope", id="many are not selected"),
    ],
)
async def test_many_are_one_list(server, watch, names, selector, others, verbs, unlisted):
    """Above twenty at once what is selected is listed, in pages; a few that it lacks are asked for."""
    watched = await opened(await watch(label_selector=selector, timings={"page": 2}))
    server.requests.clear()
    more = [subject(f"gone-{n}") for n in range(others)]
    found = answers(await watched.cluster.look([*names, *more]))
    assert [seen.verb for seen in server.requests] == verbs
    assert {seen.query.get("labelSelector", "") for seen in asked(server, "list")} == {selector}
    there = {"uid-of-a", "uid-of-b"} if unlisted == "deleted" else {"uid-of-a"}
    assert {uid: answer for uid, answer in found.items() if answer != unlisted} == {
        uid: uid for uid in there
    }
    assert len(found) == 3 + others


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("tier=a", {"uid-of-a": "uid-of-a", "uid-of-b": "left_scope", "uid-of-gone": "left_scope"}),
        ("", {"uid-of-a": "uid-of-a", "uid-of-b": "uid-of-b", "uid-of-gone": "deleted"}),
    ],
    ids=["with a selector", "without"],
)
async def test_who_may_not_get_lists_by_name(server, watch, names, selector, expected):
    """What a list by labels does not show may be there or not: that it was deleted is not claimed."""
    server.forbidden.add(("get", "shop"))
    server.insists_on = selector
    watched = await watch(label_selector=selector)
    await server.until(lambda: server.watches == 1)
    server.requests.clear()
    assert answers(await watched.cluster.look(names)) == expected
    fields = {seen.query["fieldSelector"] for seen in asked(server, "list")}
    assert fields == {"metadata.name=a", "metadata.name=b", "metadata.name=gone"}


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
