"""Runs the migrations on the connection that shared/database/migrate.py hands over."""

from alembic import context

from headgate.shared.database.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
