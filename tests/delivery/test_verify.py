"""`watcher audit verify`: a record that the program wrote adds up, and no damage to it goes unseen."""

import asyncio
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.deliveries import event, told
from tests.delivery.rig import Recording, rig
from tests.postgres import Postgres
from watcher.cli import main
from watcher.clock import SystemClock
from watcher.core.delivery import Outcome
from watcher.core.ledger import Finding, Verification
from watcher.errors import SinkError
from watcher.stores.database import migrate, open_store, reading
from watcher.stores.ledger import followed, kept
from watcher.testing.clock import ManualClock

BEGAN = SystemClock().wall() - timedelta(hours=1)
NOW = BEGAN + timedelta(hours=1)
SINCE = BEGAN - timedelta(days=90)


class Refusing(Recording):
    """Takes nothing of the Deployment `odd`, ever."""

    async def send(self, notification: Any) -> Any:  # noqa: ANN401
        if notification.event.subject.name == "odd":
            raise SinkError("http_400", Outcome.BAD_PAYLOAD, detail="no")
        return await super().send(notification)


async def live(folder: Path) -> None:
    """An hour with all that can happen: ends, edits, a storm, what is given up, what is still open."""
    sinks = (Refusing("hook"), Recording("chat", chat=True, threads=True))
    async with rig(folder, *sinks, clock=ManualClock(BEGAN)) as it:
        await it.opens("web", "odd", "down")
        await it.passes(5)
        await it.changes("web", message="2 of 3")
        await it.changes("web", message="1 of 3")
        await it.ends("web", "odd")
        await it.passes(60)
        await it.opens("a", "b", "c", storm=True)
        await it.passes(30)
        await it.ends("a", "b")
        await it.passes(600)
        (folder / "audit.jsonl").write_text(it.log)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    asyncio.run(live(folder))
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "record"))


def verify(folder: Path) -> list[Finding]:
    with reading(f"sqlite:///{folder / 'watcher.db'}") as (db, alive):
        check = Verification(followed(db), NOW, SINCE, alive=alive)
        return list(check.verify(kept(db)))


def test_what_the_program_wrote_adds_up(folder: Path) -> None:
    """Superseded edits, a digest with ended and open members, dead letters and all."""
    assert verify(folder) == []
    with closing(sqlite3.connect(folder / "watcher.db")) as db:
        found = {state for (state,) in db.execute("SELECT DISTINCT state FROM deliveries")}
    assert found == {"delivered", "superseded", "grouped", "dead"}


OF = "(SELECT id FROM incidents WHERE name = '{}')"
WEB, ODD, DOWN, A = (OF.format(name) for name in ("web", "odd", "down", "a"))
DIGEST = "(SELECT id FROM incidents WHERE uid LIKE 'digest/%')"
ONE = "id = (SELECT min(id) FROM deliveries WHERE state = '{}')"


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        pytest.param(
            f"DELETE FROM deliveries WHERE incident = {WEB} AND sequence = 4 AND sink = 'chat'",
            r"chat: was told the opening, and event 4 \(recovered\) is not on record",
            id="an end that was not told",
        ),
        pytest.param(
            "UPDATE deliveries SET state = 'suppressed', reason = 'silenced'"
            f" WHERE incident = {WEB} AND sequence = 4 AND sink = 'hook'",
            r"hook: was told the opening, and event 4 \(recovered\) was suppressed \(silenced\)",
            id="an end that was held back",
        ),
        pytest.param(
            f"DELETE FROM deliveries WHERE incident = {DOWN}",
            r"event 1 \(degraded\) was told to nobody, without a reason",
            id="an opening that nobody was told",
        ),
        pytest.param(
            f"DELETE FROM deliveries WHERE incident = {WEB} AND sequence = 1 AND sink = 'hook'",
            r"hook: is told event 2 \(updated\), and its opening is not on record as told",
            id="an opening that one sink was told",
        ),
        pytest.param(
            f"DELETE FROM deliveries WHERE incident = {WEB} AND sequence = 4 AND part = 'reply'",
            r"chat: of event 4 \(recovered\) only the edit is on record",
            id="half of what a chat was told",
        ),
        pytest.param(
            f"UPDATE deliveries SET sink = 'else' WHERE incident = {WEB} AND sequence = 1"
            " AND sink = 'hook'",
            "is not what its id says",
            id="a delivery under another sink",
        ),
        pytest.param(
            f"UPDATE deliveries SET sequence = 3 WHERE incident = {WEB} AND sequence = 2",
            "is not what its id says",
            id="a delivery at another place",
        ),
        pytest.param(
            "UPDATE events SET body = replace(body, 'web', 'api') WHERE sequence = 2"
            f" AND incident = {WEB}",
            "event 2 is missing",
            id="an event of another subject",
        ),
        pytest.param(
            f"UPDATE events SET sequence = 7 WHERE incident = {WEB} AND sequence = 4",
            "event 4 is missing",
            id="an event at another place",
        ),
        pytest.param(
            f"UPDATE incidents SET ended_at = '2020-01-01 00:00:00.000000' WHERE id = {WEB}",
            "is marked as ended at 2020-01-01",
            id="an end long ago, as if it were about to be forgotten",
        ),
        pytest.param(
            f"UPDATE deliveries SET first_attempt_at = NULL WHERE {ONE.format('delivered')}",
            "is delivered and was never tried",
            id="delivered by nobody",
        ),
        pytest.param(
            f"DELETE FROM events WHERE incident = {WEB} AND sequence = 2",
            "event 2 is missing",
            id="a gap in the sequence",
        ),
        pytest.param(
            f"DELETE FROM events WHERE incident = {WEB} AND sequence = 2",
            "or its event cannot be read, or is not what its id says",
            id="a delivery without its event",
        ),
        pytest.param(
            f"UPDATE events SET body = 'x' WHERE incident = {WEB} AND sequence = 2",
            "event 2 is missing",
            id="an event that cannot be read",
        ),
        pytest.param(
            f"UPDATE deliveries SET part = 'x' WHERE incident = {WEB} AND sequence = 2",
            "or its event cannot be read, or is not what its id says",
            id="a delivery that cannot be read",
        ),
        pytest.param(
            "UPDATE phases SET body = 'x' WHERE uid = 'uid-down'",
            "is open, and nothing follows it",
            id="a phase that cannot be read",
        ),
        pytest.param(
            f"DELETE FROM events WHERE incident = {WEB} AND sequence = 4",
            "stands at event 4, and the newest on record is 3",
            id="the end is gone",
        ),
        pytest.param(
            f"DELETE FROM events WHERE incident = {DOWN}",
            "has no event on record",
            id="all events are gone",
        ),
        pytest.param(
            f"DELETE FROM incidents WHERE id = {WEB}",
            "has no event on record",
            id="the incident is gone",
        ),
        pytest.param(
            f"UPDATE events SET body = replace(body, '\"degraded\"', '\"updated\"')"
            f" WHERE incident = {WEB} AND sequence = 1",
            "begins with updated",
            id="it begins with something else",
        ),
        pytest.param(
            'UPDATE events SET body = replace(body, \'"edge":"updated\', \'"edge":"recovered\')'
            f" WHERE incident = {WEB} AND sequence = 2",
            "goes on after its end in event 2",
            id="something after the end",
        ),
        pytest.param(
            f"UPDATE incidents SET ended_at = NULL WHERE id = {WEB}",
            "is marked as open, and its newest event is recovered",
            id="an end that is not marked",
        ),
        pytest.param(
            "DELETE FROM phases WHERE uid = 'uid-down'",
            "is open, and nothing follows it",
            id="an open incident that nobody will end",
        ),
        pytest.param(
            "UPDATE phases SET body = replace(body,"
            f" {DOWN}, '00000000-0000-7000-8000-000000000000') WHERE uid = 'uid-down'",
            "is followed as open, and is not on record",
            id="a phase without its incident",
        ),
        pytest.param(
            f"UPDATE incidents SET ended_at = opened_at WHERE id = {DOWN}",
            "has ended, and is followed as open",
            id="an end that its phase knows nothing of",
        ),
        pytest.param(
            f"UPDATE deliveries SET state = 'pending' WHERE {ONE.format('delivered')}",
            "is pending and settled",
            id="neither settled nor due",
        ),
        pytest.param(
            f"UPDATE deliveries SET settled_at = NULL WHERE {ONE.format('delivered')}",
            "is delivered and not settled",
            id="final and not settled",
        ),
        pytest.param(
            "UPDATE deliveries SET state = 'pending', settled_at = NULL, due = '2099-01-01 00:00:00'"
            f" WHERE {ONE.format('delivered')}",
            "is pending and not due before 2099-01-01 00:00:00, which is too long",
            id="due at no time that will come",
        ),
        pytest.param(
            "UPDATE deliveries SET state = 'inflight', settled_at = NULL"
            f" WHERE {ONE.format('delivered')}",
            "is inflight and no process is running",
            id="in flight, and nobody sends it",
        ),
        pytest.param(
            "UPDATE deliveries SET state = 'inflight', settled_at = NULL"
            f" WHERE incident = {WEB} AND sink = 'hook'",
            "hook: more than one delivery is in flight",
            id="two of an incident in flight",
        ),
        pytest.param(
            f"UPDATE deliveries SET superseded_by = NULL WHERE {ONE.format('superseded')}",
            "is superseded by nothing, which tells nothing in its place",
            id="superseded by nothing",
        ),
        pytest.param(
            f"UPDATE deliveries SET superseded_by = 'gone' WHERE {ONE.format('superseded')}",
            "is superseded by gone, which tells nothing in its place",
            id="superseded by what is not there",
        ),
        pytest.param(
            "UPDATE deliveries SET superseded_by = (SELECT id FROM deliveries AS other"
            " WHERE other.incident = deliveries.incident AND other.sink <> deliveries.sink)"
            f" WHERE {ONE.format('superseded')}",
            "is superseded by .*, which tells nothing in its place",
            id="superseded by what another sink is told",
        ),
        pytest.param(
            f"UPDATE deliveries SET superseded_by = id WHERE {ONE.format('superseded')}",
            "is superseded by .*, which tells nothing in its place",
            id="superseded by itself",
        ),
        pytest.param(
            f"UPDATE deliveries SET reason = '', detail = '' WHERE {ONE.format('dead')}",
            "is dead without a reason",
            id="given up without a reason",
        ),
        pytest.param(
            f"UPDATE deliveries SET digest = NULL WHERE {ONE.format('grouped')}",
            "is grouped in no digest",
            id="grouped in nothing",
        ),
        pytest.param(
            f"UPDATE deliveries SET state = 'delivered', digest = NULL WHERE incident = {A}",
            "names incident .*, of which it tells nothing",
            id="a member that the digest lost",
        ),
        pytest.param(
            f"UPDATE deliveries SET state = 'grouped', digest = {DIGEST} WHERE incident = {DOWN}",
            "tells of incident .*, which it does not name",
            id="a member that the digest does not know",
        ),
        pytest.param(
            "UPDATE deliveries SET digest = 'gone' WHERE digest NOT NULL",
            "is told by digest gone, which is not on record",
            id="a digest that is gone",
        ),
        pytest.param(
            f"UPDATE incidents SET ended_at = opened_at WHERE id = {DIGEST}",
            "has ended, and incident .* in it has not",
            id="a digest that ended too soon",
        ),
        pytest.param(
            "UPDATE incidents SET ended_at = opened_at WHERE name = 'c'",
            "is open, and all in it has ended",
            id="a digest that does not end",
        ),
    ],
)
def test_damage_is_found(folder: Path, damage: str, found: str) -> None:
    """Each check finds what it is for, and says of which incident."""
    with closing(sqlite3.connect(folder / "watcher.db")) as db, db:
        assert db.execute(damage).rowcount >= 1
        ids = {name for (name,) in db.execute("SELECT incident FROM deliveries")}
        ids |= {name for (name,) in db.execute("SELECT id FROM incidents")}
    findings = verify(folder)
    mine = [each for each in findings if re.search(found, each.problem)]
    assert mine, findings
    assert all(each.incident in ids or "not on record" in each.problem for each in mine)


def test_what_is_about_to_be_forgotten_is_left_alone(folder: Path) -> None:
    """Retention takes an incident in steps: half of one that ended before is no finding."""
    with closing(sqlite3.connect(folder / "watcher.db")) as db, db:
        db.execute(f"DELETE FROM deliveries WHERE incident = {WEB}")
    with reading(f"sqlite:///{folder / 'watcher.db'}") as (db_, alive):
        check = Verification(followed(db_), NOW, NOW, alive=alive)
        assert list(check.verify(kept(db_))) == []


def test_what_a_living_process_has_in_flight_is_its_business(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "watcher.db")) as db, db:
        db.execute(
            "UPDATE deliveries SET state = 'inflight', settled_at = NULL"
            f" WHERE {ONE.format('delivered')}"
        )
    store = open_store(f"sqlite:///{folder / 'watcher.db'}", exclusive=True)
    assert verify(folder) == []
    asyncio.run(store.close())
    assert len(verify(folder)) == 1


@pytest.fixture
def command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(folder)

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["watcher", "audit", "verify", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capsys.readouterr())

    return run


def test_the_command(command: Callable[..., tuple[int, str, str]], folder: Path) -> None:
    """One line a finding, which names the incident; exit code 0, 1, and 2 where nothing can be read."""
    code, out, err = command()
    assert (code, err) == (0, "")
    assert out == "7 incidents, 14 events, 32 deliveries: 0 findings, 0 remarks\n"
    with closing(sqlite3.connect("watcher.db")) as db, db:
        db.execute(f"DELETE FROM deliveries WHERE incident = {DOWN}")
        ((down,),) = db.execute(f"SELECT {DOWN}")
    code, out, _ = command()
    assert code == 1
    wrong = f"wrong: {down} shop/down event 1 (degraded) was told to nobody, without a reason"
    assert out.splitlines()[:-1] == [wrong]
    code, out, _ = command("-o", "json")
    assert code == 1
    answer = json.loads(out)
    assert (answer["ok"], answer["findings"][0]["incident"]) == (False, down)
    Path("watcher.db").write_text("no database" * 1000)
    code, out, err = command()
    assert (code, out) == (2, "")
    assert err.startswith("watcher: ")
    Path("watcher.db").unlink()
    assert command()[0] == 2


def test_the_log_is_compared(command: Callable[..., tuple[int, str, str]], folder: Path) -> None:
    """What was never echoed is a remark; what only the log knows is a hole in the record."""
    assert command("--log", "audit.jsonl")[0] == 0
    lines = Path("audit.jsonl").read_text().splitlines()
    cut = [line for line in lines if "incident.resolved" not in line or "web" not in line]
    Path("audit.jsonl").write_text("\n".join(['{"audit": 1, "cut o', "plain text", *cut]))
    code, out, _ = command("--log", "audit.jsonl")
    assert code == 0
    assert out.count("remark: ") == 1
    assert "shop/web event 4 (recovered) was never echoed in the log" in out
    Path("audit.jsonl").write_text("\n".join(lines))
    with closing(sqlite3.connect("watcher.db")) as db, db:
        for place in ("deliveries WHERE incident", "events WHERE incident", "incidents WHERE id"):
            db.execute(f"DELETE FROM {place} = {ODD}")
    code, out, _ = command("--log", "audit.jsonl")
    assert code == 1
    assert out.count("the record does not") == 2
    assert command("--log", "none")[0] == 2
    Path("audit.jsonl").write_text("hello")
    assert command("--log", "audit.jsonl")[0] == 2


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        pytest.param(
            f"DELETE FROM deliveries WHERE incident = {ODD} AND sequence = 1 AND sink = 'hook'",
            "the log tells of delivery {}, the record does not",
            id="nothing",
        ),
        pytest.param(
            "UPDATE deliveries SET state = 'delivered' WHERE sink = 'hook' AND sequence = 1"
            f" AND incident = {ODD}",
            "hook: delivery {} is delivered, and the log has it as dead",
            id="that it was told",
        ),
    ],
)
def test_who_was_never_told_shows_in_the_log_whatever_the_record_says(
    command: Callable[..., tuple[int, str, str]], damage: str, found: str
) -> None:
    """The hook has refused it; unless somebody had it sent again, that is how it ended."""
    with closing(sqlite3.connect("watcher.db")) as db, db:
        of_odd = f"sink = 'hook' AND sequence = 1 AND incident = {ODD}"
        ((name,),) = db.execute(f"SELECT id FROM deliveries WHERE {of_odd}")
        db.execute(damage)
    code, out, _ = command("--log", "audit.jsonl")
    assert code == 1
    assert found.format(name) in out
    with closing(sqlite3.connect("watcher.db")) as db, db:
        db.execute(f"UPDATE deliveries SET redriven_at = settled_at WHERE {of_odd}")
    assert (command("--log", "audit.jsonl")[0] == 0) == ("is delivered" in found)


async def test_postgresql_is_read_at_one_instant(postgres: Postgres) -> None:
    """What is committed meanwhile belongs to the next look; a writer's lease is its sign of life."""
    url = postgres.database()
    migrate(url)
    store = open_store(url, exclusive=True)
    assert await store.acquire()
    await store.record(told(event(1)), NOW)
    with reading(url) as (db, alive):
        assert alive
        await store.record(told(event(2)), NOW)
        assert [one.id for one in kept(db)] == [event(1).incident]
    await store.release()
    await store.close()
    with reading(url) as (db, alive):
        assert not alive
        found = list(kept(db))
        assert [(one.id, one.events) for one in found] == [
            (event(n).incident, (event(n),)) for n in (1, 2)
        ]
