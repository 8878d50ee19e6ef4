"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "phases",
        sa.Column("cluster", sa.Text, primary_key=True),
        sa.Column("uid", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("baseline", sa.Text),
        sa.Column("updated_at", _INSTANT, nullable=False),
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("opened_at", _INSTANT, nullable=False),
        sa.Column("since", _INSTANT, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("ended_at", _INSTANT),
        sa.Column("resolution", sa.Text),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("incident", sa.Text, sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("recorded_at", _INSTANT, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("events_of_incident", "events", ["incident", "sequence"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("event", sa.Text, sa.ForeignKey("events.id"), nullable=False),
        sa.Column("incident", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("sink", sa.Text, nullable=False),
        sa.Column("part", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("due_at", _INSTANT, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("recorded_at", _INSTANT, nullable=False),
        sa.Column("first_attempt_at", _INSTANT),
        sa.Column("last_attempt_at", _INSTANT),
        sa.Column("settled_at", _INSTANT),
        sa.Column("claimed_by", sa.Text),
        sa.Column("ambiguous", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("superseded_by", sa.Text),
        sa.Column("digest", sa.Text),
        sa.Column("receipt", sa.Text),
    )
    op.create_index("deliveries_of_incident", "deliveries", ["incident", "sink"])
    op.create_index("deliveries_recorded", "deliveries", ["recorded_at"])
    for name, columns, where in (
        ("deliveries_open", ["sink", "incident", "due_at", "state"], "settled_at IS NULL"),
        ("deliveries_due", ["sink", "due_at"], "settled_at IS NULL"),
        ("deliveries_covered", ["superseded_by"], "superseded_by IS NOT NULL"),
        ("deliveries_grouped", ["digest"], "digest IS NOT NULL"),
    ):
        only = sa.text(where)
        op.create_index(name, "deliveries", columns, sqlite_where=only, postgresql_where=only)
    op.create_table(
        "clusters",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("seen_at", _INSTANT, nullable=False),
    )
    op.create_table(
        "sinks",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
    )
