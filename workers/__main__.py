"""`python -m workers cpu|bench|gpu [CHILDREN]` starts a worker of that pool; `python -m workers flower` watches them all."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import structlog
from celery import Celery

from pipeline import extras
from pipeline.opinions import check
from pipeline.sandbox import cgroup, forget_dead_scratch
from pipeline.stage import Stage, discover
from registry import logs
from shared import observe
from shared.settings import Settings
from shared.signing import Signer
from workers.app import POOL, POOLS, create, queues
from workers.devices import devices
from workers.presence import Presence

log = structlog.get_logger()


def main() -> None:
    names = (*POOLS, "flower")
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(f"usage: python -m workers {'|'.join(names)} [CHILDREN]")
    settings = Settings()
    keeper = logs.keeper(settings.sqlalchemy_url, sys.argv[1], settings.log_store_level)
    observe.configure(fmt=settings.log_format, level=settings.log_level, keeper=keeper)
    stages = discover(settings.stage_packages)
    app = create(settings.redis_url.get_secret_value(), stages)
    if sys.argv[1] == "flower":
        _flower(app, settings)
    else:
        check(settings.second_opinions)
        Signer(settings.signing_key.get_secret_value())  # a bad key is told here, not by children that die of it
        _worker(app, settings, stages, int(sys.argv[2]) if len(sys.argv) > 2 else None)


def _worker(app: Celery, settings: Settings, stages: Sequence[Stage], wanted: int | None) -> None:
    name = sys.argv[1]
    pool = POOLS[name]
    served = queues(pool, stages, extras.installed())
    found = devices() if pool.per_device else []
    if pool.per_device and not found:
        log.warning("worker.no_device", pool=name, hint="nvidia-smi lists no GPU that this process may use")
    children = wanted or (len(found) if found else pool.concurrency) or os.cpu_count() or 1
    os.environ[POOL] = name
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")  # SIGTERM lets the step under way end (Celery's soft shutdown)
    app.conf.worker_pool_start_method = POOLS[name].start_method
    forget_dead_scratch(Path(tempfile.gettempdir()))
    # Before there are children: on cgroup v2 they follow us only as long as they are not born.
    try:
        limits = f"rlimits, cgroup v{cgroup.prepare().version}"
    except cgroup.Unusable as why:
        limits = "rlimits"
        log.warning("worker.without_cgroups", why=str(why))
    log.info("worker.started", pool=name, queues=served, children=children, sandbox_limits=limits)
    told = [device.facts() for device in found]
    with Presence(settings.sqlalchemy_url, pool=name, queues=served, devices=told):
        app.worker_main(
            [
                "worker",
                "--queues",
                ",".join(served),
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
