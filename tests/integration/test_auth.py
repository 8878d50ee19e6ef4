"""Every way to say where the API server is and who we are, and every way to get it wrong."""

import asyncio
import base64
import json
import os
import select
import socket
import ssl
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.controlplane.receivers import eventually
from tests.integration.conftest import FAST
from watcher.adapters import make_cluster
from watcher.cluster.api import KubeCluster
from watcher.cluster.auth import Auth, find_auth
from watcher.cluster.exec_plugin import ExecPlugin
from watcher.config import ClusterSettings, Config
from watcher.errors import ConfigError, Unauthorized, Unreachable
from watcher.network import Resolver
from watcher.testing.apiserver import FakeApiServer, Fault

NOWHERE: dict[str, str] = {}


def write(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def kubeconfig(server, tmp_path):
    """Writes one for the server with this user and these changes to the cluster."""

    def make(user: dict[str, Any] | None, **cluster: Any) -> Path:  # noqa: ANN401
        config = server.kubeconfig()
        config["users"] = [{"name": "fake", "user": user}] if user is not None else []
        config["clusters"][0]["cluster"].update(cluster)
        return write(tmp_path / "config", config)

    return make


async def probe(auth: Auth, clock: Any) -> Exception | None:  # noqa: ANN401
    cluster = KubeCluster("prod", auth, clock, timings=FAST)
    try:
        return (await cluster.probe()).error
    finally:
        await cluster.close()


def found(path: Path, clock: Any, **options: Any) -> Auth:  # noqa: ANN401
    return find_auth(clock, path, environ=options.pop("environ", dict(os.environ)), **options)


async def sent(auth: Auth) -> str:
    return (await auth.current())[1].get("Authorization", "")


# What a kubeconfig can say


@pytest.mark.parametrize(
    ("user", "header"),
    [
        pytest.param({"token": "abc"}, "Bearer abc", id="token"),
        pytest.param({"tokenFile": "token"}, "Bearer from-file", id="relative token file"),
        pytest.param({"tokenFile": "token", "token": "abc"}, "Bearer from-file", id="file first"),
        pytest.param({"username": "u", "password": "p"}, "Basic dTpw", id="password"),
        pytest.param({}, "", id="nothing"),
        pytest.param(None, "", id="no user"),
        pytest.param(
            {"auth-provider": {"name": "oidc", "config": {"id-token": "a.b.c"}}},
            "Bearer a.b.c",
            id="OIDC id-token",
        ),
    ],
)
async def test_reads_credentials(kubeconfig, tmp_path, clock, user, header):
    """Each kind of user gives its header."""
    (tmp_path / "token").write_text("from-file\n")
    assert await sent(found(kubeconfig(user), clock)) == header


async def test_uses_the_context_that_was_asked_for(server, tmp_path, clock):
    """Another context than the current one is another cluster and user."""
    config = server.kubeconfig()
    config["contexts"].append({"name": "two", "context": {"cluster": "fake", "user": "two"}})
    config["users"].append({"name": "two", "user": {"token": "second"}})
    path = write(tmp_path / "config", config)
    assert await sent(find_auth(clock, path, "two")) == "Bearer second"


async def test_merges_several_kubeconfigs(server, tmp_path, clock):
    """KUBECONFIG may name several files; missing ones do not matter, each has its own folder."""
    config = server.kubeconfig()
    users = config.pop("users")
    users[0]["user"] = {"tokenFile": "token"}
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "token").write_text("merged")
    paths = [
        write(tmp_path / "one", config),
        tmp_path / "missing",
        write(tmp_path / "sub" / "two", {"users": users}),
    ]
    auth = find_auth(clock, environ={"KUBECONFIG": os.pathsep.join(map(str, paths))})
    assert await sent(auth) == "Bearer merged"


async def test_the_first_of_several_kubeconfigs_wins(server, tmp_path, clock):
    """As with kubectl: also an empty file, or one without a current context, is read over."""
    first, second = server.kubeconfig(), server.kubeconfig()
    first["users"][0]["user"] = {"token": "first"}
    second["users"][0]["user"] = {"token": "second"}
    second["users"].append({"name": "other", "user": {"token": "other"}})
    second["contexts"].append({"name": "other", "context": {"cluster": "fake", "user": "other"}})
    second["current-context"] = "other"
    (tmp_path / "empty").write_text("")
    (tmp_path / "comment").write_text("# nothing yet\n")
    unset = write(tmp_path / "unset", {"current-context": "", "users": None})
    both = [write(tmp_path / "first", first), write(tmp_path / "second", second)]
    for files, header in ((both, "Bearer first"), (both[::-1], "Bearer other")):
        paths = [tmp_path / "empty", tmp_path / "comment", unset, *files]
        auth = find_auth(clock, environ={"KUBECONFIG": os.pathsep.join(map(str, paths))})
        assert await sent(auth) == header


@pytest.mark.parametrize("users", [[{"name": "fake"}], [{"name": "fake", "user": None}], None])
async def test_a_user_without_credentials_is_one(server, tmp_path, clock, users):
    """As with kubectl: who has no `user` sends none, and the server is asked all the same."""
    auth = found(write(tmp_path / "config", {**server.kubeconfig(), "users": users}), clock)
    assert await sent(auth) == ""
    assert await probe(auth, clock) is None


@pytest.mark.parametrize("current", ["", None])
def test_says_that_no_context_is_current(server, tmp_path, clock, current):
    """What is missing is named, and what there is to choose from."""
    path = write(tmp_path / "config", {**server.kubeconfig(), "current-context": current})
    with pytest.raises(ConfigError, match=r"config: no context is current .*; there are: fake$"):
        find_auth(clock, path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param("a: [", "line 1: ", id="broken YAML"),
        pytest.param("a:\n\tb: 1", "line 2: ", id="a tab"),
        pytest.param("", "no kubeconfig", id="empty"),
        pytest.param("just text", "no kubeconfig", id="text"),
        pytest.param("[1]", "no kubeconfig", id="a list"),
        pytest.param("apiVersion: v1", "current-context", id="nothing in it"),
        pytest.param("{current-context: x, contexts: 5}", "no kubeconfig", id="contexts a number"),
        pytest.param("\x00", "no kubeconfig", id="binary"),
    ],
)
def test_tells_a_broken_kubeconfig_in_one_line(tmp_path, clock, content, says):
    """The error names the file and what is wrong with it."""
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ConfigError) as error:
        find_auth(clock, path)
    assert str(path) in str(error.value)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_tells_a_missing_kubeconfig(tmp_path, clock):
    """A path that leads nowhere is a mistake, whoever gave it."""
    path = tmp_path / "missing"
    with pytest.raises(ConfigError, match=r"missing: there is no such file"):
        find_auth(clock, path)
    with pytest.raises(ConfigError, match=r"missing: there is no such file"):
        find_auth(clock, environ={"KUBECONFIG": str(path)})


@pytest.mark.parametrize(
    ("user", "cluster", "says"),
    [
        pytest.param({"token": "two\nlines"}, {}, "no header can have", id="token"),
        pytest.param(
            {"tokenFile": "gone"}, {}, "gone cannot be read: No such file", id="token file"
        ),
        pytest.param(
            {}, {"server": "https://x", "certificate-authority": "gone"}, "gone", id="no CA"
        ),
        pytest.param(
            {}, {"server": "https://x", "certificate-authority-data": "!"}, "config", id="bad CA"
        ),
        pytest.param({}, {"server": "10.0.0.1:6443"}, "https://", id="no scheme"),
        pytest.param({}, {"proxy-url": "socks4://x:1"}, "the proxy must be", id="socks4"),
        pytest.param({"auth-provider": {"name": "gcp"}}, {}, "auth-provider", id="auth-provider"),
        pytest.param({"exec": {"args": []}}, {}, "config", id="exec without command"),
    ],
)
def test_tells_what_cannot_be_used(kubeconfig, clock, user, cluster, says):
    """What a kubeconfig asks for and we cannot do is said at start."""
    with pytest.raises(ConfigError) as error:
        found(kubeconfig(user, **cluster), clock)
    assert says in str(error.value)


def test_an_unknown_context_is_named(kubeconfig, clock):
    """A context that is not there is named, with the file it is not in, and those that are."""
    with pytest.raises(ConfigError, match=r"config: no context is called nope; .*: fake$") as error:
        find_auth(clock, kubeconfig({}), "nope")
    assert "\n" not in str(error.value)


def test_no_secret_is_quoted(server, tmp_path, clock):
    """A user whose keys are one level too high is a mistake, not a leak and not nobody."""
    config = server.kubeconfig()
    config["users"] = [{"name": "fake", "token": "s3cret-token"}]
    with pytest.raises(ConfigError) as error:
        find_auth(clock, write(tmp_path / "config", config))
    assert "user fake: what it has beside its name belongs under `user`" in str(error.value)
    assert "s3cret" not in str(error.value)


def test_leaves_no_key_behind(tmp_path, kubeconfig, clock, monkeypatch):
    """Private keys in a kubeconfig are on disk only while OpenSSL reads them."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    authority = trustme.CA()
    issued = authority.issue_cert("me@example.com")
    user = {
        "client-certificate-data": encoded(issued.cert_chain_pems[0].bytes()),
        "client-key-data": encoded(issued.private_key_pem.bytes()),
    }
    for _ in range(2):
        found(kubeconfig(user, server="https://x"), clock)
        assert list(scratch.iterdir()) == []


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


# Service account


@pytest.fixture
def account(tmp_path):
    (tmp_path / "token").write_text("pod-token\n")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    return tmp_path


POD = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}


async def test_uses_the_service_account_in_a_pod(account, clock):
    """W31: in a pod the mounted account is used; IPv6 addresses get their brackets."""
    auth = find_auth(clock, environ=POD, service_account=account)
    endpoint, headers = await auth.current()
    assert endpoint.url == "https://[fd00::1]:443"
    assert headers == {"Authorization": "Bearer pod-token"}


async def test_a_kubeconfig_beats_the_service_account(account, kubeconfig, clock):
    """An explicit kubeconfig is used even in a pod."""
    auth = find_auth(clock, kubeconfig({"token": "x"}), environ=POD, service_account=account)
    assert await sent(auth) == "Bearer x"


async def test_a_token_file_is_read_for_each_request(account, clock):
    """W26, F27: a rotated token is used at once, without a 401."""
    auth = find_auth(clock, environ=POD, service_account=account)
    assert await sent(auth) == "Bearer pod-token"
    (account / "token").write_text("rotated")
    assert await sent(auth) == "Bearer rotated"


@pytest.mark.parametrize("content", ["", " \n", "two\nlines", "\u00e4", None])
async def test_an_unreadable_token_file_keeps_the_old_token(account, clock, content):
    """F28: an empty, missing or odd token file during rotation changes nothing."""
    auth = find_auth(clock, environ=POD, service_account=account)
    (account / "token").unlink()
    if content is not None:
        (account / "token").write_text(content)
    assert await sent(auth) == "Bearer pod-token"
    await auth.renew((await auth.current())[1])
    assert await sent(auth) == "Bearer pod-token"
    (account / "token").write_text("rotated")
    await auth.renew((await auth.current())[1])
    assert await sent(auth) == "Bearer rotated"


async def test_a_kubeconfig_is_read_again_when_it_is_refused(server, kubeconfig, clock):
    """W26: a new token in the kubeconfig is found by the first 401; a broken file changes nothing."""
    server.token = "new"
    path = kubeconfig({"token": "old"})
    auth = found(path, clock)
    assert isinstance(await probe(auth, clock), Unauthorized)
    path.write_text("{")
    assert isinstance(await probe(auth, clock), Unauthorized)
    kubeconfig({"token": "new"})
    assert await probe(auth, clock) is None


# OpenID Connect


def oidc(**claims: Any) -> dict[str, Any]:  # noqa: ANN401
    """A user whose auth-provider has a token with these claims, and could refresh it."""
    parts = ({"alg": "RS256"}, claims, "signature")
    token = ".".join(encoded(json.dumps(part).encode()).rstrip("=") for part in parts)
    config = {"id-token": token, "refresh-token": "s3cret", "idp-issuer-url": "https://idp.invalid"}
    return {"auth-provider": {"name": "oidc", "config": config}}


def header_of(user: dict[str, Any]) -> str:
    return f"Bearer {user['auth-provider']['config']['id-token']}"


async def test_an_id_token_serves_until_it_expires(server, kubeconfig, clock, log):
    """Then it is refused in words, and nobody is asked with it; what kubectl refreshed is taken up."""
    first = oidc(exp=clock.wall().timestamp() + 60, sub="me")
    auth = found(kubeconfig(first), clock)
    assert await sent(auth) == header_of(first)
    assert "cluster.token_expires" in log.getvalue()
    clock.forward(59)
    assert await probe(auth, clock) is None
    asked = len(server.requests)
    clock.forward(1)
    error = await probe(auth, clock)
    assert isinstance(error, Unauthorized)
    assert "the id-token expired at 2026-" in str(error)
    assert "kubectl oidc-login" in str(error)
    assert len(server.requests) == asked
    second = oidc(exp=clock.wall().timestamp() + 3600, sub="me")
    kubeconfig(second)
    assert await probe(auth, clock) is None
    assert server.requests[-1].headers["Authorization"] == header_of(second)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        pytest.param(oidc(exp=1)["auth-provider"]["config"], "expired at 1970-01-01", id="expired"),
        pytest.param({"refresh-token": "s3cret"}, "has no id-token", id="only to be refreshed"),
        pytest.param(None, "has no id-token", id="no config"),
    ],
)
def test_says_at_start_that_an_id_token_is_not_refreshed(kubeconfig, clock, config, says):
    """The cure is named, and no secret."""
    with pytest.raises(ConfigError, match=says) as error:
        found(kubeconfig({"auth-provider": {"name": "oidc", "config": config}}), clock)
    assert "is not refreshed here" in str(error.value)
    assert "use an exec plugin (kubectl oidc-login)" in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("claims", [{}, {"exp": None}, {"exp": "soon"}, {"exp": 1e300}])
async def test_an_id_token_whose_end_is_unknown_is_for_the_server_to_judge(
    kubeconfig, clock, claims
):
    """What cannot be read in it refuses nothing."""
    user = oidc(**claims)
    assert await sent(found(kubeconfig(user), clock)) == header_of(user)


# Exec plugins


def plugin(tmp_path: Path, body: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """A user whose plugin is this Python program."""
    script = tmp_path / "plugin.py"
    script.write_text("import json, os, sys, time\n" + body)
    command = {"command": sys.executable, "args": [str(script)]}
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **command, **more}}


GIVES = """
def give(**status):
    print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""
COUNTS = (
    GIVES
    + """
count = len(open("{0}/runs").read()) if os.path.exists("{0}/runs") else 0
open("{0}/runs", "a").write("x")
"""
)


async def test_runs_a_plugin(kubeconfig, tmp_path, clock):
    """The plugin gets its environment and is told of the cluster if it asks for that."""
    body = GIVES + (
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])['spec']\n"
        "give(token=os.environ['WHO'] + info['cluster']['server'][:4] + str(info['interactive']))"
    )
    user = plugin(tmp_path, body, env=[{"name": "WHO", "value": "me-"}], provideClusterInfo=True)
    assert await sent(found(kubeconfig(user), clock)) == "Bearer me-httpFalse"


async def test_runs_a_plugin_beside_the_kubeconfig(kubeconfig, tmp_path, clock):
    """A command with a relative path is found from the kubeconfig."""
    script = tmp_path / "mine.sh"
    api = "client.authentication.k8s.io/v1beta1"
    answer = {"apiVersion": api, "kind": "ExecCredential", "status": {"token": "near"}}
    script.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    script.chmod(0o755)
    user = {"exec": {"apiVersion": api, "command": "./mine.sh"}}
    assert await sent(found(kubeconfig(user), clock)) == "Bearer near"


async def test_runs_a_plugin_before_its_token_expires(kubeconfig, tmp_path, clock):
    """W28: once per token, 30 s before its end at the latest, and once however many ask."""
    expires = (clock.wall() + timedelta(minutes=15)).isoformat()
    body = COUNTS.replace("{0}", str(tmp_path))
    body += f"give(token=f't{{count}}', expirationTimestamp='{expires}' if not count else None)"
    auth = found(kubeconfig(plugin(tmp_path, body)), clock)
    assert set(await asyncio.gather(*(sent(auth) for _ in range(5)))) == {"Bearer t0"}
    clock.forward(14 * 60)
    assert await sent(auth) == "Bearer t0"
    clock.forward(31)
    assert await sent(auth) == "Bearer t1"


async def test_an_old_token_serves_while_the_plugin_fails(kubeconfig, tmp_path, clock):
    """A plugin that fails before the token's end costs nothing yet."""
    expires = (clock.wall() + timedelta(seconds=40)).isoformat()
    body = COUNTS.replace("{0}", str(tmp_path))
    body += (
        f"sys.exit('no network') if count else give(token='t0', expirationTimestamp='{expires}')"
    )
    auth = found(kubeconfig(plugin(tmp_path, body)), clock)
    await sent(auth)
    clock.forward(20)
    assert await sent(auth) == "Bearer t0"
    clock.forward(20)
    with pytest.raises(Unauthorized, match="no network"):
        await sent(auth)


async def test_runs_a_plugin_again_when_its_token_is_refused(server, kubeconfig, tmp_path, clock):
    """W28: a 401 runs the plugin once more, and the request succeeds."""
    server.token = "t1"
    body = COUNTS.replace("{0}", str(tmp_path)) + "give(token=f't{count}')"
    assert await probe(found(kubeconfig(plugin(tmp_path, body)), clock), clock) is None


async def test_a_slow_plugin_is_no_slow_server(server, kubeconfig, tmp_path, clock):
    """W36: the probe's deadline is for the API server, not for what gives us the token."""
    server.token = "t"
    user = plugin(tmp_path, GIVES + "time.sleep(0.3)\ngive(token='t')")
    auth = found(kubeconfig(user), clock)
    cluster = KubeCluster("prod", auth, clock, timings=type(FAST)(probe=0.25))
    assert (await cluster.probe()).error is None
    await cluster.close()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(
            "sys.exit('please log in\\nand more')", "exit code 1: please log in", id="exit"
        ),
        pytest.param("sys.exit(3)", "exit code 3: it said nothing", id="silent exit"),
        pytest.param("print('token: s3cret')", "no ExecCredential", id="junk"),
        pytest.param("print('{}')", "no ExecCredential", id="an empty object"),
        pytest.param(GIVES + "give()", "no usable token", id="nothing given"),
        pytest.param(GIVES + "give(token='s3cret\\n')", "no usable token", id="newline"),
        pytest.param(
            GIVES.replace("/v1", "/v9") + "give(token='s3cret')", "ExecCredential of", id="version"
        ),
        pytest.param(
            GIVES + "give(clientCertificateData='x', clientKeyData='s3cret')",
            "do not fit",
            id="pem",
        ),
    ],
)
async def test_says_why_a_plugin_failed(server, kubeconfig, tmp_path, clock, body, says):
    """F32: the first line of its complaint is told, what it printed never is."""
    server_url = {"server": "https://127.0.0.1:1"}
    error = await probe(found(kubeconfig(plugin(tmp_path, body), **server_url), clock), clock)
    assert isinstance(error, Unauthorized)
    assert says in str(error)
    assert "s3cret" not in str(error)
    assert "\n" not in str(error)
    assert server.requests == []


async def test_a_plugin_that_is_not_there_is_told(kubeconfig, clock):
    """F32: a command that does not exist is said to be the reason."""
    user = {"exec": {"apiVersion": "v1", "command": "no-such-plugin"}}
    with pytest.raises(Unauthorized, match="exec plugin no-such-plugin: No such file"):
        await sent(found(kubeconfig(user), clock))


async def test_a_plugin_that_hangs_is_killed_with_its_children(tmp_path, clock):
    """W28, F32: after its deadline the plugin and what it started are gone."""
    body = f"""
import subprocess
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
open('{tmp_path}/pid', 'w').write(str(child.pid))
time.sleep(60)
"""
    spec = plugin(tmp_path, body)["exec"]
    hanging = ExecPlugin(spec, tmp_path, dict(os.environ), clock, None, None, deadline=1.0)
    with pytest.raises(Unauthorized, match="no answer in 1 s"):
        await hanging.header()
    assert is_gone((tmp_path / "pid").read_text())


async def test_a_cluster_that_is_left_has_left_nothing(kubeconfig, tmp_path, clock):
    """Whoever waits for the end of its loops need not clean up: the plugin under way is gone, too."""
    body = f"open('{tmp_path}/pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    cluster = KubeCluster("prod", found(kubeconfig(plugin(tmp_path, body)), clock), clock)
    before, running = asyncio.all_tasks(), asyncio.create_task(cluster.run())
    await asyncio.to_thread(eventually, (tmp_path / "pid").exists)
    running.cancel()
    await asyncio.wait([running])
    assert asyncio.all_tasks() == before
    assert is_gone((tmp_path / "pid").read_text())
    await cluster.close()


def is_gone(process: str) -> bool:
    with suppress(ProcessLookupError):
        watched = os.pidfd_open(int(process))
        ended, _, _ = select.select([watched], [], [], 5)
        os.close(watched)
        return bool(ended)
    return True


# TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
async def secured(authority, clock):
    """An API server over TLS that asks for client certificates, with a name of its own."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("kubernetes.default.svc").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = FakeApiServer(clock=clock, tls=context)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def tls(secured, authority, tmp_path):
    """Writes a kubeconfig for that server; client certificate and CA are right."""
    issued = authority.issue_cert("watcher@example.com")
    user = {
        "client-certificate-data": encoded(issued.cert_chain_pems[0].bytes()),
        "client-key-data": encoded(issued.private_key_pem.bytes()),
    }
    trusted = {
        "certificate-authority-data": encoded(authority.cert_pem.bytes()),
        "tls-server-name": "kubernetes.default.svc",
    }

    def make(user: dict[str, Any] = user, **cluster: Any) -> Path:  # noqa: ANN401
        config = secured.kubeconfig()
        config["users"][0]["user"] = user
        said = {key: value for key, value in (trusted | cluster).items() if value is not None}
        config["clusters"][0]["cluster"].update(said)
        return write(tmp_path / "config", config)

    return make


async def test_connects_with_a_client_certificate(tls, clock):
    """W30: certificate, CA and server name of a kubeconfig make a verified connection."""
    assert await probe(found(tls(), clock), clock) is None


async def test_connects_with_files_beside_the_kubeconfig(tls, authority, tmp_path, clock):
    """The same as files with relative paths."""
    issued = authority.issue_cert("watcher@example.com")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "me.crt"))
    issued.private_key_pem.write_to_path(str(tmp_path / "me.key"))
    path = tls({"client-certificate": "me.crt", "client-key": "me.key"})
    assert await probe(found(path, clock), clock) is None


async def test_connects_with_the_certificate_of_a_plugin(tls, authority, tmp_path, clock):
    """An exec plugin may give a client certificate instead of a token."""
    issued = authority.issue_cert("watcher@example.com")
    given = {
        "clientCertificateData": issued.cert_chain_pems[0].bytes().decode(),
        "clientKeyData": issued.private_key_pem.bytes().decode(),
    }
    user = plugin(tmp_path, GIVES + f"give(**{given!r})")
    assert await probe(found(tls(user), clock), clock) is None


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        pytest.param({"tls-server-name": "elsewhere"}, "Hostname mismatch", id="another name"),
        pytest.param({"tls-server-name": None}, "127.0.0.1", id="the URL's host"),
        pytest.param(
            {"certificate-authority-data": encoded(trustme.CA().cert_pem.bytes())},
            "certificate verify failed",
            id="another CA",
        ),
    ],
)
async def test_verifies_the_server(tls, clock, cluster, says):
    """W30: a certificate of another name or CA is refused, and the error says so."""
    error = await probe(found(tls(**cluster), clock), clock)
    assert isinstance(error, Unreachable)
    assert says in str(error)


async def test_skips_verification_only_when_told(tls, clock):
    """W30: insecure-skip-tls-verify does what it says, and only it does."""
    path = tls(**{"tls-server-name": "elsewhere", "insecure-skip-tls-verify": True})
    config = json.loads(path.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    assert await probe(found(write(path, config), clock), clock) is None


def test_strictness_can_be_relaxed(tls, clock):
    """W30: old CAs without key identifiers can be allowed; all else is still verified."""
    relaxed = found(tls(), clock, strict_x509=False)._access.endpoint.tls
    assert relaxed is not None
    assert not relaxed.verify_flags & ssl.VERIFY_X509_STRICT
    assert relaxed.verify_mode is ssl.CERT_REQUIRED
    assert relaxed.check_hostname


# Proxies


async def test_goes_through_the_proxy_of_the_kubeconfig(server, kubeconfig, clock):
    """W32: proxy-url is used, whatever the environment says, and its password is not told."""
    proxied = f"http://user:s3cret@127.0.0.1:{server.port}"
    path = kubeconfig({}, **{"server": "http://api.invalid", "proxy-url": proxied})
    server.faults.append(Fault("list", 500))
    error = await probe(found(path, clock, environ={"NO_PROXY": "*"}), clock)
    assert isinstance(error, Unreachable)
    assert server.requests[0].headers["Host"] == "api.invalid"
    assert "s3cret" not in str(error)


async def test_a_handshake_that_hangs_is_ended(clock, kubeconfig):
    """W16: a host that takes the connection and never shakes hands is given up on."""
    deaf = socket.create_server(("127.0.0.1", 0))
    port = deaf.getsockname()[1]
    auth = found(kubeconfig({}, server=f"https://127.0.0.1:{port}"), clock)
    cluster = KubeCluster("prod", auth, clock, timings=type(FAST)(connect=0.05))
    error = (await cluster.probe()).error
    await cluster.close()
    deaf.close()
    assert isinstance(error, Unreachable)
    assert "no connection in time" in str(error)


# What is replaced while the process runs


async def test_a_rewritten_kubeconfig_is_taken_up_before_it_is_refused(kubeconfig, clock):
    """W29: server and token of a rewritten kubeconfig are those of the next request."""
    auth = found(kubeconfig({"token": "old"}), clock)
    kubeconfig({"token": "new"}, server="http://127.0.0.1:2")
    endpoint, headers = await auth.current()
    assert (endpoint.url, headers) == ("http://127.0.0.1:2", {"Authorization": "Bearer new"})


async def test_another_current_context_changes_nothing(server, tmp_path, clock):
    """W29: the context is the one of the start, whatever `kubectl config use-context` makes current."""
    config = server.kubeconfig()
    config["contexts"].append({"name": "two", "context": {"cluster": "fake", "user": "two"}})
    config["users"] = [{"name": n, "user": {"token": f"of-{n}"}} for n in ("fake", "two")]
    path = write(tmp_path / "config", config)
    auth = found(path, clock)
    write(path, {**config, "current-context": "two"})
    assert await sent(auth) == "Bearer of-fake"
    write(path, {**config, "current-context": "two", "contexts": config["contexts"][1:]})
    assert await sent(auth) == "Bearer of-fake"


async def test_a_replaced_ca_and_certificate_are_taken_up(tls, authority, tmp_path, clock):
    """W29, F33: files of a client certificate and a CA are read anew when they are replaced."""
    others = trustme.CA()
    others.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    others.issue_cert("me@example.com").private_key_pem.write_to_path(str(tmp_path / "me.key"))
    others.issue_cert("me@example.com").cert_chain_pems[0].write_to_path(str(tmp_path / "me.crt"))
    issued = others.issue_cert("watcher@example.com")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "me.crt"))
    issued.private_key_pem.write_to_path(str(tmp_path / "me.key"))
    files = {"certificate-authority": "ca.crt", "certificate-authority-data": None}
    auth = found(tls({"client-certificate": "me.crt", "client-key": "me.key"}, **files), clock)
    assert "certificate verify failed" in str(await probe(auth, clock))
    right = authority.issue_cert("watcher@example.com")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    right.cert_chain_pems[0].write_to_path(str(tmp_path / "me.crt"))
    assert await probe(auth, clock) is not None, "the key does not fit yet: the old pair is kept"
    right.private_key_pem.write_to_path(str(tmp_path / "me.key"))
    assert await probe(auth, clock) is None


def test_says_loudly_that_nothing_is_verified(tls, clock, log):
    """W30: verification is only ever relaxed with a warning."""
    found(tls(), clock)
    assert "tls_not_verified" not in log.getvalue()
    path = tls(**{"insecure-skip-tls-verify": True, "certificate-authority-data": None})
    found(path, clock)
    assert "cluster.tls_not_verified" in log.getvalue()


def test_the_configuration_can_relax_strictness(tls, clock):
    """W30: `strict_x509: false` of a cluster reaches its connections."""
    settings = ClusterSettings(kubeconfig=tls(), strict_x509=False)
    endpoint = make_cluster(settings, Config(), clock)._auth._access.endpoint
    assert endpoint.tls is not None
    assert not endpoint.tls.verify_flags & ssl.VERIFY_X509_STRICT


# Names


async def test_a_name_server_that_hangs_holds_up_nobody_else(monkeypatch):
    """W34: lookups that never return cost their own host 32 threads, others and the exit nothing."""
    asks, asked_of = socket.getaddrinfo, list[str]()
    hangs = threading.Event()

    def getaddrinfo(host, *more, **options):
        asked_of.append(host)
        if host == "hangs.example":
            hangs.wait(5)
        return asks("127.0.0.1", *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    stuck, other = Resolver(), Resolver()
    waiting = [asyncio.create_task(stuck.resolve("hangs.example", 1)) for _ in range(100)]
    assert [a["host"] for a in await other.resolve("works.example", 2)] == ["127.0.0.1"]
    assert await asyncio.get_running_loop().getaddrinfo("works.example", 2)
    assert asked_of.count("hangs.example") == 32
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    with pytest.raises(OSError, match="earlier ones have not ended"):
        await stuck.resolve("works.example", 3)
    hangs.set()


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a" * 300, "\u2603..x"])
async def test_a_name_that_is_none_is_an_error_of_the_network(host):
    """A host that cannot be looked up is an OSError, whatever Python makes of it."""
    with pytest.raises(OSError, match=r".") as error:
        await Resolver().resolve(host, 1)
    assert not isinstance(error.value, TimeoutError)
