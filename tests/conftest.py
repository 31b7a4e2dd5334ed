"""The real parts that tests stand on: one embedded stack of services a session, started when first asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from pipeline.run import Step
from shared.db import Begin, connect, transactions
from shared.settings import Settings
from shared.storage import Storage

SERVICES = ("DATABASE_URL", "REDIS_URL", "S3_ENDPOINT_URL", "CLAMD_URL")


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Postgres (migrated), Valkey, S3 and clamd: the environment that names them, also set in `os.environ`.

    Services that the environment names already are used as they are.
    """
    from stack.launcher import Stack  # noqa: PLC0415 - domain tests start nothing

    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        if not os.environ.get("DATABASE_URL"):
            home = tmp_path_factory.mktemp("slipway-home")
            running = stack.enter_context(Stack(home, services_only=True, given={}, quiet=True))
            for name, value in running.environment.items():
                patch.setenv(name, value)
        patch.setenv("ENVIRONMENT", "development")
        _migrate()
        yield dict(os.environ)


def _migrate() -> None:
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    command.upgrade(Config(Path(__file__).parent.parent / "alembic.ini"), "head")


@pytest.fixture(scope="session")
def settings(services: dict[str, str]) -> Settings:
    return Settings()


@pytest.fixture(scope="session")
def begin(settings: Settings) -> Iterator[Begin]:
    engine = connect(settings.sqlalchemy_url, pool_size=10)
    yield transactions(engine)
    engine.dispose()


@pytest.fixture(scope="session")
def storage(settings: Settings) -> Storage:
    made = Storage(
        endpoint_url=settings.s3_endpoint_url,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        region=settings.s3_region,
    )
    for room in ("staging", "registry", "quarantine"):
        made.bucket(settings.bucket(room)).ensure()
    return made


@pytest.fixture
def owner(begin: Begin) -> UUID:
    """A user of this test's own."""
    from registry import people  # noqa: PLC0415

    with begin() as session:
        return people.register(
            session, username=f"ada-{uuid4().hex[:8]}", password_hash=None, permissions=people.EVERYDAY
        ).id


@pytest.fixture
def submit(begin: Begin, owner: UUID) -> Callable[..., UUID]:
    """Submit a run of the given stages for a new version of `model`; nothing is in storage behind it."""
    from pipeline import engine  # noqa: PLC0415
    from registry import store  # noqa: PLC0415

    def submit(*stages: str, model: str | None = None, queue: str = "cpu", max_attempts: int = 3) -> UUID:
        plan = [Step(stage=s, queue=queue, max_attempts=max_attempts, time_limit=60) for s in stages or ("scan", "promote")]
        intake = store.Intake(
            owner_id=owner,
            model=model or f"m-{uuid4().hex[:8]}",
            version=None,
            bump="minor",
            format="onnx",
            servable=True,
            filename="model.onnx",
            size=3,
            sha256="0" * 64,
            staging_key=f"{uuid4()}/model/model.onnx",
            declared={},
            side_files={},
        )
        with begin() as session:
            version = store.add_version(session, intake)
            return engine.submit(session, version_id=version.id, owner_id=owner, plan=plan).id

    return submit
