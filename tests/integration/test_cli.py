"""The command line: what it prints, where, and with which exit code."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import structlog
import yaml
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from tests.events import event, outage
from watcher import __version__
from watcher.cli import main
from watcher.clock import SystemClock
from watcher.core.delivery import Delivery, DeliveryState, Part
from watcher.core.events import Edge, Event
from watcher.core.model import Subject
from watcher.core.retry import SinkState
from watcher.ports import Record, Settlement
from watcher.stores.database import open_store
from watcher.testing.apiserver import FakeApiServer
from watcher.testing.objects import EARLIER, deployment, set_ready

Printed = tuple[int, str, str]
Watcher = Callable[..., Printed]
SCHEMA = Draft202012Validator(json.loads(Path("docs/deployments.schema.json").read_text()))
NOW = datetime(2026, 11, 22, 14, 3, tzinfo=UTC)
HEALTHY = deployment("shop", "web")
DEGRADED = deployment("shop", "checkout")
set_ready(DEGRADED, 1, EARLIER + timedelta(hours=1))
BROKEN = {"metadata": {"name": "odd", "namespace": "shop"}, "spec": {"replicas": "many"}}


@pytest.fixture
def watcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Watcher]:
    """Run a command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def command(*args: str, stdin: str = "", **env: str) -> Printed:
        monkeypatch.setattr(sys, "argv", ["watcher", *args])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return code, out, err

    yield command
    structlog.reset_defaults()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeApiServer]:
    """An API server with one healthy and one degraded Deployment, and a kubeconfig for it."""
    server = FakeApiServer()
    for obj in (HEALTHY, DEGRADED, deployment("pay", "ledger")):
        server.apply(obj)
    await server.start()
    (tmp_path / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
    yield server
    await server.stop()


async def start(folder: Path, *args: str) -> asyncio.subprocess.Process:
    """A real `watcher` process."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    paths = os.pathsep.join(filter(None, sys.path))
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "watcher", *args,
        cwd=folder,
        env=inherited | {"PYTHONPATH": paths},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


def listed(*items: Any) -> str:  # noqa: ANN401 - any JSON
    return json.dumps({"kind": "List", "apiVersion": "v1", "items": list(items)})


FILES = [
    pytest.param(listed(HEALTHY), 0, {"web": "healthy"}, id="a list"),
    pytest.param(json.dumps(HEALTHY), 0, {"web": "healthy"}, id="one object"),
    pytest.param(json.dumps([HEALTHY]), 0, {"web": "healthy"}, id="a bare array"),
    pytest.param(
        f"{json.dumps(HEALTHY)}\n\n{json.dumps(DEGRADED)}\n",
        1,
        {"web": "healthy", "checkout": "degraded"},
        id="JSON lines",
    ),
    pytest.param(
        json.dumps(HEALTHY, indent=2) + json.dumps(DEGRADED, indent=2),
        1,
        {"web": "healthy", "checkout": "degraded"},
        id="one object after the other",
    ),
    pytest.param(yaml.safe_dump(DEGRADED), 1, {"checkout": "degraded"}, id="YAML"),
    pytest.param(
        f"kind: Service\n---\n---\n{yaml.safe_dump(HEALTHY)}", 0, {"web": "healthy"}, id="manifests"
    ),
    pytest.param(listed(), 0, {}, id="an empty list"),
    pytest.param('{"items": null}', 0, {}, id="a list without items"),
    pytest.param(listed(HEALTHY, BROKEN), 2, {"web": "healthy", "odd": "unknown"}, id="unreadable"),
    pytest.param(listed(5, DEGRADED), 1, {"?": "unknown", "checkout": "degraded"}, id="no object"),
    pytest.param(listed(HEALTHY, {"kind": "Pod"}), 0, {"web": "healthy"}, id="of several kinds"),
    pytest.param(
        f"\ufeff{json.dumps(HEALTHY)}{json.dumps(DEGRADED)}",
        1,
        {"web": "healthy", "checkout": "degraded"},
        id="a byte order mark",
    ),
    pytest.param(
        yaml.safe_dump(DEGRADED).replace("'2026", "2026").replace("Z'", "Z"),
        1,
        {"checkout": "degraded"},
        id="YAML with times that are no strings",
    ),
]


@pytest.mark.parametrize(("text", "code", "healths"), FILES)
def test_check_judges_what_a_file_has(
    watcher: Watcher, text: str, code: int, healths: dict[str, str]
) -> None:
    """Exit code: 0 none degraded, 1 some degraded, 2 nothing can be said of some."""
    Path("file").write_text(text)
    ended, out, err = watcher("check", "-f", "file", "-o", "json")
    assert (ended, err) == (code, "")
    answer = json.loads(out)
    assert list(answer) == ["status", "as_of", "summary", "deployments"]
    assert {row["name"]: row["health"] for row in answer["deployments"]} == healths
    SCHEMA.validate(answer)


DOUBT = "; one look cannot tell whether it lost pods or was just scaled up"
TURNED = r"; Available turned False 3 min ago, at \d\d:\d\d UTC"
LOOKS = [
    pytest.param(3, 2, {}, f"2 of 4 replicas available, 3 needed{DOUBT}{TURNED}", id="a scale-up"),
    pytest.param(3, 0, {}, f"0 of 4 replicas available, 3 needed{DOUBT}{TURNED}", id="from zero"),
    pytest.param(11, 2, {}, f"2 of 4 replicas available, 3 needed{DOUBT}", id="after its grace"),
    pytest.param(-9, 2, {}, f"2 of 4 replicas available, 3 needed{DOUBT}", id="a clock ahead"),
    pytest.param(3, 2, {"paused": True}, "2 of 4 replicas available, 3 needed; its rollout is paused",
        id="paused: it has no grace"),
]  # fmt: skip


@pytest.mark.parametrize(("minutes", "ready", "spec", "message"), LOOKS)
def test_check_says_what_one_look_cannot_tell(
    watcher: Watcher, minutes: float, ready: int, spec: dict[str, Any], message: str
) -> None:
    """Strict as it is, it says that the Deployment may only have been scaled up, and when."""
    scaled_up = deployment("shop", "web", 4, 4)
    set_ready(scaled_up, ready, SystemClock().wall() - timedelta(minutes=minutes))
    Path("file").write_text(json.dumps(scaled_up | {"spec": scaled_up["spec"] | spec}))
    code, out, _ = watcher("check", "-f", "file", "-o", "json")
    (row,) = json.loads(out)["deployments"]
    assert code == 1
    assert re.fullmatch(message, row["message"])
    assert "One look has no memory" in watcher("check", "--help")[1]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("", "file: there is no Deployment in it", id="empty"),
        pytest.param("# nothing", "file: there is no Deployment in it", id="a comment"),
        pytest.param('{"kind": "Pod"}', "file: there is no Deployment in it", id="another kind"),
        pytest.param(
            listed({"kind": "Pod"}), "file: there is no Deployment in it", id="only others"
        ),
        pytest.param("hello", "file: neither a Deployment nor a list of them", id="text"),
        pytest.param('{"items": 5}', "file: neither a Deployment nor a list of them", id="no list"),
        pytest.param('{"kind":\n "List"', "file:2:8: not JSON: ", id="cut off"),
        pytest.param('\n{"a": 1} rest', "file:2:10: not JSON: ", id="something behind it"),
        pytest.param('{"a": 1}\n{"b" 2}\n', "file:2:6: not JSON: ", id="a bad line"),
        pytest.param('{"a": "\u2028"}\n{"b" 2}\n', "file:2:6: not JSON: ", id="an odd separator"),
        pytest.param("a: 1\n b: 2", "file:2:3: not YAML: ", id="bad YAML"),
        pytest.param(
            "a: !!python/name:os.system", "file:1:4: not YAML: ", id="YAML that would run"
        ),
        pytest.param("[" * 100_000, "file: neither JSON nor YAML that can be read", id="too deep"),
        pytest.param("a: 1\x07", "file: neither JSON nor YAML that can be read", id="control"),
    ],
)
def test_check_says_in_one_line_what_is_wrong_with_a_file(
    watcher: Watcher, text: str, place: str
) -> None:
    Path("file").write_text(text)
    code, out, err = watcher("check", "-f", "file")
    assert (code, out) == (2, "")
    assert err.startswith(f"watcher: {place}")
    assert err.count("\n") == 1


def test_check_of_a_file_that_is_not_there_is_one_line(watcher: Watcher) -> None:
    told = watcher("check", "-f", "none.json")
    assert told == (2, "", "watcher: none.json: No such file or directory\n")


def test_check_reads_standard_input_and_one_namespace(watcher: Watcher) -> None:
    both = listed(DEGRADED, deployment("pay", "ledger"))
    code, out, _ = watcher("check", "-f", "-", "-n", "pay", stdin=both)
    assert code == 0
    assert out.splitlines() == [
        "NAMESPACE  NAME    READY  AVAILABLE  HEALTH   REASON  MESSAGE",
        "pay        ledger  3/3    3          healthy          3 of 3 replicas available",
        "1 healthy",
    ]


def test_check_shows_what_is_wrong_first_and_hostile_names_inert(watcher: Watcher) -> None:
    hostile = deployment("shop", "x\x1b[31m\n[bold]y", 3, 3)
    Path("file").write_text(listed(hostile, HEALTHY, DEGRADED))
    code, out, _ = watcher("check", "-f", "file")
    assert code == 1
    assert [line.split()[1] for line in out.splitlines()[1:]] == [
        "checkout",
        "web",
        "x",
        "healthy,",
    ]
    assert "x [bold]y" in out
    assert "\x1b" not in out


async def test_check_lists_a_live_cluster(tmp_path: Path, cluster: FakeApiServer) -> None:
    """With one list, no watch left behind, and nothing but the answer on standard output."""
    process = await start(tmp_path, "check", "--kubeconfig", "kubeconfig", "-o", "json")
    out, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")
    rows = {row["name"]: row["health"] for row in json.loads(out)["deployments"]}
    assert rows == {"web": "healthy", "checkout": "degraded", "ledger": "healthy"}


async def test_check_of_a_namespace_with_nothing_in_it(
    tmp_path: Path, cluster: FakeApiServer
) -> None:
    """A misspelt one is not taken for one in which all is well."""
    process = await start(tmp_path, "check", "--kubeconfig", "kubeconfig", "-n", "no-such")
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err == b"watcher: no Deployments in namespace no-such\n"


def test_check_does_not_count_what_is_to_be_ignored(watcher: Watcher) -> None:
    """It is shown, marked, and does not fail whoever asks for the exit code."""
    metadata = DEGRADED["metadata"] | {"annotations": {"deployment-watcher.dev/ignore": "true"}}
    Path("file").write_text(listed(HEALTHY, DEGRADED | {"metadata": metadata}))
    code, out, _ = watcher("check", "-f", "file")
    assert code == 0
    (row,) = [line for line in out.splitlines() if "checkout" in line]
    assert "ignored by its annotation; 1 of 3" in row
    assert "degraded  ignored" in row


async def test_check_of_a_cluster_that_refuses_is_one_line(
    tmp_path: Path, cluster: FakeApiServer
) -> None:
    cluster.forbidden.add(("list", "pay"))
    process = await start(tmp_path, "check", "--kubeconfig", "kubeconfig", "-n", "pay")
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.startswith(f"watcher: cluster default at {cluster.url}: cannot list".encode())
    assert b"forbidden" in err.lower()
    assert err.count(b"\n") == 1


NOTHING = b"no Deployments in namespace "


@pytest.mark.parametrize(
    ("namespaces", "code", "says"),
    [
        pytest.param(["shpo"], 2, NOTHING + b"shpo\n", id="mistyped"),
        pytest.param(["pay", "shpo", "lab"], 2, b"in namespaces lab, shpo\n", id="two of three"),
        pytest.param(["shop", "shpo"], 1, NOTHING + b"shpo\n", id="some degraded elsewhere"),
        pytest.param(["pay"], 0, b"", id="there"),
        pytest.param([], 1, b"", id="all of them"),
    ],
)
async def test_check_tells_of_a_configured_namespace_that_shows_nothing(
    tmp_path: Path, cluster: FakeApiServer, namespaces: list[str], code: int, says: bytes
) -> None:
    """As it does of the one that `-n` asks for: the API answers the same where there is no such one."""
    one = {"kubeconfig": "kubeconfig", "namespaces": namespaces}
    (tmp_path / "c.yaml").write_text(json.dumps({"clusters": [one]}))
    process = await start(tmp_path, "check", "--config", "c.yaml", "-o", "json")
    out, err = await process.communicate()
    assert process.returncode == code
    assert err.endswith(says)
    assert err.count(b"\n") == bool(says)
    assert list(json.loads(out).get("errors", {}).values()) == (
        [err.decode().removeprefix("watcher: ").rstrip()] if says else []
    )
    process = await start(tmp_path, "check", "--kubeconfig", "kubeconfig", "-n", "shpo")
    _, err = await process.communicate()
    assert (process.returncode, err) == (2, b"watcher: " + NOTHING + b"shpo\n")


async def test_check_leaves_out_what_the_configuration_does(
    tmp_path: Path, cluster: FakeApiServer
) -> None:
    """Unless it is what `-n` asks for."""
    one = {"kubeconfig": "kubeconfig", "namespaces_exclude": ["sh*"]}
    (tmp_path / "c.yaml").write_text(json.dumps({"clusters": [one]}))
    for asked, code, names in (((), 0, ["ledger"]), (("-n", "shop"), 1, ["checkout", "web"])):
        process = await start(tmp_path, "check", "--config", "c.yaml", "-o", "json", *asked)
        out, _ = await process.communicate()
        assert process.returncode == code
        assert sorted(row["name"] for row in json.loads(out)["deployments"]) == names


async def test_check_of_several_clusters_tells_them_apart(
    tmp_path: Path, cluster: FakeApiServer
) -> None:
    """Each row names its cluster."""
    clusters = [{"name": name, "kubeconfig": "kubeconfig"} for name in ("eu", "us")]
    (tmp_path / "two.yaml").write_text(json.dumps({"clusters": clusters}))
    process = await start(tmp_path, "check", "--config", "two.yaml", "-n", "pay")
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    lines = [line.split()[:3] for line in out.decode().splitlines()]
    assert lines[:3] == [
        ["CLUSTER", "NAMESPACE", "NAME"],
        ["eu", "pay", "ledger"],
        ["us", "pay", "ledger"],
    ]


async def test_check_answers_for_the_clusters_that_can_be_reached(
    tmp_path: Path, cluster: FakeApiServer
) -> None:
    """And says of each other one why not: in all it cannot tell. Nothing shows a password."""
    away = cluster.kubeconfig()
    away["clusters"][0]["cluster"]["server"] = "http://user:s3cr3t@127.0.0.1:1/s3cr3t-path"
    (tmp_path / "away").write_text(json.dumps(away))
    files = {"eu": "kubeconfig", "ap": "away", "sa": "nowhere"}
    clusters = [{"name": name, "kubeconfig": file} for name, file in files.items()]
    (tmp_path / "c.yaml").write_text(json.dumps({"clusters": clusters}))
    process = await start(tmp_path, "check", "--config", "c.yaml", "-n", "pay")
    out, err = await process.communicate()
    assert process.returncode == 2
    assert [line.split()[:3] for line in out.decode().splitlines()[1:]] == [
        ["eu", "pay", "ledger"],
        ["1", "healthy"],
    ]
    ap, sa = sorted(err.decode().splitlines())
    assert ap.startswith("watcher: cluster ap at http://127.0.0.1:1/***: cannot list ")
    assert sa == "watcher: cluster sa: kubeconfig nowhere: there is no such file"
    process = await start(tmp_path, "check", "--config", "c.yaml", "-o", "json")
    out, err = await process.communicate()
    answer = json.loads(out)
    assert (process.returncode, answer["status"]) == (2, "unknown")
    assert {row["cluster"] for row in answer["deployments"]} == {"eu"}
    assert sorted(answer["errors"]) == ["ap", "sa"]
    assert sorted(err.decode().splitlines()) == sorted(
        f"watcher: {error}" for error in answer["errors"].values()
    )
    assert b"s3cr3t" not in out + err


@pytest.mark.parametrize("command", [["check"], ["config", "validate"], ["run"]], ids=" ".join)
async def test_a_kubeconfig_that_is_not_there_is_said_once(
    tmp_path: Path, command: list[str]
) -> None:
    """By us, in one line, and not before it by the library that looks for it."""
    (tmp_path / "c.yaml").write_text(
        'clusters: [{kubeconfig: none}]\nweb: {address: "127.0.0.1:0"}'
    )
    process = await start(tmp_path, *command, "--config", "c.yaml")
    _, err = await process.communicate()
    assert err.count(b"kubeconfig none: there is no such file") == 1
    assert b"not found" not in err


async def test_run_serves_until_it_is_asked_to_stop(tmp_path: Path, cluster: FakeApiServer) -> None:
    """Audit lines on standard error, exit code 0 after SIGTERM."""
    flags = ("--kubeconfig", "kubeconfig", "--address", "127.0.0.1:0")
    process = await start(tmp_path, "run", *flags)
    assert process.stderr is not None
    log: list[dict[str, Any]] = []
    async for line in process.stderr:
        log.append(json.loads(line))
        if log[-1]["event"] == "cluster.listed":
            break
    address = next(line["address"] for line in log if line["event"] == "process.started")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{address}/readyz") as answer:
            assert (answer.status, await answer.json()) == (
                200,
                {"status": "ok", "role": "writer"},
            )
        summary = {"unknown": 1}
        while summary["unknown"]:  # until the stream behind the list is open
            async with session.get(f"http://{address}/health/deployments") as answer:
                summary = (await answer.json())["summary"]
        assert (summary["healthy"], summary["degraded"]) == (2, 1)
    process.send_signal(signal.SIGTERM)
    log += [json.loads(line) for line in (await process.stderr.read()).splitlines()]
    assert await process.wait() == 0
    assert [log[0]["event"], log[-1]["event"]] == ["config.loaded", "process.stopped"]
    assert log[0]["sinks"] == ["console"]
    assert log[1]["event"] == "sinks.none_configured"


async def test_run_warns_of_a_namespace_that_shows_nothing(
    tmp_path: Path, cluster: FakeApiServer
) -> None:
    """It runs on: somebody may deploy there later."""
    one = {"kubeconfig": "kubeconfig", "namespaces": ["shop", "shpo"]}
    (tmp_path / "c.yaml").write_text(
        json.dumps({"clusters": [one], "web": {"address": "127.0.0.1:0"}})
    )
    process = await start(tmp_path, "run", "--config", "c.yaml")
    assert process.stderr is not None
    told: dict[str, Any] = {}
    async for line in process.stderr:
        told = json.loads(line)
        if told["event"] == "cluster.namespace_empty":
            break
    process.send_signal(signal.SIGTERM)
    rest = await process.stderr.read()
    assert await process.wait() == 0
    assert (told["cluster"], told["namespace"], told["level"]) == ("default", "shpo", "warning")
    assert b"namespace_empty" not in rest


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (
            {"WATCHER_WEB__ADDRESS": "8080", "WATCHER_X": "1"},
            ["WATCHER_WEB__ADDRESS: ", "WATCHER_X: "],
        ),
        (
            {"SLACK_WEBHOOK_URL": "http://example.com/s3cr3t-path"},
            ["SLACK_WEBHOOK_URL (sinks.0.url): "],
        ),
    ],
    ids=["a mistake", "a URL that may not be"],
)
def test_run_does_not_start_with_a_wrong_configuration(
    watcher: Watcher, env: dict[str, str], words: list[str]
) -> None:
    """Every problem is a line of its own, JSON as all of the log, and none has a secret in it."""
    code, out, err = watcher("run", **env)
    assert (code, out) == (2, "")
    told = [json.loads(line) for line in err.splitlines()]
    assert {line["event"] for line in told} == {"process.refused"}
    for line, word in zip(told, words, strict=True):
        assert line["error"].startswith(word)
    assert "s3cr3t" not in err


def test_it_tells_its_version(watcher: Watcher) -> None:
    assert watcher("--version") == (0, f"watcher {__version__}\n", "")


def test_config_validate_tells_every_problem_with_its_place(watcher: Watcher) -> None:
    Path("c.yaml").write_text("health: {degraded: 1s}\nweb: {address: nowhere}\n")
    code, out, err = watcher("config", "validate", "--config", "c.yaml")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "watcher: c.yaml: health.degraded: unknown key",
        "watcher: c.yaml: web.address: must be HOST:PORT or :PORT, an IPv6 host in brackets",
    ]


KUBECONFIG = {
    "current-context": "a",
    "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "a", "user": {}}],
}
SIGNED = {"name": "a", "type": "webhook", "url": "https://h/", "secrets": [{"env": "KEY"}]}


def valid(
    watcher: Watcher, *, sinks: Sequence[object] = (SIGNED,), kubeconfig: str = "kc", **more: object
) -> Printed:
    Path("kc").write_text(json.dumps(KUBECONFIG))
    clusters = [{"kubeconfig": kubeconfig}]
    Path("c.yaml").write_text(json.dumps({"clusters": clusters, "sinks": list(sinks), **more}))
    return watcher(
        "config",
        "validate",
        "--config",
        "c.yaml",
        KEY="k" * 32,
        RAW="k" * 31,
        PLAIN="http://h.example/x",
        PEER="https://u:p4ssw0rd@am.example",
    )


def test_config_validate_says_ok_of_what_can_run(watcher: Watcher) -> None:
    assert valid(watcher) == (0, "ok: 1 cluster(s); sinks: a (webhook)\n", "")


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        pytest.param({"sinks": [SIGNED | {"secrets": [{"env": "NOT_HERE"}]}]},
                     "sinks.0.secrets: environment variable NOT_HERE is not set", id="a secret"),
        pytest.param({"sinks": [SIGNED | {"ca_file": "ca.pem"}]},
                     "sinks.0.ca_file: file ca.pem cannot be read", id="a CA"),
        pytest.param({"sinks": [SIGNED | {"client_key": "key\0.pem"}]},
                     "sinks.0.client_key: file key.pem cannot be read", id="a name of no file"),
        pytest.param({"kubeconfig": "none"},
                     "clusters.0: kubeconfig none: there is no such file", id="a kubeconfig"),
    ],
)  # fmt: skip
def test_config_validate_does_not_say_ok_where_run_refuses(
    watcher: Watcher, changes: dict[str, Any], warned: str
) -> None:
    """What is missing may be where it is to run, and is no fault of the configuration."""
    code, out, err = valid(watcher, **changes)
    assert code == 0
    assert out.startswith("`watcher run` would refuse it here, for want of files or variables: 1 ")
    assert f"warning: {warned}" in err
    code, _, err = watcher("run", "--config", "c.yaml")
    assert code == 2
    assert json.loads(err.splitlines()[-1])["error"].startswith(warned.removeprefix("clusters.0: "))


def test_config_validate_refuses_what_can_run_nowhere(watcher: Watcher) -> None:
    sink = {"name": "chat", "type": "slack_webhook", "url": {"env": "PLAIN"}}
    code, out, err = valid(watcher, sinks=[sink])
    assert (code, out) == (2, "")
    assert err.startswith("watcher: PLAIN (sinks.0.url): http:// is for loopback")


def test_config_validate_names_what_is_seldom_meant(watcher: Watcher) -> None:
    unsigned = {"name": "b", "type": "webhook", "url": "https://h/"}
    code, out, err = valid(watcher, sinks=[SIGNED, unsigned], route={"sinks": ["a"]})
    assert (code, out) == (0, "ok: 1 cluster(s); sinks: a (webhook), b (webhook)\n")
    assert err.splitlines() == [
        "warning: sinks.1: nothing is ever told to b: it is not in route.sinks",
        "warning: sinks.1.secrets: b is not signed: anybody could pretend to be us",
    ]


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        pytest.param(
            {"sinks": [SIGNED, {"name": "b", "type": "alertmanager",
                                "urls": ["https://one.example", "https://u:not-a-secret@am.example"]}]},
            "sinks.1.urls.1", id="an Alertmanager",
        ),
        pytest.param(
            {"sinks": [SIGNED | {"url": "https://not-a-secret@h.example/x"}]},
            "sinks.0.url", id="a webhook, as a user",
        ),
        pytest.param(
            {"dead_man": {"url": "https://u:not-a-secret@h.example/x"}}, "dead_man.url", id="a ping"
        ),
        pytest.param(
            {"store": {"url": "postgresql://u:not-a-secret@db/watcher"}}, "store.url", id="a store"
        ),
    ],
)  # fmt: skip
def test_config_validate_warns_of_a_password_in_clear(
    watcher: Watcher, settings: dict[str, Any], place: str
) -> None:
    code, out, err = valid(watcher, **settings)
    assert (code, out[:3]) == (0, "ok:")
    cure = "name the whole URL, {file: …} or {env: …}"
    assert err == f"warning: {place}: a password stands here in clear: {cure}\n"
    assert "not-a-secret" not in out + err


@pytest.mark.parametrize(
    "settings",
    [
        {"sinks": [{"name": "b", "type": "alertmanager", "urls": [{"env": "PEER"}]}]},
        {"store": {"url": "postgresql://u@db/watcher"}},
        {"sinks": [SIGNED | {"headers": {"X-Who": "us@example.com", "X-To": "https://h/@x"}}]},
    ],
    ids=["named", "a user of a database", "no password"],
)
def test_a_password_that_is_not_there_is_not_warned_of(
    watcher: Watcher, settings: dict[str, Any]
) -> None:
    assert valid(watcher, **settings)[2] == ""


def test_a_secret_that_nobody_can_verify_is_refused_by_every_command(watcher: Watcher) -> None:
    """`run`, `config validate` and `test-notify` have the same words for it."""
    sinks = [SIGNED | {"secrets": [{"env": "RAW"}], "url": "https://127.0.0.1:1/"}]
    words = "must be base64 with its padding, with or without whsec_ before"
    code, out, err = valid(watcher, sinks=sinks)
    assert (code, out) == (2, "")
    assert err.startswith(f"watcher: RAW (sinks.0.secrets): {words}")
    code, _, err = watcher("run", "--config", "c.yaml", RAW="k" * 31)
    assert code == 2
    assert json.loads(err)["error"].startswith(f"RAW (sinks.0.secrets): {words}")
    code, out, _ = watcher("test-notify", "--config", "c.yaml", RAW="k" * 31)
    assert code == 1
    assert f"secret_malformed: secrets.0 {words}" in " ".join(out.split())


def test_config_show_masks_secrets(watcher: Watcher) -> None:
    sinks = '[{"name": "a", "type": "webhook", "url": "https://h/s3cr3t"}]'
    code, out, err = watcher("config", "show", WATCHER_SINKS=sinks)
    assert (code, err) == (0, "")
    assert yaml.safe_load(out)["sinks"][0]["url"] == "https://h/***"
    assert "s3cr3t" not in out


def test_config_schema_is_json(watcher: Watcher) -> None:
    code, out, _ = watcher("config", "schema")
    assert code == 0
    assert "sinks" in json.loads(out)["properties"]


def test_migrate_can_run_twice(watcher: Watcher) -> None:
    first = watcher("migrate")
    assert first[0] == 0
    assert first[1].startswith("schema created at 0")
    code, out, _ = watcher("migrate")
    assert code == 0
    assert out.endswith(": nothing to do\n")


def test_migrate_needs_no_sink_to_be_complete(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job has the watcher's variables without its file, which makes sense of WEBHOOK_SECRET."""
    monkeypatch.setenv("WEBHOOK_SECRET", "for a sink in the file")
    monkeypatch.setenv("WATCHER_STORE__URL", '{"env": "DATABASE_URL"}')
    monkeypatch.setenv("DATABASE_URL", "sqlite:///elsewhere.db")
    code, _, said = watcher("migrate")
    assert (code, said) == (0, "")
    assert Path("elsewhere.db").exists()


def fill(*records: Record) -> None:
    """Commit to the store in this folder."""

    async def commit() -> None:
        store = open_store("sqlite:///watcher.db")
        for each in records:
            await store.record(each, NOW)
        await store.close()

    asyncio.run(commit())


def row(told: Event, sink: str = "hook", **changes: Any) -> Delivery:  # noqa: ANN401 - any field
    made = Delivery(sink, told.id, told.incident, told.sequence, Part.EVENT, told.at)
    return replace(made, **changes)


def test_history_tells_who_was_told_and_who_not(watcher: Watcher) -> None:
    opened = event(Edge.DEGRADED)
    silenced = row(opened, state=DeliveryState.SUPPRESSED, reason="silenced")
    rows = (row(opened, "oncall"), silenced)
    fill(Record(events=(opened, outage(Edge.DEGRADED)), deliveries=rows))
    code, out, _ = watcher("history", "shop/checkout", "--sink", "hook", "-o", "json")
    assert code == 0
    (told,) = json.loads(out)
    assert (told["sink"], told["state"], told["reason"]) == ("hook", "suppressed", "silenced")
    assert (told["subject"], told["event"]) == ("shop/checkout", "deployment.degraded")
    code, out, _ = watcher("history")
    assert sorted(line.split()[5] for line in out.splitlines()[1:]) == ["hook", "oncall"]
    assert any(line.endswith("  hook    suppressed        silenced") for line in out.splitlines())
    assert (
        watcher("history", "--limit", "1")[2] == "only the newest 1 are shown, --limit shows more\n"
    )
    assert watcher("history", "--limit", "2") == (0, out, ""), "there is no more"
    (told,) = json.loads(watcher("history", "--delivery", silenced.id, "-o", "json")[1])
    assert (told["delivery"], told["sink"]) == (silenced.id, "hook")
    assert len(watcher("history", "--delivery", silenced.id[-8:])[1].splitlines()) == 2
    shown = out.splitlines()[1].split()[4]
    assert watcher("history", "--incident", shown)[1] == out  # by what a message shows of its id
    assert watcher("history", "-n", "shop")[1] == out
    assert (
        watcher("history", "--since", "2026-11-22T14:03Z", "--until", "2026-11-22T15:00")[1] == out
    )
    nothing = "nothing on record: nobody was to be told anything of this\n"
    for same in (["shop/", "-n", "shop"], ["checkout", "-n", "shop"], ["shop/checkout"]):
        assert watcher("history", *same)[1] == out
    for filters in (
        ["other/"],
        ["other", "-n", "shop"],
        ["--since", "5s"],
        ["--until", "2026-11-22T14:02:59Z"],
    ):
        assert watcher("history", *filters) == (0, nothing, "")
    for filters in (["--incident", "beef"], ["--delivery", "beef"]):
        unknown = "nothing on record fits, so look at the id\n"
        assert watcher("history", *filters) == (0, unknown, ""), "it says nothing of who was told"
    assert watcher("history", "--since", "5s", "-o", "json")[1] == "[]\n"
    code, out, err = watcher("history", "--since", "yesterday")
    assert (code, out) == (2, "")
    assert err == "watcher: yesterday: neither a duration such as 24h nor a time\n"


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        pytest.param(["checkout"], "checkout: must be NAMESPACE/NAME, or NAMESPACE/; with -n the name alone",
                     id="a name alone"),
        pytest.param(["shop/checkout", "-n", "zzz"], "shop/checkout: contradicts --namespace zzz",
                     id="two namespaces"),
        pytest.param(["shop/", "-n", "zzz"], "shop/: contradicts --namespace zzz", id="nothing but two"),
    ],
)  # fmt: skip
def test_history_does_not_say_that_nothing_is_on_record_of_what_it_cannot_find(
    watcher: Watcher, asked: list[str], problem: str
) -> None:
    opened = event(Edge.DEGRADED)
    fill(Record(events=(opened,), deliveries=(row(opened),)))
    assert watcher("history", *asked) == (2, "", f"watcher: {problem}\n")


def test_history_can_be_read_in_a_terminal(watcher: Watcher) -> None:
    """Why each was late, waits, or was told otherwise; an ending by its name; clusters where several."""
    opened, closed = event(Edge.DEGRADED), event(Edge.CLOSED, sequence=2, resolution="ignored")
    long = event(
        Edge.DEGRADED,
        incident=opened.incident[:-1] + "x",
        subject=Subject("prod-eu", "payments", "x" * 200 + "-api", "u"),
    )
    replies = row(closed, "oncall", part=Part.REPLY, state=DeliveryState.PENDING)
    fill(Record(events=(opened, closed, long), deliveries=(row(opened), replies, row(long))))
    with closing(sqlite3.connect("watcher.db")) as db, db:
        db.execute(
            "UPDATE deliveries SET attempts = 3, reason = 'http_503', detail = 'HTTP 503: busy'"
            " WHERE sink = 'oncall'"
        )
        db.execute(
            "UPDATE deliveries SET state = 'delivered', settled_at = '2026-11-22 15:13:00'"
            " WHERE sink = 'hook'"
        )
    code, out, _ = watcher("history")
    assert code == 0
    assert out.splitlines()[0].index("WHY") <= 100
    assert "  payments/xx…xxxxxxxx-api" in out
    words = [" ".join(line.split()) for line in out.splitlines()]
    id_ = opened.incident[-8:]
    assert f"11-22 14:03:00 shop/checkout degraded {id_} hook delivered 1h10m" in words
    reply = "oncall reply pending HTTP 503: busy, attempts: 3"
    assert f"11-22 14:03:00 shop/checkout ignored {id_} {reply}" in words
    assert "CLUSTER" not in out
    elsewhere = outage(Edge.DEGRADED, subject=Subject("prod-us"))
    fill(Record(events=(elsewhere,), deliveries=(row(elsewhere),)))
    lines = watcher("history")[1].splitlines()
    assert lines[0].startswith("CLUSTER")
    assert {line.split()[0] for line in lines[1:]} == {"prod-eu", "prod-us"}


def test_the_outbox_tells_what_is_stuck(watcher: Watcher) -> None:
    """Pending, parked and given up, since when, why and until when; what was told is not in it."""
    sinks = {"WATCHER_SINKS": '[{"name": "hook", "type": "console"}]'}
    opened = event(Edge.DEGRADED)
    ended = event(Edge.RECOVERED, sequence=2)
    dead = {"state": DeliveryState.DEAD, "reason": "http_400"}
    fill(
        Record(
            events=(opened, ended),
            deliveries=(
                row(opened, **dead),
                row(opened, "gone", state=DeliveryState.PARKED, reason="sink_removed"),
                row(opened, "told", state=DeliveryState.DELIVERED),
                row(ended, due=NOW + timedelta(days=3650)),
            ),
        )
    )
    code, out, _ = watcher("outbox", "list", **sinks)
    assert code == 0
    lines = [line.split()[3:] for line in out.splitlines()[1:]]
    assert [words[:4] for words in lines] == [
        ["shop/checkout", "recovered", "hook", "pending"],
        ["shop/checkout", "degraded", "gone", "parked"],
        ["shop/checkout", "degraded", "hook", "dead"],
    ] or sorted(words[3] for words in lines) == ["dead", "parked", "pending"]
    assert any("in" in words and "d" in words for words in lines), "when it is tried next"
    (removed,) = (words for words in lines if "gone" in words)
    assert removed[4:] == ["sink", "removed"], "nothing is tried before the sink returns"
    assert watcher("outbox", "list", "--sink", "told") == (
        0,
        "nothing waits, and nothing was given up\n",
        "",
    )
    (only,) = json.loads(watcher("outbox", "list", "--state", "dead", "-o", "json")[1])
    assert (only["state"], only["reason"], only["due"]) == ("dead", "http_400", None)
    code, out, err = watcher("outbox", "redrive")
    assert code == 0
    left = row(opened, "gone").id
    assert out.splitlines() == [
        "1 due again; a running watcher sends them within 15 s",
        f"left out {left}: no sink is called gone any more",
    ]
    told = json.loads(err)
    assert (told["event"], told["delivery"]) == ("notification.redriven", row(opened).id)
    assert told["by"].endswith(f"@{socket.gethostname()}")
    code, out, _ = watcher("outbox", "redrive", left[-8:], row(ended).id)
    assert code == 1
    assert out.splitlines()[0].startswith("0 due again")
    assert out.splitlines()[2] == f"left out {row(ended).id}: it is pending"
    assert watcher("outbox", "redrive", "nothing") == (
        2,
        "",
        "watcher: no delivery ends in nothing\n",
    )
    assert "several deliveries end in" in watcher("outbox", "redrive", "")[2]


def test_the_outbox_tells_when_a_parked_delivery_was_first_tried(watcher: Watcher) -> None:
    """Its attempts do not count towards giving up; that there was none would be untrue."""
    opened = event(Edge.DEGRADED)
    fill(Record(events=(opened,), deliveries=(row(opened),)))

    async def park() -> None:
        store = open_store("sqlite:///watcher.db")
        (claim,) = await store.claim("hook", NOW, 1)
        parked = Settlement(
            claim.delivery.id, DeliveryState.PARKED, NOW, NOW, "http_404", "HTTP 404", counted=False
        )
        await store.settle(parked)
        await store.close()

    asyncio.run(park())
    head, line, *_ = watcher("outbox", "list")[1].splitlines()
    assert "FIRST TRIED" in head
    assert " parked  11-22 14:03:00 " in line
    assert line.endswith("  HTTP 404")
    assert json.loads(watcher("outbox", "list", "-o", "json")[1])[0]["first_attempt_at"]


def test_the_outbox_tells_why_what_was_never_tried_waits(watcher: Watcher) -> None:
    """Its sink is spared for what another delivery has met."""
    opened = event(Edge.DEGRADED)
    other = event(Edge.DEGRADED, incident=opened.incident[:-1] + "x")
    fill(Record(events=(opened, other), deliveries=(row(opened), row(other))))

    async def refused() -> None:
        store = open_store("sqlite:///watcher.db")
        (claim,) = await store.claim("hook", NOW, 1)
        state = SinkState(parked_until=NOW + timedelta(days=3650), trouble="http_404")
        parked = Settlement(
            claim.delivery.id, DeliveryState.PARKED, NOW, NOW, "http_404", "HTTP 404", sink=state
        )
        await store.settle(parked)
        await store.close()

    asyncio.run(refused())
    lines = watcher("outbox", "list")[1].splitlines()
    (waits,) = (line for line in lines if " pending " in line)
    assert waits.endswith("  the sink waits: HTTP 404")
    found = {
        one["state"]: one["why"] for one in json.loads(watcher("outbox", "list", "-o", "json")[1])
    }
    assert found == {"parked": "HTTP 404, attempts: 1", "pending": "the sink waits: HTTP 404"}


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        pytest.param(Subject("", name="integrations"), "sink integrations", id="a sink"),
        pytest.param(Subject("c", name="oncall", uid="digest/oncall/1"), "digest in oncall", id="a digest"),
        pytest.param(Subject("c"), "c", id="a cluster"),
    ],
)  # fmt: skip
def test_history_names_what_is_no_deployment(
    watcher: Watcher, subject: Subject, shown: str
) -> None:
    opened = event(Edge.DEGRADED, subject=subject)
    fill(Record(events=(opened,), deliveries=(row(opened),)))
    assert f" {shown} " in watcher("history")[1]
    assert json.loads(watcher("history", "-o", "json")[1])[0]["subject"] == shown


def test_history_tells_how_a_digest_went_on_and_keeps_a_sinks_parts_together(
    watcher: Watcher,
) -> None:
    """Newest first; of one event sink by sink."""
    subject = Subject("c", name="oncall", uid="digest/oncall/1")
    edges = (Edge.DEGRADED, Edge.UPDATED, Edge.RECOVERED)
    told = [
        event(edge, sequence=n, subject=subject, digest=True) for n, edge in enumerate(edges, 1)
    ]
    parts = [(sink, part) for part in (Part.REPLY, Part.EDIT) for sink in ("chat", "b", "a")]
    rows = tuple(row(each, sink, part=part) for each in told for sink, part in parts)
    fill(Record(events=tuple(told), deliveries=rows))
    lines = [line.split() for line in watcher("history")[1].splitlines()[1:]]
    assert [(words[5], *words[7:9]) for words in lines] == [
        (edge, sink, part)
        for edge in ("recovered", "updated", "degraded")
        for sink in ("a", "b", "chat")
        for part in ("edit", "reply")
    ]


def something_else(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "file")) as db, db:
        db.execute("CREATE TABLE other (x)")


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a folder": lambda folder: (folder / "file").mkdir(),
    "empty": lambda folder: (folder / "file").touch(),
    "no database": lambda folder: (folder / "file").write_bytes(os.urandom(100_000)),
    "a database of something else": something_else,
}


@pytest.mark.parametrize("command", ["history", "outbox list", "outbox redrive", "audit verify"])
@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_store_is_neither_read_nor_made_one(
    watcher: Watcher, tmp_path: Path, command: str, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "")
    code, out, err = watcher(*command.split(), WATCHER_STORE__URL="sqlite:///file")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("watcher: file")
    if Path("file").is_file():
        assert b"deliveries" not in Path("file").read_bytes()


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        pytest.param(["history", "--sink", "pager"],
                     "no sink is or was called 'pager'; there are: console", id="a sink"),
        pytest.param(["outbox", "list", "--sink", "pager"],
                     "no sink is or was called 'pager'; there are: console", id="a sink's outbox"),
        pytest.param(["outbox", "redrive", "--sink", "pager"],
                     "no sink is or was called 'pager'; there are: console", id="a sink to redrive"),
        pytest.param(["history", "a/b/c"], "a/b/c: must be NAMESPACE/NAME, or ", id="a path"),
        pytest.param(["history", "--until", "9999-12-31T23:59:59-14:00"],
                     "9999-12-31T23:59:59-14:00: neither a duration ", id="the end of time"),
        pytest.param(["audit", "verify", "--log", "naive"], "naive:2: not an audit line ", id="no zone"),
        pytest.param(["audit", "verify", "--log", "deep"], "deep: there is no audit line", id="too deep"),
        pytest.param(["replay", "late"], "late:1: `at` is too far away", id="a late time"),
        pytest.param(["replay", "later"], "later:1: 1e+18 is not a time", id="no time at all"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_one_line(
    watcher: Watcher, asked: list[str], problem: str
) -> None:
    """Which says what of the question, and where."""
    opened = event(Edge.DEGRADED)
    fill(Record(events=(opened,), deliveries=(row(opened),)))
    Path("naive").write_text('\n{"audit": 1, "event": "x", "ts": "2026-11-22T14:03:00"}\n')
    Path("deep").write_text('{"audit": ' + "[" * 100_000)
    Path("late").write_text('{"at": "9999-12-31T23:59:59Z", "type": "END"}')
    Path("later").write_text('{"at": 1e18, "type": "END"}')
    code, out, err = watcher(*asked)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"watcher: {problem}")


def test_a_database_of_something_else_is_left_alone(watcher: Watcher, tmp_path: Path) -> None:
    something_else(tmp_path)
    code, out, err = watcher("migrate", WATCHER_STORE__URL=f"sqlite:///{tmp_path / 'file'}")
    assert (code, out) == (2, "")
    assert err.endswith("file is another program's database: it has a table other\n")
    assert b"deliveries" not in (tmp_path / "file").read_bytes()


def test_history_without_a_store_says_so(watcher: Watcher) -> None:
    """Rather than leaving an empty one behind in the wrong folder."""
    assert watcher("history") == (2, "", "watcher: there is no store at watcher.db\n")
    assert list(Path().iterdir()) == []


def test_replay_prints_what_would_be_sent(watcher: Watcher) -> None:
    lines = [
        {"at": 0, "type": "LIST", "items": [HEALTHY]},
        {"at": 10, "type": "MODIFIED", "object": HEALTHY | {"status": DEGRADED["status"]}},
        {"at": 200, "type": "END"},
    ]
    text = "\n".join(msgspec.json.encode(line).decode() for line in lines)
    code, out, err = watcher("replay", "-", "-o", "json", stdin=text)
    assert (code, err) == (0, "")
    (told,) = [json.loads(line) for line in out.splitlines()]
    assert (told["at"], told["event"], told["deployment"]) == (70.0, "degraded", "web")
    code, out, _ = watcher("replay", "-", stdin=text)
    assert out == "+70.0 s  degraded  shop/web  below_minimum  warning\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param('{"at"', "Input data was truncated", id="cut off"),
        pytest.param('{"at": 1, "type": "ADDED"}', "`object` is missing: the Deployment, as `kubectl",
                     id="no object"),
        pytest.param('{"at": 1, "type": "END", "object": {}}', "unknown key object; known here are at, type",
                     id="a key of another type"),
        pytest.param('{"at": 1, "typ": "END"}', "unknown type None", id="a misspelt key"),
        pytest.param('{"type": "END"}', "`at` is missing: when, in seconds", id="no time"),
    ],
)  # fmt: skip
def test_replay_names_the_line_that_is_wrong(watcher: Watcher, line: str, words: str) -> None:
    """With its file, as every tool does, and with what should be there."""
    text = f'{{"at": 0, "type": "LIST", "items": []}}\n{line}'
    Path("t.jsonl").write_text(text)
    code, out, err = watcher("replay", "t.jsonl")
    assert (code, out) == (2, "")
    assert err.startswith(f"watcher: t.jsonl:2: {words}")
    assert err.count("\n") == 1
    assert watcher("replay", "-", stdin=text)[2].startswith("watcher: stdin:2: ")


def test_replay_says_when_nothing_would_be_sent(watcher: Watcher) -> None:
    text = '{"at": 0, "type": "LIST", "items": []}'
    assert watcher("replay", "-", stdin=text) == (0, "nothing would be sent\n", "")
    assert watcher("replay", "-", stdin="") == (0, "nothing would be sent\n", "")
    assert watcher("replay", "-", "-o", "json", stdin=text) == (0, "", "nothing would be sent\n")
    assert "unknown key holds" in watcher("replay", "-", stdin='{"holds": {}}')[2]


def test_test_notify_tells_how_each_sink_took_it(watcher: Watcher) -> None:
    """Row 79: a marked test for each sink, with its result and latency; the exit code says it."""
    sinks = (
        '[{"name": "log", "type": "console"},'
        '{"name": "hook", "type": "webhook", "url": "http://127.0.0.1:9/s3cr3t"}]'
    )
    code, out, err = watcher("test-notify", WATCHER_SINKS=sinks)
    assert (code, err) == (1, "")
    results = [line.split() for line in out.splitlines() if line.startswith(("log ", "hook "))]
    assert [(words[0], words[1]) for words in results] == [("log", "ok"), ("hook", "failed")]
    assert "s3cr3t" not in out
    assert watcher("test-notify", "log")[0] == 0


def test_test_notify_knows_its_sinks(watcher: Watcher) -> None:
    told = watcher("test-notify", "pager")
    assert told == (2, "", "watcher: no sink is called 'pager'; there are: console\n")


def test_an_unknown_flag_is_a_usage_error(watcher: Watcher) -> None:
    code, out, err = watcher("check", "--bogus")
    assert (code, out) == (2, "")
    assert "No such option" in err


def test_a_reader_who_leaves_is_no_error(tmp_path: Path) -> None:
    """As with `watcher check … | head -1`."""
    (tmp_path / "big.json").write_text(listed(*[HEALTHY] * 2_000))
    script = f"{sys.executable} -m watcher check -f big.json | head -1"
    env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["/bin/sh", "-c", script], cwd=tmp_path, env=env, capture_output=True, check=True
    )
    assert done.stdout.startswith(b"NAMESPACE")
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("to", "code", "said"),
    [
        pytest.param("| true; exit ${PIPESTATUS[0]}", 141, b"", id="nobody"),
        pytest.param("> /dev/full", 2, b"watcher: standard output: No space left on device\n", id="a full disk"),
        pytest.param(">&-", 0, b"", id="a closed file"),
        pytest.param("2>&-", 0, b"", id="and errors to a closed file"),
    ],
)  # fmt: skip
def test_an_answer_that_was_not_taken_is_not_taken_for_one(
    tmp_path: Path, to: str, code: int, said: bytes
) -> None:
    """Exit code 1 would say that some are degraded."""
    (tmp_path / "big.json").write_text(listed(*[HEALTHY] * 2_000))
    env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": os.environ["PATH"]}
    script = f"{sys.executable} -m watcher check -f big.json {to}"
    done = subprocess.run(
        ["/bin/bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, said)


def test_a_lone_surrogate_is_no_reason_for_no_answer(watcher: Watcher) -> None:
    Path("file").write_text(listed(deployment("shop", "x\ud800", 3, 3)))
    code, out, err = watcher("check", "-f", "file", "-o", "json")
    assert (code, err) == (0, "")
    assert json.loads(out)["deployments"][0]["name"] == "x\ud800"


def test_help_is_quick() -> None:
    """It loads neither the client of the cluster, nor the store, nor the web."""
    script = (
        "import sys; sys.argv=['watcher', '--help']; from watcher.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*{'aiohttp', 'sqlalchemy', 'kubernetes', 'pydantic', 'slack_sdk'} & sys.modules.keys())"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == b""
