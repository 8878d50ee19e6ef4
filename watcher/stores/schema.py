"""The tables. A change here needs a migration, one that the version before can still run on."""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

REVISION: Final = 1
"""The newest migration, so that a start need not import Alembic to see that none is due."""

metadata = MetaData()


class Instant(TypeDecorator[datetime]):
    """UTC to the microsecond: native in PostgreSQL, in SQLite text of fixed width, which sorts."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Refuses a naive value, which could mean any instant."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Aware, always."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


phases = Table(
    "phases",
    metadata,
    Column("cluster", Text, primary_key=True),
    Column("uid", Text, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("baseline", Text),
    Column("updated_at", Instant, nullable=False),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # deployment, cluster or digest
    Column("cluster", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("uid", Text, nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("since", Instant, nullable=False),
    Column("reason", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("sequence", Integer, nullable=False),  # of the newest event
    Column("ended_at", Instant),
    Column("resolution", Text),
)

events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("incident", Text, ForeignKey("incidents.id"), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("body", Text, nullable=False),
    Index("events_of_incident", "incident", "sequence"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("event", Text, ForeignKey("events.id"), nullable=False),
    Column("incident", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("sink", Text, nullable=False),
    Column("part", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("due_at", Instant, nullable=False),  # of one in flight: when its lease runs out
    Column("attempts", Integer, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("first_attempt_at", Instant),
    Column("last_attempt_at", Instant),
    Column("settled_at", Instant),  # null while open
    Column("claimed_by", Text),
    Column("ambiguous", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("superseded_by", Text),
    Column("digest", Text),
    Column("receipt", Text),
    Index("deliveries_of_incident", "incident", "sink"),
    Index("deliveries_recorded", "recorded_at"),
)


def _index(name: str, where: ColumnElement[bool], *columns: Column[Any]) -> None:
    """A partial one: nearly every row is settled, and the queue should not pay for those."""
    Index(name, *columns, sqlite_where=where, postgresql_where=where)


_row = deliveries.c
_index(
    "deliveries_open", _row.settled_at.is_(None), _row.sink, _row.incident, _row.due_at, _row.state
)
_index("deliveries_due", _row.settled_at.is_(None), _row.sink, _row.due_at)
_index("deliveries_covered", _row.superseded_by.is_not(None), _row.superseded_by)
_index("deliveries_grouped", _row.digest.is_not(None), _row.digest)

clusters = Table(
    "clusters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("seen_at", Instant, nullable=False),
)

sinks = Table(
    "sinks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", Instant, nullable=False),
)
