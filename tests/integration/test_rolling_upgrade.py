"""The release before works on while the schema moves on beneath it. Its code is taken from the history, where that is here."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url

from tests.conftest import ROOT
from tests.integration.test_migrations import FIRST
from tests.integration.test_workers import Crew, wait_for

SUBMIT = """
import sys
from uuid import uuid4
from pipeline import engine
from pipeline.stage import discover
from registry import people, store
from shared.db import connect, transactions
from shared.settings import Settings
from shared.storage import Storage

settings = Settings()
begin = transactions(connect(settings.sqlalchemy_url))
staging = Storage(**settings.storage).bucket(settings.bucket("staging"))
plan = [stage.step() for stage in discover(("tests.stages",)) if stage.name in sys.argv[1:]]
with begin() as session:
    owner = people.register(session, username=f"u{uuid4().hex}", password_hash=None, permissions=people.EVERYDAY).id
for number in range(int(sys.argv[1])):
    key = f"{uuid4()}/model/model.onnx"
    staging.put(key, b"abc")
    intake = store.Intake(
        owner_id=owner, model=f"m-{uuid4().hex}", version=None, bump="minor", format="onnx", servable=True,
        filename="model.onnx", size=3, sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        staging_key=key, declared={"config": {"seconds": 1.0}}, side_files={},
    )
    with begin() as session:
        row = store.add_version(session, intake)
        engine.submit(session, version_id=row.id, owner_id=owner, plan=plan)
"""
"""A program for the code of the release before: submit so many runs of these stages."""


@pytest.fixture
def before(tmp_path: Path) -> tuple[Path, str]:
    """The code from before the newest migration was written, and the revision of its schema."""
    head = ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).get_revision("head")
    if head.revision == FIRST:
        pytest.skip(f"no migration has come since {FIRST}, from before there was a release")
    file = Path(head.path).relative_to(ROOT)
    asked = ["git", "log", "--diff-filter=A", "--format=%H", "-1", "HEAD", "--", str(file)]
    added = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    archive = subprocess.run(["git", "archive", f"{added}^"], cwd=ROOT, capture_output=True, check=False)
    if not added or archive.returncode:
        pytest.skip("the history does not reach back to before the newest migration")
    folder = tmp_path / "before"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    revision = ScriptDirectory(str(folder / "migrations")).get_current_head()
    assert revision is not None
    return folder, revision


@pytest.fixture
def old_schema(environment: dict[str, str], before: tuple[Path, str]) -> Iterator[dict[str, str]]:
    """The environment of processes that run the old code on a database of the old schema."""
    folder, revision = before
    name = f"before_{uuid4().hex[:12]}"
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = make_url(environment["DATABASE_URL"]).set(database=name).render_as_string(hide_password=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        command.upgrade(Config(ROOT / "alembic.ini"), revision)
        yield {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


@pytest.mark.slow
@pytest.mark.usefixtures("storage")
def test_the_release_before_works_on_while_the_schema_moves_on_beneath_it(
    old_schema: dict[str, str], tmp_path: Path
) -> None:
    def submit(count: int) -> None:
        words = [sys.executable, "-c", SUBMIT, str(count), "quick", "slow", "hang"]
        subprocess.run(words, env=old_schema, cwd=tmp_path, check=True)

    def counted() -> dict[str, int]:
        with psycopg.connect(old_schema["DATABASE_URL"]) as connection:
            found: list[tuple[Any, ...]] = connection.execute("SELECT status, count(*) FROM runs GROUP BY 1").fetchall()
        return dict(found)

    crew = Crew(old_schema, tmp_path)
    try:
        crew.start("relay", "one", PYTHONPATH=old_schema["PYTHONPATH"])
        submit(3)
        wait_for(lambda: "running" in counted())
        command.upgrade(Config(ROOT / "alembic.ini"), "head")
        submit(2)
        wait_for(lambda: not {"queued", "running"} & counted().keys())
        with psycopg.connect(old_schema["DATABASE_URL"]) as connection:
            events = connection.execute("SELECT kind, count(*) FROM events GROUP BY 1").fetchall()
    finally:
        for name in list(crew.running):
            crew.kill(name)
    assert counted() == {"succeeded": 5}
    assert dict(events) == {"submitted": 5, "claimed": 15, "passed": 15}, "nothing broke on the way"
