"""What the pipeline adds to five stages that do nothing, beside a Celery chain of five tasks that do nothing.

Ours writes eleven states and events to Postgres and survives the loss of the broker; the chain keeps its state in the broker.
Both use the same broker, one worker child each, and are run in turn in one process.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
from alembic import command
from alembic.config import Config
from celery import Celery, chain
from sqlalchemy.engine import make_url

from pipeline import engine, store
from pipeline.stage import discover
from registry import people
from registry import store as registry
from shared.db import Begin, connect, transactions
from shared.settings import Settings

ROUNDS = 60
WARM_UP = 5
PACKAGE = "benchmarks.stages"
PEER = Celery(
    "peer", broker=os.environ.get("REDIS_URL", ""), backend=os.environ.get("REDIS_URL", ""), set_as_current=False
)
PEER.conf.update(task_default_queue="peer", worker_prefetch_multiplier=1)


@PEER.task(name="peer.noop", shared=False)
def noop(_: Any = None) -> None:
    """What the chain's tasks do."""


def main() -> dict[str, Any]:
    with _database() as url, _processes(url):
        begin = transactions(connect(Settings().sqlalchemy_url))
        ours, peer = [], []
        with psycopg.connect(url, autocommit=True) as listener:
            listener.execute(f"LISTEN {store.NEWS}")
            with begin() as session:
                owner = people.register(session, username="bench", password_hash=None, permissions=()).id
            for _ in range(ROUNDS + WARM_UP):
                ours.append(_one_run(begin, listener, owner))
                peer.append(_one_chain())
    ours, peer = ours[WARM_UP:], peer[WARM_UP:]
    return {
        "pipeline, five no-op stages, median ms": round(1e3 * statistics.median(ours), 1),
        "pipeline, p90 ms": round(1e3 * statistics.quantiles(ours, n=10)[-1], 1),
        "celery chain, five no-op tasks, median ms": round(1e3 * statistics.median(peer), 1),
        "added by one stage, median ms": round(1e3 * statistics.median(ours) / 5, 2),
        "ratio pipeline / chain, median of pairs": round(
            statistics.median(a / b for a, b in zip(ours, peer, strict=True)), 2
        ),
    }


def _one_run(begin: Begin, listener: psycopg.Connection[Any], owner: UUID) -> float:
    plan = [stage.step() for stage in discover((PACKAGE,))]
    intake = registry.Intake(
        owner_id=owner,
        model=f"bench-{uuid4().hex[:8]}",
        version=None,
        bump="minor",
        format="onnx",
        servable=False,
        filename="nothing.onnx",
        size=0,
        sha256="0" * 64,
        staging_key=f"{uuid4()}/model/nothing.onnx",
        declared={},
        side_files={},
    )
    with begin() as session:
        version = registry.add_version(session, intake)
    started = time.perf_counter()
    with begin() as session:
        run_id = engine.submit(session, version_id=version.id, owner_id=owner, plan=plan).id
    for note in listener.notifies(timeout=30):
        if note.payload == str(run_id):
            with begin() as session:
                if store.load(session, run_id).status.terminal:
                    return time.perf_counter() - started
    raise TimeoutError("the run did not end within 30 s")


def _one_chain() -> float:
    started = time.perf_counter()
    chain(noop.si(), *(noop.s() for _ in range(4))).apply_async().get(timeout=30)
    return time.perf_counter() - started


@contextmanager
def _database() -> Iterator[str]:
    """A database of the benchmark's own, named by DATABASE_URL while the block lasts."""
    before, name = os.environ["DATABASE_URL"], f"bench_{uuid4().hex[:8]}"
    url = make_url(before).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(before, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        os.environ["DATABASE_URL"] = url
        try:
            command.upgrade(Config("alembic.ini"), "head")
            yield url
        finally:
            os.environ["DATABASE_URL"] = before
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _processes(url: str) -> Iterator[None]:
    broker = os.environ["REDIS_URL"].rsplit("/", 1)[0] + "/2"
    environment = os.environ | {"DATABASE_URL": url, "REDIS_URL": broker, "STAGE_PACKAGES": f'["{PACKAGE}"]'}
    peer = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "benchmarks.pipeline:PEER",
        "worker",
        "-c1",
        "-Q",
        "peer",
        "-l",
        "ERROR",
    ]
    commands = (
        ([sys.executable, "-m", "workers.relay"], environment),
        ([sys.executable, "-m", "workers", "cpu", "1"], environment),
        (peer, os.environ),
    )
    running = [
        subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for line, env in commands
    ]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
