"""Alembic's entry: runs the migrations on the connection that `engine.migrate` opened. Nothing is configured in files."""

from alembic import context

from smtpplus.storage.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
