"""The real parts that tests stand on: one embedded stack of services a session, started when first asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
import redis
from alembic import command
from alembic.config import Config
from filelock import FileLock
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis
from sqlalchemy.engine import make_url

from pipeline import engine
from pipeline.run import Step
from registry import people, store
from shared.db import Begin, connect, transactions
from shared.settings import Settings
from shared.storage import Storage

ROOT = Path(__file__).parent.parent

# The same examples in every run, however busy the machine is. Who looks for new ones says so beside the test.
hypothesis.register_profile(
    "slipway", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis.load_profile("slipway")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", help="also run what `make test-all` runs: every format, the slow ones"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        slow = [one for one in items if one.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [one for one in items if one not in slow]


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Postgres, Valkey, S3 and clamd, named by `os.environ`. Those that it names already are used as they are."""
    from stack.launcher import Stack

    with ExitStack() as running, pytest.MonkeyPatch.context() as patch:
        if not os.environ.get("DATABASE_URL"):
            home = tmp_path_factory.mktemp("slipway-home")
            stack = running.enter_context(Stack(home, services_only=True, given={}, quiet=True))
            for name, value in stack.environment.items():
                patch.setenv(name, value)
        patch.setenv("ENVIRONMENT", "development")
        yield


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`once(name, make)`: a folder that the first to ask for it fills, whichever of this run's processes that is. Read only."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / f"once-{name}"
        with FileLock(folder.with_suffix(".lock")):
            if not folder.exists():
                unfinished = folder.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)  # whoever made it failed
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return once


@pytest.fixture(scope="session")
def digits(once: Callable[..., Path]) -> Path:
    """The digit classifier of `examples/digits.py` in every form."""
    from examples import digits as example

    return once("digits", example.write)


@pytest.fixture(scope="session")
def benign(once: Callable[..., Path]) -> dict[str, Path]:
    """Files of every form that frameworks write and that we must let pass, by their names."""
    from tests.readers.model_files import write_all

    return {path.name: path for path in sorted(once("benign", write_all).iterdir())}


def _created(database: str, *, like: str = "template1") -> str:
    """A new database as a copy of another; its URL."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database} TEMPLATE {like}")
    return make_url(os.environ["DATABASE_URL"]).set(database=database).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def migrated(services: None) -> str:
    """A database that all migrations made, for others to be copies of."""
    name = f"migrated_{uuid4().hex[:12]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", _created(name))
        command.upgrade(Config(ROOT / "alembic.ini"), "head")
    return name


@pytest.fixture(scope="module")
def environment(migrated: str) -> Iterator[dict[str, str]]:
    """The environment of this module's processes: a database of its own, an empty broker, buckets of its own."""
    name = f"test_{uuid4().hex[:12]}"
    broker = os.environ["REDIS_URL"].rsplit("/", 1)[0] + "/1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", _created(name, like=migrated))
        patch.setenv("REDIS_URL", broker)
        patch.setenv("S3_BUCKET_PREFIX", name.replace("_", "-"))
        with redis.Redis.from_url(broker) as client:
            client.flushdb()
        yield dict(os.environ)


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return Settings()


@pytest.fixture(scope="module")
def begin(settings: Settings) -> Iterator[Begin]:
    database = connect(settings.sqlalchemy_url, pool_size=10)
    yield transactions(database)
    database.dispose()


@pytest.fixture(scope="module")
def storage(settings: Settings) -> Storage:
    made = Storage(**settings.storage)
    for room in ("staging", "registry", "quarantine", "exports"):
        made.bucket(settings.bucket(room)).ensure()
    return made


@pytest.fixture
def owner(begin: Begin) -> UUID:
    """A user of this test's own."""
    with begin() as session:
        name = f"ada-{uuid4().hex[:8]}"
        return people.register(session, username=name, password_hash=None, permissions=people.EVERYDAY).id


@pytest.fixture
def submit(begin: Begin, owner: UUID) -> Callable[..., UUID]:
    """Submit a run of the given stages for a new version of `model`; `size` and `sha256` are of what lies at `key`."""

    def submit(
        *stages: str,
        model: str | None = None,
        plan: list[Step] | None = None,
        key: str | None = None,
        sha256: str = "0" * 64,
        config: dict[str, object] | None = None,
        format_: str = "onnx",
        version: str | None = None,
    ) -> UUID:
        names = stages or ("scan", "promote")
        steps = plan or [Step(stage=name, queue="cpu", max_attempts=3, time_limit=60) for name in names]
        intake = store.Intake(
            owner_id=owner,
            model=model or f"m-{uuid4().hex[:8]}",
            version=version,
            bump="minor",
            format=format_,
            servable=True,
            filename="model.onnx",
            size=3,
            sha256=sha256,
            staging_key=key or f"{uuid4()}/model/model.onnx",
            declared={"config": config or {}},
            side_files={},
        )
        with begin() as session:
            row = store.add_version(session, intake)
            return engine.submit(session, version_id=row.id, owner_id=owner, plan=steps).id

    return submit
