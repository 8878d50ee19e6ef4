"""Run by Alembic: the migrations take part in the transaction of whoever asked for them."""

from alembic import context

from watcher.stores.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
