"""Runs migrations against DATABASE_URL. Waits five seconds for a lock at most, then leaves everything as it was."""

from alembic import context
from sqlalchemy import text

import pipeline.tables
import registry.tables
from shared.db import connect, metadata
from shared.settings import DatabaseSettings

assert pipeline.tables.runs.metadata is registry.tables.models.metadata is metadata  # noqa: S101


def migrate() -> None:
    engine = connect(DatabaseSettings().sqlalchemy_url)
    with engine.connect() as connection:
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.commit()
        context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


migrate()
