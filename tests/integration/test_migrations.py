"""What the migrations make of an empty database is what the tables say, and none stops who works on the schema before it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from alembic import command, op
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tests.conftest import ROOT

FIRST = "0005"
"""The last migration from before there was a release; what follows is applied beneath processes that work."""

REWRITES = r"DEFAULT (?:clock_timestamp|gen_random_uuid|nextval|pg_current_xact_id|random)\b|GENERATED "
FORBIDDEN = {
    r"^DROP (TABLE|INDEX|VIEW|SEQUENCE)\b": "drops what the release before may use",
    r"^ALTER TABLE .* DROP COLUMN\b": "drops what the release before may use",
    r"\bRENAME\b": "renames what the release before may use",
    r"^ALTER TABLE .* ALTER COLUMN .* (TYPE|SET NOT NULL|DROP DEFAULT)\b": "narrows what the release before may write",
    r"^ALTER TABLE .* ADD COLUMN (?!.*\bDEFAULT\b).* NOT NULL": "wants a value that the release before does not write",
    rf"^ALTER TABLE .* ADD COLUMN .*({REWRITES})": "rewrites the table while everybody waits",
    r"^ALTER TABLE .* ADD (CONSTRAINT \S+ )?UNIQUE\b": "forbids what the release before may write",
}


@pytest.mark.usefixtures("environment")
def test_the_migrations_leave_nothing_to_migrate() -> None:
    command.check(Config(ROOT / "alembic.ini"))


def test_migrations_only_expand_unless_they_say_that_they_contract() -> None:
    script = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    faults = {
        one.revision: found
        for one in script.iterate_revisions("heads", FIRST)
        if getattr(one.module, "phase", "expand") != "contract" and (found := unsafe(statements(one.module.upgrade)))
    }
    assert faults == {}


def test_what_would_stop_those_who_work_is_found() -> None:
    def upgrade() -> None:
        op.create_table("notes", sa.Column("id", sa.Uuid, nullable=False))
        op.create_index("ix_notes_id", "notes", ["id"])
        op.add_column("runs", sa.Column("fine", sa.Text, server_default="", nullable=False))
        with op.get_context().autocommit_block():
            op.create_index("ix_runs_fine", "runs", ["fine"], postgresql_concurrently=True)
        op.drop_constraint("ck_outbox_topic", "outbox")
        op.create_check_constraint("ck_outbox_topic", "outbox", "topic IN ('ring', 'cleanup', 'more')")

    assert unsafe(statements(upgrade)) == []

    def harm() -> None:
        op.drop_column("runs", "detail")
        op.alter_column("runs", "code", new_column_name="reason")
        op.alter_column("runs", "detail", nullable=False)
        op.add_column("runs", sa.Column("wanted", sa.Text, nullable=False))
        op.add_column("runs", sa.Column("token", sa.Uuid, server_default=sa.text("gen_random_uuid()")))
        op.create_index("ix_runs_code", "runs", ["code"])
        op.create_check_constraint("ck_runs_code", "runs", "code <> ''")

    assert len(unsafe(statements(harm))) == 7


def statements(upgrade: Callable[[], None]) -> list[str]:
    """What a migration would execute, each on one line."""
    written = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": written, "literal_binds": True}
    )
    with Operations.context(context):
        upgrade()
    return [" ".join(each.split()) for each in written.getvalue().split(";\n") if each.strip()]


def unsafe(executed: list[str]) -> list[str]:
    """Those that hurt processes of the release before, and how. What is made in the same migration is nobody's yet."""
    new = {found[1] for each in executed if (found := re.match(r"CREATE TABLE (\S+)", each))}
    wider = {found[1] for each in executed if (found := re.search(r"DROP CONSTRAINT (\S+)", each))}
    return [f"{each}: {why}" for each in executed if _table(each) not in new for why in _whys(each, wider)]


def _table(statement: str) -> str | None:
    found = re.search(r"^(?:ALTER|DROP) TABLE (\S+)|\bINDEX .*\bON (\S+)", statement)
    return None if found is None else found[1] or found[2]


def _whys(statement: str, wider: set[str]) -> Iterator[str]:
    yield from (why for pattern, why in FORBIDDEN.items() if re.search(pattern, statement))
    if re.match(r"CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)", statement):
        yield "locks out writers while the index is made"
    check = re.search(r"ADD CONSTRAINT (\S+) CHECK", statement)
    if check is not None and check[1] not in wider:
        yield "forbids what the release before may write"
