"""Each migration leaves the version before it able to run: it only adds, and nothing is demanded."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Connection, Engine, MetaData, Table, create_engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.types import Integer

from tests.postgres import Postgres, postgres  # noqa: F401 - a fixture
from watcher.stores.schema import REVISION

SCRIPTS = Config()
SCRIPTS.set_main_option("script_location", "watcher.stores:migrations")
STEPS = sorted(each.revision for each in ScriptDirectory.from_config(SCRIPTS).walk_revisions())


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    url = make_url("sqlite://")
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = make_url(server.database()).set(drivername="postgresql+psycopg")
    made = create_engine(url)
    yield made
    made.dispose()


def bring(connection: Connection, revision: str) -> None:
    SCRIPTS.attributes["connection"] = connection
    command.upgrade(SCRIPTS, revision)


def tables(connection: Connection) -> list[Table]:
    """As they are in the database, what others refer to first."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def row(table: Table, mark: str) -> dict[str, object]:
    """A value for each column that the table has."""
    values: dict[str, object] = {}
    for column in table.columns:
        if isinstance(column.type, Boolean):
            values[column.name] = False
        elif isinstance(column.type, Integer):
            values[column.name] = 1
        elif column.type.python_type is datetime:
            values[column.name] = datetime(2026, 11, 22, 14, 3, tzinfo=UTC)
        else:
            values[column.name] = mark
    return values


def test_the_newest_step_is_the_one_that_is_needed() -> None:
    assert STEPS[-1] == f"{REVISION:04}"


@pytest.mark.parametrize("step", range(1, len(STEPS)), ids=lambda step: STEPS[step])
def test_the_version_before_runs_on_it(engine: Engine, step: int) -> None:
    """What that version writes and reads, column by column, it can write and read afterwards too."""
    with engine.begin() as db:
        bring(db, STEPS[step - 1])
        known = tables(db)
        for table in known:
            db.execute(table.insert(), row(table, "before"))
        bring(db, STEPS[step])
        for table in known:
            db.execute(table.insert(), row(table, "after"))
            assert len(db.execute(select(*table.columns)).all()) == 2, table.name
