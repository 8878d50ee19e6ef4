"""What stands between: proxies that cut quiet watches off, or hold back what they show."""

from tests.faults.warp import warped
from tests.faults.world import World, world
from watcher.testing.apiserver import Fault


async def starts_behind(w: World) -> None:
    """Let every connection from now on be one through what stands between."""
    w.proxy.reset()
    await w.pass_time(1)


async def in_sight(w: World, seconds: int) -> float:
    """The share of this time in which the watcher was in sight, asked each second."""
    seen = 0
    for _ in range(seconds):
        await w.pass_time(1)
        seen += (await w.get("/health/deployments"))["status"] != "unknown"
    return seen / seconds


async def stream(w: World) -> dict[str, object]:
    [about] = (await w.get("/health/apiserver"))["streams"]
    found: dict[str, object] = about
    return found


@warped
async def test_idle_cuts_blind_nobody(tmp_path):
    """haproxy as the kubeadm guide sets it: after two cuts there is none, and never a list."""
    async with world(tmp_path) as w:
        w.proxy.cut_idle = 35
        await starts_behind(w)
        assert await in_sight(w, 600) > 0.97
        about = await stream(w)
        assert (about["shortened_by"], about["timeout_seconds"]) == ("cut", 26)
        assert about["breaks"] == {"unreachable": 1, "cut": 2, "ended": 20}
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(35)
        assert w.told == ["degraded a"]
        assert len(w.lists()) == 1


@warped
async def test_idle_cuts_do_not_age_the_version(tmp_path):
    """Orderly ends bring bookmarks, so a busy cluster that forgets fast makes no list of a quiet scope."""
    async with world(tmp_path, cluster={"namespaces": ["quiet"]}) as w:
        w.proxy.cut_idle = 35
        await starts_behind(w)
        for _ in range(20):
            await w.pass_time(30)
            w.server.set_ready("shop", "a", 3)
        w.server.compact()
        w.server.bookmark()
        await w.pass_time(60)
        assert len(w.lists()) == 1


@warped
async def test_the_operator_is_told_once_of_cuts(tmp_path, capfd):
    """One line in the log, whatever it tries later; /health/apiserver says it as long as it is so."""
    async with world(tmp_path) as w:
        w.proxy.cut_idle = 50
        await starts_behind(w)
        await w.pass_time(4 * 3600)
        about = await stream(w)
        assert "after 50 s, so each is asked for 37 s" in str(about["obstacle"])
        assert w.told == []
        w.proxy.cut_idle = None
        await starts_behind(w)
        await w.pass_time(20 * 3600)
        assert ((await stream(w))["shortened_by"], w.told) == (None, [])
    assert "".join(capfd.readouterr()).count("watch.obstructed") == 1


@warped
async def test_withheld_answers_are_replaced(tmp_path):
    """nginx with TLS and its defaults: an outage is told though no watch shows it, and nothing else is."""
    async with world(tmp_path) as w:
        w.proxy.hold_back = True
        await starts_behind(w)
        await w.pass_time(9)
        w.server.set_ready("shop", "a", 0)
        assert await w.until(lambda: "degraded a" in w.told, within=95) < 95
        about = await stream(w)
        assert (about["shortened_by"], about["timeout_seconds"]) == ("withheld", 25)
        assert "proxy_buffering off" in str(about["obstacle"])
        lists = len(w.lists())
        assert await in_sight(w, 900) == 1
        w.server.set_ready("shop", "a", 3)
        await w.until(lambda: "recovered a" in w.told, within=60 + 27)
        w.server.set_ready("shop", "b", 0)
        await w.until(lambda: "degraded b" in w.told, within=30 + 27)
        assert w.told == ["degraded a", "recovered a", "degraded b"]
        assert len(w.lists()) == lists == 2, "once the first watch has brought headers"


@warped
async def test_a_view_that_is_held_back_says_its_age(tmp_path):
    """`as_of` is when something was shown last, not now."""
    async with world(tmp_path) as w:
        w.proxy.hold_back = True
        await starts_behind(w)
        await w.pass_time(120)
        ages = []
        for _ in range(60):
            await w.pass_time(1)
            as_of = w.process.view.clusters["prod"].as_of(w.clock.now())
            assert as_of is not None
            ages.append((w.clock.now() - as_of).total_seconds())
        assert 20 < max(ages) < 27


@warped
async def test_an_outage_behind_withheld_answers_ends_at_once(tmp_path):
    """`unreachable` does not stand longer than the server is away, since a list shows it all again."""
    async with world(tmp_path) as w:
        w.proxy.hold_back = True
        await starts_behind(w)
        await w.pass_time(200)
        await w.server.stop()
        await w.until(lambda: w.told == ["unreachable"], within=90)
        await w.pass_time(60)
        await w.server.start()
        await w.until(lambda: w.told == ["unreachable", "restored"], within=30)
        await w.pass_time(600)
        assert w.told == ["unreachable", "restored"]


@warped
async def test_a_proxy_that_never_shows_a_watch_is_polled(tmp_path):
    """It is listed before each further watch: never out of sight, and no more than needed for that."""
    async with world(tmp_path) as w:
        w.server.faults += [Fault("watch", mute=True, lasts=True)]
        w.server.reset_connections()
        await w.pass_time(120)
        before = len(w.lists())
        assert await in_sight(w, 700) == 1
        assert 19 <= len(w.lists()) - before <= 21
        w.server.set_ready("shop", "a", 0)
        await w.until(lambda: w.told == ["degraded a"], within=30 + 37)
