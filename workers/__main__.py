"""`python -m workers cpu|bench|gpu [CHILDREN]` starts a worker of that pool; `python -m workers flower` watches them all."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown

from pipeline.formats import PRELOAD
from pipeline.opinions import check
from pipeline.sandbox import Zygote
from pipeline.stage import Stage, discover
from shared import observe
from shared.antivirus import Clamd
from shared.db import connect, transactions
from shared.settings import Settings
from shared.storage import Storage
from workers.app import POOLS, create, task_name
from workers.context import PASSABLE
from workers.scanner import ClamdScanner
from workers.tasks import Tools, work

log = structlog.get_logger()

SCRATCH = "slipway-scratch-"


def main() -> None:
    names = (*POOLS, "flower")
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(f"usage: python -m workers {'|'.join(names)} [CHILDREN]")
    settings = Settings()
    observe.configure(fmt=settings.log_format, level=settings.log_level)
    stages = discover(settings.stage_packages)
    app = create(settings.redis_url.get_secret_value(), stages)
    if sys.argv[1] == "flower":
        _flower(app, settings)
    else:
        children = int(sys.argv[2]) if len(sys.argv) > 2 else POOLS[sys.argv[1]].concurrency
        _worker(app, settings, stages, sys.argv[1], children or os.cpu_count() or 1)


def _worker(app: Celery, settings: Settings, stages: tuple[Stage, ...], name: str, children: int) -> None:
    pool = POOLS[name]
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")  # SIGTERM lets the step under way end (Celery's soft shutdown)
    app.conf.worker_pool_start_method = pool.start_method
    _forget_dead_scratch()
    opinions = check(settings.second_opinions)
    prefixes = (
        "pipeline.",
        *(f"{package}." for package in settings.stage_packages),
        *(f"{module}." for module in opinions),
    )
    zygote = Zygote(preload=(*PRELOAD, *opinions), prefixes=prefixes)
    made: dict[str, Tools] = {}

    @worker_process_init.connect(weak=False)
    def build(**_: Any) -> None:
        made["tools"] = _tools(settings, name, zygote)

    @worker_process_shutdown.connect(weak=False)
    def close(**_: Any) -> None:
        zygote.close()
        if "tools" in made:
            shutil.rmtree(made["tools"].scratch, ignore_errors=True)

    for stage in stages:
        _register(app, stage, made)
    log.info("worker.started", pool=name, queues=pool.queues, children=children)
    app.worker_main(
        [
            "worker",
            "--queues",
            ",".join(pool.queues),
            "--concurrency",
            str(children),
            "--hostname",
            f"{name}@%h",
            "--loglevel",
            "WARNING",
            "--without-gossip",
            "--without-mingle",
        ]
    )


def _register(app: Celery, stage: Stage, made: dict[str, Tools]) -> None:
    def task(run_id: str, attempt: int) -> str:
        return work(made["tools"], stage, UUID(run_id), attempt)

    task.__doc__ = f"One attempt of the step {stage.name!r}."
    app.task(name=task_name(stage.name), shared=False)(task)


def _tools(settings: Settings, pool: str, zygote: Zygote) -> Tools:
    """What one worker child works with; made after the fork, because connections do not survive one."""
    storage = Storage(
        endpoint_url=settings.s3_endpoint_url,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        region=settings.s3_region,
    )
    scratch = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-"))
    scratch.chmod(PASSABLE)
    return Tools(
        begin=transactions(connect(settings.sqlalchemy_url, pool_size=2)),
        staging=storage.bucket(settings.bucket("staging")),
        registry=storage.bucket(settings.bucket("registry")),
        quarantine=storage.bucket(settings.bucket("quarantine")),
        sandbox=zygote,
        scanner=ClamdScanner(Clamd(settings.clamd_url)) if settings.clamd_url else None,
        scratch=scratch,
        lease=settings.lease,
        options={
            "benchmark_timeout": settings.benchmark_timeout,
            "benchmark_rounds": settings.benchmark_rounds,
            "second_opinions": settings.second_opinions,
        },
        worker=f"{pool}@{socket.gethostname()}:{os.getpid()}",
    )


def _forget_dead_scratch() -> None:
    """Remove the scratch folders of workers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        pid = folder.name.removeprefix(SCRATCH).split("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _flower(app: Celery, settings: Settings) -> None:
    password = settings.flower_password.get_secret_value()
    if not password:
        sys.exit("FLOWER_PASSWORD is not set; Flower is not started without one.")
    # By the environment, because a command line can be read by everybody on the machine.
    os.environ["FLOWER_BASIC_AUTH"] = f"{settings.flower_user}:{password}"
    app.start(
        argv=[
            "flower",
            f"--address={settings.slipway_host}",
            f"--port={settings.flower_port}",
            "--inspect_timeout=3000",
        ]
    )


if __name__ == "__main__":
    main()
