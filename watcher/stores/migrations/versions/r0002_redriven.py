"""When a delivery was last asked for once more, and by whom."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Only adds what the version before does not read."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    instant = "DATETIME" if sqlite else "TIMESTAMP WITH TIME ZONE"
    op.execute(f"ALTER TABLE deliveries ADD COLUMN redriven_at {instant}")
    op.execute("ALTER TABLE deliveries ADD COLUMN redriven_by TEXT")
    op.execute(
        "CREATE INDEX deliveries_redriven ON deliveries (sink, redriven_at)"
        " WHERE redriven_at IS NOT NULL"
    )
