"""What the migrations make of an empty database is what the tables say."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.config import Config

from tests.conftest import ROOT


@pytest.mark.usefixtures("environment")
def test_the_migrations_leave_nothing_to_migrate() -> None:
    command.check(Config(ROOT / "alembic.ini"))
