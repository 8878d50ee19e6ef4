"""SQLite's side of the store: its file, its lock, its schema, and what it says when it cannot."""

import asyncio
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from tests.deliveries import NOW, event, told
from watcher.core.model import Subject
from watcher.core.phases import Steady
from watcher.errors import StoreError
from watcher.ports import Record, Saved
from watcher.stores.database import migrate, open_store
from watcher.stores.schema import REVISION, metadata
from watcher.stores.sql import SqlStore

HOLD = """
import sys
from watcher.stores.database import open_store
store = open_store(sys.argv[1], exclusive=True)
print("held", flush=True)
sys.stdin.read()
"""
MIGRATE = "import sys; from watcher.stores.database import migrate; print(migrate(sys.argv[1]))"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "watcher.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def opened(url: str, exclusive: bool = False) -> SqlStore:
    return open_store(url, exclusive=exclusive)


async def test_only_the_owner_may_read_the_file(url: str, path: Path) -> None:
    """Names of all that runs are nobody else's business."""
    store = opened(url, exclusive=True)
    await store.ping()
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    assert modes == dict.fromkeys(
        ["watcher.db", "watcher.db-wal", "watcher.db-shm", "watcher.db.lock"], 0o600
    )
    await store.close()


async def test_a_commit_survives_the_power(url: str) -> None:
    """Each commit is on disk when it returns, and readers do not wait for it."""
    store = opened(url)
    with store.engine.connect() as db:
        pragmas = {
            name: db.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
    }
    await store.close()


async def test_a_second_run_is_refused(url: str, path: Path) -> None:
    """Row 31: two processes would send everything twice; the second is told who holds the file."""
    child = subprocess.Popen(  # noqa: ASYNC220 - it lives as long as the test
        [sys.executable, "-c", HOLD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(StoreError) as refused:
            opened(url, exclusive=True)
        assert str(path) in str(refused.value)
        assert f"pid {child.pid} " in str(refused.value)
        beside = opened(url)
        assert await beside.history() == []
        await beside.close()
        child.kill()
    again = opened(url, exclusive=True)
    await again.close()
    once_more = opened(url, exclusive=True)
    await once_more.close()


def test_two_migrations_at_once(url: str) -> None:
    """Started together, one migrates and the others find it done."""
    command = [sys.executable, "-c", MIGRATE, url]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(3)
    ]
    answers = sorted(child.communicate(timeout=50)[0].strip() for child in children)
    done = f"('{REVISION:04}', '{REVISION:04}')"
    assert answers == [done, done, f"(None, '{REVISION:04}')"]


def test_migrations_make_the_schema(url: str, path: Path) -> None:
    """What the migrations build is what the code expects, and the newest is the one it names."""
    assert migrate(url) == (None, f"{REVISION:04}")
    assert migrate(url) == (f"{REVISION:04}", f"{REVISION:04}")
    engine = create_engine(url)
    with engine.connect() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", "watcher.stores:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [f"{REVISION:04}"]
    with closing(sqlite3.connect(path)) as db:
        built = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL"
        migrated = dict(db.execute(built))
    with closing(sqlite3.connect(":memory:")) as memory:
        fresh = create_engine("sqlite://", creator=lambda: memory)
        metadata.create_all(fresh)
        assert dict(memory.execute(built)) == migrated, "partial indexes too"


@pytest.mark.parametrize("found", [f"{REVISION + 2:04}", "9999", "f00ba4"])
def test_a_newer_schema_is_refused(url: str, path: Path, found: str) -> None:
    """Row 75: a version that does not know the schema does not touch it, and says which it found."""
    _pretend(url, path, found)
    with pytest.raises(StoreError, match=rf"{found}.*{REVISION:04}"):
        opened(url)
    with pytest.raises(StoreError, match=rf"{found}.*{REVISION:04}"):
        migrate(url)


async def test_the_next_schema_is_one_we_can_run_on(url: str, path: Path) -> None:
    """Row 75: a step only expands, so that an upgrade can be taken back."""
    _pretend(url, path, f"{REVISION + 1:04}")
    store = opened(url)
    await store.record(told(event(1)), NOW)
    await store.close()


def _pretend(url: str, path: Path, revision: str) -> None:
    migrate(url)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = ?", [revision])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(
            lambda at: f"sqlite:///{at}/no/watcher.db", "no directory .*/no", id="directory"
        ),
        pytest.param(
            lambda at: f"sqlite:///{at}", "Is a directory|unable to open", id="not a file"
        ),
        pytest.param(
            lambda at: f"sqlite:///{at}/text", "text: .*not a database", id="not a database"
        ),
        pytest.param(lambda _: "sqlite://", "must be a file", id="memory"),
        pytest.param(lambda _: "://secret", "cannot be read", id="not a URL"),
        pytest.param(lambda _: "mysql://me:secret@db/x", "no store for 'mysql'", id="unknown"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, make: Callable[[Path], str], said: str) -> None:
    """The message names what to mend, and no password."""
    (tmp_path / "text").write_text("not what you look for " * 100)
    with pytest.raises(StoreError, match=said) as refused:
        opened(make(tmp_path), exclusive=False)
    assert "secret" not in str(refused.value)


async def test_relative_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes are relative to where the process was started."""
    monkeypatch.chdir(tmp_path)
    store = opened("sqlite:///here.db", exclusive=True)
    await store.close()
    assert (tmp_path / "here.db").exists()


def test_a_link_is_no_second_store(url: str, path: Path) -> None:
    """Whatever name a process knows the file by, it is one file and has one writer."""
    link = path.parent / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    store = opened(url, exclusive=True)
    with pytest.raises(StoreError, match="in use by another"):
        opened(f"sqlite:///{link}", exclusive=True)
    asyncio.run(store.close())


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock"], ids=["file", "log", "lock"])
async def test_a_file_that_is_gone_is_noticed(url: str, path: Path, suffix: str) -> None:
    """Nothing is written where nobody will find it; put back, it goes on as if nothing had been."""
    store = opened(url, exclusive=True)
    await store.record(told(event(1)), NOW)
    file = path.with_name(path.name + suffix)
    file.rename(path.parent / "aside")
    for _ in ("gone", "another in its place"):
        for refused in (store.ping(), store.record(told(event(2)), NOW), store.renew()):
            with pytest.raises(StoreError, match=f"{file.name} was deleted or replaced"):
                await refused
        file.touch()
    (path.parent / "aside").replace(file)
    await store.ping()
    await store.record(told(event(2)), NOW)
    assert len(await store.claim("hook", NOW, 9)) == 2
    await store.close()


def killed_after_a_commit(url: str) -> None:
    """Leaves what a process leaves that was killed."""
    script = (
        "import asyncio, os, sys; from tests.deliveries import *; "
        "from watcher.stores.database import open_store\n"
        "async def main():\n"
        "    store = open_store(sys.argv[1], exclusive=True)\n"
        "    await store.record(told(event(1)), NOW)\n"
        "    await store.claim('hook', NOW, 1)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())"
    )
    assert subprocess.run([sys.executable, "-c", script, url], check=False).returncode == -9


def test_a_damaged_file_is_refused(url: str, path: Path) -> None:
    """Row 30: with what to do in one line; the file is left as it is, and no empty one takes its place."""
    killed_after_a_commit(url)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint")
        content = bytearray(path.read_bytes())
        content[4096 * 3 : 4096 * 5] = b"\xff" * 8192
    path.write_bytes(content)
    path.with_name(f"{path.name}-wal").write_bytes(b"left over")
    with pytest.raises(StoreError, match=r"is damaged \(.*\): put a copy back, or move it away"):
        opened(url, exclusive=True)
    assert path.read_bytes() == content


def test_a_lost_file_is_not_replaced_by_an_empty_one(url: str, path: Path) -> None:
    """Row 30: if its log is still there, something was lost that nobody meant to lose."""
    killed_after_a_commit(url)
    path.unlink()
    with pytest.raises(StoreError, match=r"is gone and watcher\.db-wal is still there"):
        opened(url, exclusive=True)


READ_ONLY = """
import os, sys
from watcher.errors import StoreError
from watcher.stores.database import open_store
if not os.getuid():
    os.setuid(65534)
try:
    open_store(sys.argv[1], exclusive=True)
except StoreError as error:
    print(error)
"""


def test_a_volume_that_is_read_only_is_refused() -> None:
    """Row 30: with the name of the file; no store that forgets everything takes its place."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "watcher.db")
        asyncio.run(opened(f"sqlite:///{path}", exclusive=True).close())
        for each, mode in ((path, 0o444), (Path(f"{path}.lock"), 0o444), (path.parent, 0o555)):
            each.chmod(mode)
        command = [sys.executable, "-c", READ_ONLY, f"sqlite:///{path}"]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        path.parent.chmod(0o755)
    assert said == f"{path}.lock: Permission denied\n"


def test_a_new_store_is_known_as_one(url: str) -> None:
    """An empty record where there should be one can be told from the one that was there."""
    for expected in (True, False):
        store = opened(url, exclusive=True)
        assert store.empty is expected
        asyncio.run(store.close())


async def test_a_full_disk(url: str) -> None:
    """Row 29: what does not fit is not there, the store says so, and works again once there is room."""
    store = opened(url)
    await store.record(told(event(1)), NOW)
    _limit_pages(store, 60)
    big = Saved(Subject("prod", "shop", "x" * 500_000, "uid"), Steady())
    with pytest.raises(StoreError, match="full"):
        await store.record(Record(saved=(big,), events=(event(2),)), NOW)
    assert await store.load("prod") == []
    assert len(await store.history()) == 1
    _limit_pages(store, 10_000)
    await store.record(Record(saved=(big,)), NOW)
    assert await store.load("prod") == [big]
    await store.close()


def _limit_pages(store: SqlStore, pages: int) -> None:
    """On the connection that writes, which it keeps as long as nothing goes wrong with it."""
    db = store._connections.setdefault(store._writes, store._writes.connect())
    file = db.connection.dbapi_connection
    assert file is not None
    file.cursor().execute(f"PRAGMA max_page_count = {pages}")


async def test_a_locked_database(url: str, path: Path) -> None:
    """Another program's lock is an error in the end, and no wait for ever; afterwards all is well."""
    store = opened(url)
    with store.engine.connect() as db:
        db.exec_driver_sql("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(path, isolation_level=None)) as rival:
        rival.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            await store.ping()
        assert await store.history() == [], "readers do not mind"
    await store.ping()
    await store.close()


async def test_errors_hold_no_values(url: str, path: Path) -> None:
    """An error's text, its causes included, repeats nothing of what was to be written."""
    store = opened(url)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE clusters")
    with pytest.raises(StoreError) as failed:
        await store.mark_seen("a-secret", NOW)
    error: BaseException | None = failed.value
    while error:
        assert "a-secret" not in str(error)
        error = error.__cause__
    await store.close()


async def test_a_killed_process_leaves_what_it_committed(url: str) -> None:
    """The file of a process that was killed opens clean, with all that had been committed."""
    killed_after_a_commit(url)
    store = opened(url, exclusive=True)
    assert await store.reclaim("hook", NOW) == 1
    (claimed,) = await store.claim("hook", NOW, 1)
    assert (claimed.event, claimed.ambiguous) == (event(1), True)
    await store.close()


async def test_damaged_text_and_times(url: str, path: Path) -> None:
    """Bytes that are no text, and a time that is none, cost one row at most."""
    store = opened(url)
    for number in (1, 2, 3):
        await store.record(told(event(number)), NOW)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE deliveries SET due = 'soon' WHERE event = ?", [event(1).id])
        db.execute("UPDATE events SET body = CAST(x'ff' AS TEXT) WHERE id = ?", [event(2).id])
    assert [claimed.event for claimed in await store.claim("hook", NOW, 9)] == [event(3)]
    assert await store.next_due("hook") is None
    await store.reclaim("hook", NOW, [event(3).incident])
    assert await store.next_due("hook") == NOW + timedelta(hours=1)
    await store.close()
