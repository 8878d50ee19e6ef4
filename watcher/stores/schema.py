"""The tables. A change here needs a migration, one that the version before can still run on."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from watcher.core.model import EPOCH

REVISION: Final = 2
"""The newest migration, so that a start need not import Alembic to see that none is due."""

metadata = sa.MetaData()


class Instant(sa.TypeDecorator[datetime]):
    """UTC to the microsecond: native in PostgreSQL, in SQLite text of fixed width, which sorts."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        """Refuses a naive value, which could mean any instant."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        """Aware, always."""
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))

    def result_processor(
        self, dialect: sa.Dialect, coltype: object
    ) -> Callable[[Any], datetime | None] | None:
        """A damaged time is one long ago, so that whatever it belongs to comes up and is dealt with."""
        process = super().result_processor(dialect, coltype)

        def lenient(value: object) -> datetime | None:
            try:
                return process(value) if process else None
            except ValueError:
                return EPOCH

        return process and lenient


def _keys(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text, primary_key=True) for name in names]


def _filled(kind: type[TypeEngine[Any]], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name in names]


def _nullable(kind: type[TypeEngine[Any]], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind) for name in names]


# A body is a value as JSON; beside it stands only what a query looks for.
phases = sa.Table("phases", metadata, *_keys("cluster", "uid"), *_filled(sa.Text, "body"))

incidents = sa.Table(
    "incidents",
    metadata,
    *_keys("id"),
    *_filled(sa.Text, "cluster", "namespace", "name", "uid"),
    *_filled(sa.Integer, "sequence"),  # of its newest event, which tells the rest
    *_filled(Instant, "opened_at"),
    *_nullable(Instant, "ended_at"),
)

events = sa.Table(
    "events",
    metadata,
    *_keys("id"),
    sa.Column("incident", sa.ForeignKey("incidents.id"), nullable=False),
    *_filled(sa.Integer, "sequence"),
    *_filled(Instant, "recorded_at"),
    *_filled(sa.Text, "body"),
    sa.Index("events_of_incident", "incident", "sequence"),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    *_keys("id"),
    sa.Column("event", sa.ForeignKey("events.id"), nullable=False),
    *_filled(sa.Text, "incident", "sink", "part", "state", "reason", "detail"),
    *_filled(sa.Integer, "sequence", "attempts"),
    *_filled(Instant, "due", "recorded_at"),
    *_filled(sa.Boolean, "ambiguous"),
    *_nullable(Instant, "first_attempt_at", "settled_at"),  # not settled: still open
    *_nullable(sa.Text, "superseded_by", "digest", "receipt"),
    *_nullable(Instant, "redriven_at"),
    *_nullable(sa.Text, "redriven_by"),
    sa.Index("deliveries_of_incident", "incident", "sink"),
    sa.Index("deliveries_recorded", "recorded_at"),
)


def _index(name: str, where: sa.ColumnElement[bool], *columns: sa.Column[Any]) -> None:
    """A partial one: nearly every row is settled, and the queue should not pay for those."""
    sa.Index(name, *columns, sqlite_where=where, postgresql_where=where)


_row = deliveries.c
_index("deliveries_open", _row.settled_at.is_(None), _row.sink, _row.incident, _row.due, _row.state)
_index("deliveries_due", _row.settled_at.is_(None), _row.sink, _row.due)
_index("deliveries_covered", _row.superseded_by.is_not(None), _row.superseded_by)
_index("deliveries_redriven", _row.redriven_at.is_not(None), _row.sink, _row.redriven_at)
_index("deliveries_grouped", _row.digest.is_not(None), _row.digest)

told = sa.select(deliveries, events.c.body).join(events, events.c.id == _row.event)
"""Deliveries with their event."""

clusters = sa.Table("clusters", metadata, *_keys("name"), *_filled(Instant, "seen_at"))
sinks = sa.Table("sinks", metadata, *_keys("name"), *_filled(sa.Text, "body"))
leases = sa.Table(
    "leases",  # who may write, once several replicas share a PostgreSQL
    metadata,
    *_keys("name"),
    *_filled(sa.Text, "holder"),
    *_filled(sa.BigInteger, "token"),
    *_filled(Instant, "expires_at"),
)
