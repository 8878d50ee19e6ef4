"""The power goes: whatever the disk has by then opens clean and holds all that had been committed."""

import random
import shutil
from pathlib import Path

from sqlalchemy import Engine, event

from tests import deliveries as make
from tests.deliveries import NOW, told
from watcher.core.delivery import DeliveryState
from watcher.core.events import Edge, Incident
from watcher.core.model import Severity
from watcher.core.phases import Firing
from watcher.ports import Record, Saved, Settlement
from watcher.stores.database import open_store

COMMITS = 30


class Disk:
    """Copies of the file and its log, taken while the store is in use."""

    def __init__(self, store: Path, folder: Path) -> None:
        self.copies: list[tuple[Path, int]] = []
        """Each with how many records it must hold."""
        self._store = store
        self._folder = folder

    def copy(self, committed: int, cut: int | None = None) -> None:
        """With `cut`, what was being written to the log got only so far."""
        folder = self._folder / str(len(self.copies))
        folder.mkdir(parents=True)
        for suffix in ("", "-wal"):  # not the -shm, which is memory
            file = self._store.with_name(self._store.name + suffix)
            if file.exists():
                shutil.copy(file, folder)
        log = folder / f"{self._store.name}-wal"
        if cut is not None and log.exists():
            log.write_bytes(log.read_bytes()[:cut])
        self.copies.append((folder / self._store.name, committed))

    @property
    def log_size(self) -> int:
        log = self._store.with_name(f"{self._store.name}-wal")
        return log.stat().st_size if log.exists() else 0


async def test_every_commit_outlives_the_power(tmp_path: Path) -> None:
    """Row 28: at each commit, in the middle of writing the next, and over many checkpoints."""
    rng, path = random.Random(28), tmp_path / "watcher.db"
    disk, committed, before = Disk(path, tmp_path / "copies"), 0, 0

    def commits(_: object) -> None:
        disk.copy(committed)

    event.listen(Engine, "commit", commits)
    store = open_store(f"sqlite:///{path}", exclusive=True)
    try:
        with store.engine.connect() as db:
            db.exec_driver_sql("PRAGMA wal_autocheckpoint = 20")
        for number in range(COMMITS):
            opening = make.event(number)
            incident = Incident(
                opening.incident, NOW, NOW, "below_minimum", Severity.WARNING, "1 of 3", 1
            )
            record = told(opening, make.event(number, 2, Edge.UPDATED))
            before = disk.log_size
            await store.record(
                Record(
                    (Saved(opening.subject, Firing(incident)),),
                    (),
                    record.events,
                    record.deliveries,
                ),
                NOW,
            )
            if disk.log_size > before:  # else it began anew at the front
                disk.copy(committed, rng.randrange(before, disk.log_size))
            committed += 1
            disk.copy(committed)
            if number % 3 == 0:
                (claimed,) = await store.claim("hook", NOW, 1)
                end = Settlement(claimed.delivery.id, DeliveryState.DELIVERED, NOW)
                await store.settle(end)
                disk.copy(committed)
    finally:
        event.remove(Engine, "commit", commits)
        await store.close()

    assert len(disk.copies) > 3 * COMMITS
    for copy, expected in disk.copies:
        again = open_store(f"sqlite:///{copy}", exclusive=True)  # which looks for damage
        wanted = {make.event(number).incident for number in range(expected)}
        rows = await again.history(limit=1000)
        phases = await again.load("prod")
        assert {row.event.incident for row in rows} >= wanted
        assert len(rows) == 2 * len({row.event.incident for row in rows}), "all of it or nothing"
        assert {saved.subject for saved in phases} == {row.event.subject for row in rows}
        await again.close()
