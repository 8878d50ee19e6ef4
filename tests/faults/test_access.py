"""Tokens, rights and certificates change or end while the process runs (watch.md §5)."""

import json
import sys
from pathlib import Path

import pytest

from tests.faults.warp import warped
from tests.faults.world import World, headline, world
from watcher.testing.objects import deployment


def user(w: World, **fields: object) -> None:
    """Rewrite the kubeconfig with this user."""
    path = w.folder / "kubeconfig"
    written = json.loads(path.read_text())
    written["users"][0]["user"] = fields
    path.write_text(json.dumps(written))


async def with_token(w: World) -> None:
    """From now on a token is asked for, and it is in a file."""
    token = w.folder / "token"
    token.write_text("one")
    user(w, tokenFile=str(token))
    w.server.token = "one"
    w.server.reset_connections()
    await w.pass_time(10)


@warped
async def test_f27(tmp_path):
    """F27: a rotated token is used at once; the old one is not even tried again."""
    async with world(tmp_path) as w:
        await with_token(w)
        before = w.seconds
        for number in range(5):
            (tmp_path / "token").write_text(f"token-{number}")
            w.server.token = f"token-{number}"
            w.server.reset_connections()
            await w.pass_time(130)
        sent = {seen.headers["Authorization"] for seen in w.asked(since=before)}
        assert sent == {f"Bearer token-{number}" for number in range(5)}
        assert w.told == []
        assert len(w.lists()) == 1


@pytest.mark.parametrize("content", ["", None], ids=["empty", "missing"])
@warped
async def test_f28(tmp_path, content):
    """F28: a token file that is empty or missing for a while changes nothing."""
    async with world(tmp_path) as w:
        await with_token(w)
        (tmp_path / "token").unlink()
        if content is not None:
            (tmp_path / "token").write_text(content)
        w.server.reset_connections()
        await w.pass_time(120)
        (tmp_path / "token").write_text("two")
        w.server.token = "two"
        w.server.reset_connections()
        await w.pass_time(120)
        assert w.told == []


@warped
async def test_f29(tmp_path):
    """F29: a revoked token is told within two minutes, with 401; nothing is closed, and it ends by itself."""
    async with world(tmp_path) as w:
        await with_token(w)
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(40)
        assert w.told == ["degraded a"]
        w.server.token = "revoked"
        w.server.reset_connections()
        await w.until(lambda: "unauthorized" in w.told, within=120)
        assert "401" in w.received[-1][1]["data"]["message"]
        w.server.delete("shop", "b")
        w.server.set_ready("shop", "a", 3)
        await w.pass_time(600)
        assert len(w.asked(since=w.seconds - 60)) <= 20
        assert w.told == ["degraded a", "unauthorized"]
        (tmp_path / "token").write_text("revoked")
        await w.pass_time(150)
        assert sorted(w.told) == ["degraded a", "recovered a", "restored", "unauthorized"]


@warped
async def test_f30(tmp_path):
    """F30: without the right to watch one message names verb and scope; nobody is paged for a Deployment."""
    async with world(tmp_path) as w:
        w.server.forbidden.add(("watch", ""))
        w.server.end_streams()
        await w.pass_time(700)
        assert w.told == ["unauthorized"]
        words = w.received[0][1]["data"]["message"]
        assert "cannot watch deployments.apps at cluster scope: 403" in words
        assert len(w.asked(since=w.seconds - 60)) <= 20
        w.server.forbidden.clear()
        await w.pass_time(60)
        assert w.told == ["unauthorized", "restored"]


@warped
async def test_f31(tmp_path):
    """F31: an API server that refuses everybody for 20 s while it starts is nothing."""
    async with world(tmp_path) as w:
        w.server.forbidden |= {("list", ""), ("watch", "")}
        w.server.reset_connections()
        await w.pass_time(20)
        w.server.forbidden.clear()
        await w.pass_time(300)
        assert w.told == []


@warped
async def test_f45(tmp_path):
    """F45: of two namespaces one is refused: told once; the other one goes on as if nothing were."""
    made = World(tmp_path)
    async with made.open():
        made.server.apply(deployment("pay", "p"))
        async with made.watcher(cluster={"namespaces": ["shop", "pay"]}):
            await made.pass_time(10)
            made.server.forbidden |= {("list", "shop"), ("watch", "shop")}
            made.server.end_streams()
            await made.pass_time(600)
            assert made.told == ["unauthorized"]
            assert "in namespace shop: 403" in made.received[0][1]["data"]["message"]
            made.server.set_ready("pay", "p", 0)
            made.server.set_ready("shop", "a", 0)
            await made.pass_time(60)
            assert made.told == ["unauthorized", "degraded p"]
            made.server.forbidden.clear()
            await made.pass_time(60)
            assert sorted(made.told) == ["degraded a", "degraded p", "restored", "unauthorized"]
            [restored] = [event for _, event in made.received if headline(event) == "restored"]
            assert "meanwhile" not in restored["data"]  # nobody has compared


@warped
async def test_f45_in_an_outage(tmp_path):
    """F45: an outage of the server freezes both namespaces, and its end only the one that is let in."""
    made = World(tmp_path)
    async with made.open():
        made.server.apply(deployment("pay", "p"))
        made.server.apply(deployment("pay", "q"))
        async with made.watcher(cluster={"namespaces": ["pay", "shop"]}):
            await made.pass_time(10)
            made.server.set_ready("shop", "b", 0)
            await made.pass_time(40)
            made.server.forbidden |= {("list", "shop"), ("watch", "shop")}
            made.server.end_streams()
            await made.pass_time(600)
            assert made.told == ["degraded b", "unauthorized"]
            await made.server.stop()
            await made.pass_time(60)
            made.server.set_ready("pay", "p", 0)
            made.server.set_ready("shop", "a", 0)
            made.server.set_ready("shop", "b", 3)
            await made.pass_time(60)
            assert made.told == ["degraded b", "unauthorized", "updated"]
            rows = {row["name"]: row["health"] for row in await made.rows()}
            assert set(rows.values()) == {"unknown"}
            await made.server.start()
            await made.until(lambda: "degraded p" in made.told, within=360)  # as 403s may last
            rows = {row["name"]: row["health"] for row in await made.rows()}
            assert rows == {
                "a": "unknown",
                "b": "unknown",
                "c": "unknown",
                "p": "degraded",
                "q": "healthy",
            }
            status = await made.get("/health/deployments?namespace=pay")
            assert status["status"] == "degraded"
            assert (await made.get("/health/deployments"))["status"] == "unknown"
            assert "degraded a" not in made.told
            assert "recovered b" not in made.told
            made.server.forbidden.clear()
            await made.pass_time(120)
            told = [line for line in made.told if line != "updated"]
            assert sorted(told) == [
                "degraded a", "degraded b", "degraded p", "recovered b", "restored", "unauthorized",
            ]  # fmt: skip


PLUGINS = {
    "fails": (
        "sys.stderr.write('please log in\\nand more'); sys.exit(1)",
        "exit code 1: please log in",
    ),
    "prints junk": ("print('token: s3cret-token')", "what it printed is no ExecCredential"),
    "hangs": ("import time; time.sleep(60)", "no answer in 30 s"),
}


async def told_of_plugin(folder: Path, body: str) -> World:
    """The world after a process with this plugin has told of it."""
    made = World(folder)
    script = folder / "plugin.py"
    script.write_text(f"import sys\n{body}\n")
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(script)],
    }
    async with made.open():
        hasty = {"HEARTBEAT__UNAUTHORIZED_FOR": "0s", "HEARTBEAT__INTERVAL": "200ms"}
        async with made.watcher(user={"exec": plugin}, **hasty):
            await made.until(lambda: bool(made.told), within=60)
            shown = await made.get("/health/apiserver")
    assert shown["error"] == made.received[0][1]["data"]["message"]
    return made


@pytest.mark.parametrize("how", ["fails", "prints junk"])
async def test_f32(tmp_path, how, capfd):
    """F32: an exec plugin that gives no token is told once, with its first complaint and no secret."""
    body, says = PLUGINS[how]
    made = await told_of_plugin(tmp_path, body)
    assert made.told == ["unauthorized"]
    assert says in made.received[0][1]["data"]["message"]
    assert made.server.requests == []
    assert "s3cret" not in str(made.received) + "".join(capfd.readouterr())


@warped
async def test_f32_hangs(tmp_path):
    """F32: an exec plugin that hangs is ended after 30 s, and told."""
    body, says = PLUGINS["hangs"]
    made = await told_of_plugin(tmp_path, body)
    assert made.told == ["unauthorized"]
    assert says in made.received[0][1]["data"]["message"]
