"""Lists: complete, consistent and believed only when they are (watch.md W1-W7)."""

import gzip

import pytest

from tests.integration.conftest import asked, opened, spacing
from watcher.errors import Protocol, Unreachable
from watcher.ports import Broken, Listed
from watcher.testing.apiserver import Fault
from watcher.testing.objects import deployment


@pytest.fixture
def three_pages(server, watch):
    """Starts a watch of five Deployments, two in a page."""
    for name in "de":
        server.apply(deployment("shop", name))
    return lambda: watch(timings={"page": 2})


async def test_follows_continue_without_a_version(server, three_pages):
    """W1: a list asks for no version, and a continued page for nothing but its token."""
    watched = await three_pages()
    assert len((await watched.until(Listed)).snapshots) == 5
    first, *pages = asked(server, "list", "page")
    assert first.query == {"limit": "2"}
    assert [set(page.query) for page in pages] == [{"limit", "continue"}] * 2


async def test_a_page_has_500(server, watch):
    """W1: what a big cluster is asked for."""
    await opened(await watch())
    assert asked(server, "list")[0].query == {"limit": "500"}


async def test_a_token_that_expired_discards_all_pages(server, three_pages):
    """W2, F10: 410 on page 2 makes one list in one piece, and nothing of page 1 is believed."""
    server.faults.append(Fault("page", 410))
    watched = await three_pages()
    assert len((await watched.until(Listed)).snapshots) == 5
    assert [seen.query for seen in asked(server, "list", "page")][-1] == {}
    assert len(watched.all(Listed)) == 1


async def test_half_a_list_is_no_list(server, three_pages):
    """W3, F11: a connection cut after page 1 shows nothing; the retry shows all at once."""
    server.faults.append(Fault("page", cut=1000))
    watched = await three_pages()
    broken = await watched.until(Broken)
    assert isinstance(broken.error, Unreachable)
    assert watched.all(Listed) == []
    assert len((await watched.until(Listed)).snapshots) == 5


async def test_a_list_has_who_replaced_whom(server, watch):
    """W4, F24: a Deployment recreated while we were blind is listed under its new uid."""
    watched = await opened(await watch())
    before = watched.state["a"].uid
    await server.stop()
    server.delete("shop", "a")
    server.apply(deployment("shop", "a"))
    server.compact()
    await server.start()
    relist = await watched.until(Listed)
    assert before not in {s.uid for s in relist.snapshots}
    assert {s.name for s in relist.snapshots} == {"a", "b", "c"}


async def test_a_relist_repeats_uid_and_version(server, watch):
    """W5: what has not changed is listed with the version it had, so it can be told apart."""
    watched = await opened(await watch())
    before = watched.state
    server.compact()
    server.faults.append(Fault("watch", 410))
    server.end_streams()
    await watched.until(Listed)
    assert watched.state == before


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b'{"kind":"Status","status":"Success"}', id="a Status"),
        pytest.param(b'{"kind":"DeploymentList","metadata":{"resourceVersion":"9"}}', id="cut"),
        pytest.param(
            b'{"kind":"DeploymentList","metadata":{},"items":[]}', id="W7: no resourceVersion"
        ),
    ],
)
async def test_an_empty_list_must_be_a_whole_one(server, watch, clock, body):
    """W6, W7: what is not plainly a complete and versioned list empties nothing and backs off."""
    watched = await opened(await watch())
    server.compact()
    server.faults += [Fault("watch", 410), Fault("list", 200, body)]
    clock.forward(10)
    server.end_streams()
    broken = await watched.until(Broken, lambda e: isinstance(e.error, Protocol))
    assert "cannot list deployments.apps at cluster scope" in str(broken.error)
    assert set((await opened(watched)).state) == set("abc")
    assert spacing(server, "list")[-1] == 1.6


async def test_a_real_empty_list_is_believed(server, watch):
    """W6: an empty list that is complete means that all are gone."""
    watched = await opened(await watch())
    await server.stop()
    for name in "abc":
        server.delete("shop", name)
    server.compact()
    await server.start()
    assert (await watched.until(Listed)).snapshots == ()


async def test_lists_compressed_and_says_who_asks(server, watch):
    """W33: gzip is asked for on lists only, and every request names us."""
    await opened(await watch())
    first, second = asked(server, "list", "watch")
    assert (first.headers["Accept-Encoding"], second.headers["Accept-Encoding"]) == (
        "gzip",
        "identity",
    )
    assert first.headers["User-Agent"].startswith("deployment-watcher/")


async def test_follows_no_redirect(server, watch):
    """W33: credentials are not carried to wherever a proxy points."""
    server.faults.append(Fault("list", 302, headers={"Location": f"{server.url}/version"}))
    watched = await watch()
    assert isinstance((await watched.until(Broken)).error, Protocol)
    assert asked(server, "version") == []


async def test_selects_by_label_and_namespace(server, watch):
    """A scope is a namespace and a selector, on lists and watches alike."""
    server.apply(deployment("shop", "mine", labels={"team": "x"}))
    server.apply(deployment("other", "elsewhere", labels={"team": "x"}))
    watched = await opened(await watch(scopes=["shop"], label_selector="team=x"))
    assert set(watched.state) == {"mine"}
    assert {seen.query["labelSelector"] for seen in asked(server, "list", "watch")} == {"team=x"}
    assert {seen.path for seen in server.requests} == {"/apis/apps/v1/namespaces/shop/deployments"}


async def test_a_list_without_end_is_refused(server, watch):
    """A page is bounded by what it unpacks to."""
    bomb = gzip.compress(b" " * (1 << 20))
    server.faults.append(Fault("list", 200, bomb, headers={"Content-Encoding": "gzip"}))
    watched = await watch(timings={"list_bytes": 1 << 19})
    error = (await watched.until(Broken)).error
    assert isinstance(error, Protocol)
    assert "does not end" in str(error)
    await watched.until(Listed)
