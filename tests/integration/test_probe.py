"""The heartbeat: alive and allowed, or which of the two not (watch.md W26, W27, W36)."""

import asyncio

import msgspec
import pytest

from tests.integration.conftest import FAST, access_to, asked, opened, watching
from watcher.cluster.api import KubeCluster
from watcher.cluster.auth import Access, Auth, Endpoint, fixed
from watcher.errors import Forbidden, NotFound, Protocol, Throttled, Unauthorized, Unreachable
from watcher.ports import Broken, Listed
from watcher.testing.apiserver import Fault
from watcher.testing.clock import ManualClock


@pytest.fixture
async def cluster(server, clock):
    """One that only probes."""
    made = KubeCluster("prod", access_to(server), clock, timings=FAST)
    yield made
    await made.close()


async def test_a_probe_reads_one_deployment(server, cluster):
    """W36: the heartbeat is a list of one, which proves our rights, and brings the version."""
    probe = await cluster.probe()
    assert (probe.error, probe.version) == (None, "v1.36.3")
    assert [(seen.verb, seen.query) for seen in server.requests] == [
        ("list", {"limit": "1"}),
        ("version", {}),
    ]


async def test_the_version_is_asked_for_now_and_then(server, cluster, clock):
    """The version is remembered for ten minutes, and its absence is no failure."""
    await cluster.probe()
    await cluster.probe()
    assert len(asked(server, "version")) == 1
    clock.forward(600)
    server.faults.append(Fault("version", 403))
    probe = await cluster.probe()
    assert (probe.error, probe.version) == (None, "v1.36.3")
    assert len(asked(server, "version")) == 2


async def test_a_namespaced_probe_stays_in_its_namespace(server, clock):
    """With namespaces configured, rights are proved where we have them."""
    cluster = KubeCluster("prod", access_to(server), clock, scopes=["shop", "pay"], timings=FAST)
    await cluster.probe()
    await cluster.close()
    assert server.requests[0].path == "/apis/apps/v1/namespaces/shop/deployments"


@pytest.mark.parametrize(
    ("faults", "kind", "says"),
    [
        pytest.param([Fault(status=429)], Throttled, "429", id="throttled is alive"),
        pytest.param(
            [Fault(status=403)], Forbidden, "cannot list deployments.apps at cluster", id="403"
        ),
        pytest.param([Fault(status=401)] * 2, Unauthorized, "401", id="401 twice"),
        pytest.param([Fault(status=500)], Unreachable, "500", id="500"),
        pytest.param([Fault(status=503, body=b"<html>")], Unreachable, "503", id="balancer"),
        pytest.param([Fault(status=404)], NotFound, "404", id="not an API server"),
        pytest.param(
            [Fault(status=200, body=b"<html>")],
            Protocol,
            "cannot list deployments.apps at cluster scope: the list is not readable",
            id="portal",
        ),
        pytest.param([Fault(cut=5)], Unreachable, "broke off", id="connection lost"),
        pytest.param([Fault(mute=True)], Unreachable, "no answer in 0.05 s", id="no answer"),
    ],
)
async def test_a_probe_says_what_is_wrong(server, clock, faults, kind, says):
    """W36: a probe never raises; its error says whether the server is down or we are not let in."""
    timings = msgspec.structs.replace(FAST, probe=0.05)
    cluster = KubeCluster("prod", access_to(server), clock, timings=timings)
    server.faults += faults
    probe = await cluster.probe()
    await cluster.close()
    assert type(probe.error) is kind
    assert says in str(probe.error)


async def test_a_server_that_is_gone_is_unreachable(server, cluster):
    """Refused connections are an answer too, and the next probe after the return is fine."""
    await server.stop()
    error = (await cluster.probe()).error
    assert isinstance(error, Unreachable)
    assert str(error) == "cannot list deployments.apps at cluster scope: connection refused"
    await server.start()
    assert (await cluster.probe()).error is None


class Rotated:
    """Credentials of which every reading gives the next ones."""

    def __init__(self, url: str, *tokens: str) -> None:
        self._tokens = iter(tokens)
        self._url = url

    def __call__(self, context: str | None) -> Access:
        return Access(Endpoint(self._url), fixed(f"Bearer {next(self._tokens)}"))


async def test_a_rotated_token_is_taken_up_at_once(server, watch):
    """W26, F27: a 401 reads the credentials anew and asks again at once; nobody notices."""
    server.token = "new"
    watched = await opened(await watch(auth=Auth(Rotated(server.url, "old", "new", "newer"))))
    assert watched.all(Broken) == []
    assert [seen.headers["Authorization"] for seen in asked(server, "list")] == [
        "Bearer old",
        "Bearer new",
    ]
    assert (await watched.cluster.probe()).error is None


async def test_those_who_are_refused_together_renew_once(server):
    """W28: a token that another request has renewed meanwhile is not renewed again."""
    auth = Auth(Rotated(server.url, "old", "new"))
    refused = (await auth.current())[1]
    await asyncio.gather(*(auth.renew(refused) for _ in range(3)))
    assert (await auth.current())[1] == {"Authorization": "Bearer new"}


async def test_a_revoked_token_backs_off(server, watch, clock):
    """W26, F29: 401 for good is tried twice at once, then with backoff, and recovers by itself."""
    server.token = "other"
    watched = await watch(auth=access_to(server, "Bearer mine"))
    broken = await watched.until(Broken)
    assert isinstance(broken.error, Unauthorized)
    assert "401" in str(broken.error)
    assert "mine" not in str(broken.error)
    server.token = "mine"
    await watched.until(Listed)


async def test_a_refusal_names_verb_resource_and_scope(server, watch):
    """W27, F30: 403 says what is not allowed and where, and is tried again for ever."""
    server.forbidden.add(("watch", "shop"))
    watched = await watch(scopes=["shop"])
    for _ in range(8):
        broken = await watched.until(Broken)
        assert isinstance(broken.error, Forbidden)
        assert "cannot watch deployments.apps in namespace shop: 403" in str(broken.error)
    server.forbidden.clear()
    await opened(watched)


async def test_a_probe_that_succeeds_ends_the_backoff_of_the_watch(server, clock):
    """A server that answers again is listed at once; one that stays down is asked no more often."""
    server.faults += [Fault("list", 500), Fault("list", 500)]  # the watch's, then the first probe's
    standing = ManualClock(clock.now())
    async with watching(server, standing) as watched:
        await watched.until(Broken)
        assert isinstance((await watched.cluster.probe()).error, Unreachable)
        await standing.settle()
        assert len(asked(server, "list")) == 2
        assert (await watched.cluster.probe()).error is None
        await watched.until(Listed)


async def test_a_watch_that_fails_alone_is_not_hurried(server, clock):
    """While the server answers, only the first failure of a watch is tried again at once."""
    server.faults += [Fault("list", 500)] + [Fault("watch", 500)] * 3
    standing = ManualClock(clock.now())
    async with watching(server, standing, uniform=lambda low, high: high) as watched:
        await watched.until(Broken)
        for _ in range(3):
            assert (await watched.cluster.probe()).error is None
            await standing.settle()
        await watched.until(Broken)
        assert len(asked(server, "watch")) == 1
        await standing.advance(1.7)
        await watched.until(Broken)
        assert len(asked(server, "watch")) == 2
