"""How the schema came to be, step by step; each step leaves the version before able to run."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(connection: Connection) -> None:
    """Bring the schema up to date inside the connection's transaction."""
    config = Config()
    config.set_main_option("script_location", "watcher.stores:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
