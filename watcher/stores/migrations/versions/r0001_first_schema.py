"""The first schema."""

from alembic import op

revision = "0001"
down_revision = None

_SCHEMA = """
CREATE TABLE phases (
    cluster TEXT NOT NULL, uid TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (cluster, uid)
);
CREATE TABLE incidents (
    id TEXT NOT NULL PRIMARY KEY,
    cluster TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL,
    sequence INTEGER NOT NULL, opened_at INSTANT NOT NULL, ended_at INSTANT
);
CREATE TABLE events (
    id TEXT NOT NULL PRIMARY KEY, incident TEXT NOT NULL REFERENCES incidents (id),
    sequence INTEGER NOT NULL, recorded_at INSTANT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX events_of_incident ON events (incident, sequence);
CREATE TABLE deliveries (
    id TEXT NOT NULL PRIMARY KEY, event TEXT NOT NULL REFERENCES events (id),
    incident TEXT NOT NULL, sink TEXT NOT NULL, part TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL,
    sequence INTEGER NOT NULL, attempts INTEGER NOT NULL,
    due INSTANT NOT NULL, recorded_at INSTANT NOT NULL, ambiguous BOOLEAN NOT NULL,
    first_attempt_at INSTANT, settled_at INSTANT,
    superseded_by TEXT, digest TEXT, receipt TEXT
);
CREATE INDEX deliveries_of_incident ON deliveries (incident, sink);
CREATE INDEX deliveries_recorded ON deliveries (recorded_at);
CREATE INDEX deliveries_open ON deliveries (sink, incident, due, state) WHERE settled_at IS NULL;
CREATE INDEX deliveries_due ON deliveries (sink, due) WHERE settled_at IS NULL;
CREATE INDEX deliveries_covered ON deliveries (superseded_by) WHERE superseded_by IS NOT NULL;
CREATE INDEX deliveries_grouped ON deliveries (digest) WHERE digest IS NOT NULL;
CREATE TABLE clusters (name TEXT NOT NULL PRIMARY KEY, seen_at INSTANT NOT NULL);
CREATE TABLE sinks (name TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY, holder TEXT NOT NULL, token BIGINT NOT NULL,
    expires_at INSTANT NOT NULL
)
"""


def upgrade() -> None:
    """Create every table; only the type of an instant differs between databases."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    instant = "DATETIME" if sqlite else "TIMESTAMP WITH TIME ZONE"
    for statement in _SCHEMA.replace("INSTANT", instant).split(";"):
        op.execute(statement.strip())
