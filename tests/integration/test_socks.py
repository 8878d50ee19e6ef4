"""Through a SOCKS5 proxy to clusters and sinks: it knows the names, and TLS is verified as ever."""

import base64
import io
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.fault_server import FaultServer, answers
from tests.integration.conftest import FAST, JumpingClock, opened, watching
from tests.socks_server import SocksServer
from watcher.clock import SystemClock
from watcher.cluster.api import KubeCluster
from watcher.cluster.auth import Auth, find_auth
from watcher.errors import ConfigError, Outcome, SinkError, Unreachable
from watcher.sinks.http import Sender
from watcher.testing.apiserver import FakeApiServer
from watcher.testing.objects import deployment

HOST = "api.behind.internal"
"""A name that nobody but the proxy could look up."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def serving(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
async def secured(authority: trustme.CA, clock: JumpingClock) -> AsyncIterator[FakeApiServer]:
    server = FakeApiServer(clock=clock, tls=serving(authority, HOST))
    server.apply(deployment("shop", "a"))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def socks(secured: FakeApiServer) -> AsyncIterator[SocksServer]:
    async with SocksServer(secured.port) as proxy:
        yield proxy


class Behind:
    """A cluster whose kubeconfig has a proxy-url, and more about it as it is called with."""

    def __init__(self, folder: Path, authority: trustme.CA, socks: SocksServer) -> None:
        self.path = folder / "kubeconfig"
        self._socks, self._ca = socks, base64.b64encode(authority.cert_pem.bytes()).decode()

    def write(self, login: str = "", scheme: str = "socks5", **more: Any) -> None:  # noqa: ANN401
        about = {
            "server": f"https://{HOST}:6443",
            "certificate-authority-data": self._ca,
            "proxy-url": f"{scheme}://{login}127.0.0.1:{self._socks.port}",
            **more,
        }
        config = FakeApiServer().kubeconfig()
        config["clusters"][0]["cluster"] = about
        self.path.write_text(json.dumps(config))

    def auth(self, clock: JumpingClock) -> Auth:
        return find_auth(clock, self.path, environ={"NO_PROXY": "*"})

    async def fails(self, clock: JumpingClock, connect: float = 10) -> str:
        """Why a probe gets no answer."""
        cluster = KubeCluster("prod", self.auth(clock), clock, timings=type(FAST)(connect=connect))
        error = (await cluster.probe()).error
        await cluster.close()
        assert isinstance(error, Unreachable)
        return str(error)


@pytest.fixture
def behind(tmp_path: Path, authority: trustme.CA, socks: SocksServer) -> Behind:
    return Behind(tmp_path, authority, socks)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_a_cluster_is_watched_through_it(
    behind: Behind, secured: FakeApiServer, socks: SocksServer, clock: JumpingClock, scheme: str
) -> None:
    """List, watch and heartbeat; the proxy is given the name, and the certificate is of it."""
    behind.write(scheme=scheme)
    async with watching(secured, clock, auth=behind.auth(clock)) as watched:
        await opened(watched)
        secured.set_ready("shop", "a", 1)
        assert (await watched.applied("a")).ready == 1
        assert (await watched.cluster.probe()).error is None
    assert set(socks.asked) == {(HOST, 6443)}
    assert {seen.headers["Host"] for seen in secured.requests} == {f"{HOST}:6443"}


async def test_who_asks_is_said(
    behind: Behind, socks: SocksServer, clock: JumpingClock, log: io.StringIO
) -> None:
    """User and password, where a proxy asks for them; no log line has them."""
    socks.login = "me:s3cret/word"
    behind.write(login="me:s3cret%2Fword@")
    async with watching(FakeApiServer(), clock, auth=behind.auth(clock)) as watched:
        await opened(watched)
    assert f'"via": "socks5://127.0.0.1:{socks.port}"' in log.getvalue()


@pytest.mark.parametrize(
    ("login", "wanted", "reply", "says"),
    [
        pytest.param("", "", 5, "the proxy: connection refused by destination host", id="refused"),
        pytest.param("", "", 4, "the proxy: host unreachable", id="no such host"),
        pytest.param("", "", 2, "the proxy: connection not allowed by ruleset", id="not allowed"),
        pytest.param("", "", 99, "the proxy: ", id="no reply that there is"),
        pytest.param("", "me:s3cret", 0, "no acceptable authentication methods", id="no login"),
        pytest.param("me:s3cret-not@", "me:s3cret", 0, "authentication failure", id="wrong login"),
    ],
)
async def test_what_the_proxy_refuses_is_said(
    behind: Behind, socks: SocksServer, clock: JumpingClock,
    login: str, wanted: str, reply: int, says: str,
) -> None:  # fmt: skip
    """In its own words, and without a password."""
    socks.login, socks.reply = wanted, reply
    behind.write(login=login)
    error = await behind.fails(clock)
    assert says in error
    assert "s3cret" not in error


async def test_a_proxy_that_hangs_or_is_away_is_said(
    behind: Behind, socks: SocksServer, clock: JumpingClock
) -> None:
    """It has as long as any connection has."""
    behind.write()
    socks.mute = True
    assert "no connection in time" in await behind.fails(clock, connect=0.05)
    behind.write(**{"proxy-url": "socks5://127.0.0.1:1"})
    assert "the proxy: connection refused" in await behind.fails(clock)
    behind.write(**{"proxy-url": "socks5://no-such-name.invalid:1"})
    assert "the proxy: " in await behind.fails(clock)


async def test_the_server_behind_it_is_verified(behind: Behind, clock: JumpingClock) -> None:
    """By the name in the URL, or by tls-server-name; a proxy is in a place to pretend."""
    behind.write(server="https://elsewhere.internal:6443")
    assert "Hostname mismatch" in await behind.fails(clock)
    behind.write(**{"tls-server-name": "elsewhere.internal"})
    assert "Hostname mismatch" in await behind.fails(clock)
    other = base64.b64encode(trustme.CA().cert_pem.bytes()).decode()
    behind.write(**{"certificate-authority-data": other})
    assert "certificate verify failed" in await behind.fails(clock)
    behind.write(**{"server": "https://10.1.2.3", "tls-server-name": HOST})
    async with watching(FakeApiServer(), clock, auth=behind.auth(clock)) as watched:
        await opened(watched)


async def test_another_way_is_taken_up(
    behind: Behind, secured: FakeApiServer, socks: SocksServer, clock: JumpingClock
) -> None:
    """A rewritten kubeconfig counts for the next connection, to a proxy or away from it."""
    direct: dict[str, Any] = {"server": secured.url, "tls-server-name": HOST, "proxy-url": None}
    behind.write(**direct)
    cluster = KubeCluster("prod", behind.auth(clock), clock, timings=FAST)
    assert (await cluster.probe()).error is None
    assert socks.asked == []
    behind.write()
    assert (await cluster.probe()).error is None
    assert socks.asked == [(HOST, 6443)]
    behind.write(**direct)
    assert (await cluster.probe()).error is None
    await cluster.close()
    assert len(socks.asked) == 1


async def test_without_tls_a_server_is_asked_as_any(tmp_path: Path, clock: JumpingClock) -> None:
    """Not as one asks a proxy that speaks HTTP."""
    server = FakeApiServer(clock=clock)
    await server.start()
    async with SocksServer(server.port) as socks:
        config = server.kubeconfig()
        config["clusters"][0]["cluster"] = {
            "server": "http://api.internal/prefix",
            "proxy-url": f"socks5://127.0.0.1:{socks.port}",
        }
        (tmp_path / "config").write_text(json.dumps(config))
        auth = find_auth(clock, tmp_path / "config")
        cluster = KubeCluster("prod", auth, clock, timings=FAST)
        assert "404" in str((await cluster.probe()).error)
        await cluster.close()
    await server.stop()
    assert socks.asked == [("api.internal", 80)]


@pytest.mark.parametrize(
    "proxy", ["socks4://p:1", "socks5://", "p", "socks5://ü:x@p:1", f"socks5://{'u' * 256}:x@p:1"]
)
def test_a_proxy_that_cannot_be_asked_is_refused(
    behind: Behind, clock: JumpingClock, proxy: str
) -> None:
    """At the start, and in words that quote nothing of it."""
    behind.write(**{"proxy-url": proxy})
    with pytest.raises(ConfigError, match=r"proxy must be|must be ASCII") as error:
        behind.auth(clock)
    assert "uuu" not in str(error.value)


# Sinks


@pytest.fixture
async def receiver(authority: trustme.CA) -> AsyncIterator[FaultServer]:
    async with FaultServer(answers(200), tls=serving(authority, "hooks.example")) as server:
        yield server


@pytest.fixture
def sender(authority: trustme.CA, tmp_path: Path) -> Sender:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return Sender(SystemClock(), ca_file=tmp_path / "ca.pem")


async def failure(sender: Sender, url: str) -> tuple[str, Outcome, bool]:
    with pytest.raises(SinkError) as error:
        await sender.post(url, b"{}", {})
    assert "s3cret" not in str(error.value)
    return error.value.reason, error.value.outcome, error.value.ambiguous


async def test_a_sink_is_told_through_it(
    receiver: FaultServer, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same variables and the same way as for clusters."""
    async with SocksServer(receiver.port, login="me:s3cret") as socks:
        monkeypatch.setenv("HTTPS_PROXY", f"socks5://me:s3cret@127.0.0.1:{socks.port}")
        answer = await sender.post("https://hooks.example/in", b"{}", {})
        assert (answer.status, receiver.requests[0].body) == (200, b"{}")
        assert socks.asked == [("hooks.example", 443)]
        untrusted = ("tls_untrusted", Outcome.PARK, False)
        assert await failure(sender, "https://other.example/in") == untrusted
        socks.reply = 5
        refused = ("proxy_failed", Outcome.UNREACHED, False)
        assert await failure(sender, "https://hooks.example/s3cret") == refused


@pytest.mark.parametrize("proxy", ["socks4://s3cret:s3cret@127.0.0.1:1", "ftp://s3cret:x@h:1"])
async def test_a_sink_behind_a_proxy_that_cannot_be_asked_is_parked(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """It takes a human, and no connection is tried."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert await failure(sender, "https://hooks.example/") == ("proxy_failed", Outcome.PARK, False)
