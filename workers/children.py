"""The processes of a worker: their tasks, and what each child works with. Celery asks this loader whenever one begins.

A composition root: a child may be forked, and have everything that its parent had, or spawned, and have nothing but the
environment. Connections are made in the child, because they survive neither.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from billiard.process import current_process
from celery.loaders.app import AppLoader
from celery.signals import worker_process_shutdown

from pipeline.formats import PRELOAD
from pipeline.opinions import check
from pipeline.sandbox import Zygote, new_scratch
from pipeline.stage import Stage, discover
from registry import logs
from shared import observe
from shared.antivirus import Clamd
from shared.db import connect, transactions
from shared.settings import Settings
from shared.signing import Signer
from shared.storage import Storage
from workers.app import POOL, POOLS, task_name
from workers.devices import Device, devices, pin, require_memory
from workers.scanner import ClamdScanner
from workers.tasks import Tools, work


class Loader(AppLoader):
    """Registers a task for each stage where a worker process begins, and builds its tools where a child does."""

    tools: Tools

    def on_worker_init(self) -> None:
        """In the parent, and once more in a spawned child."""
        for stage in discover(Settings().stage_packages):
            self._register(stage)

    def on_worker_process_init(self) -> None:
        settings = Settings()
        keeper = logs.keeper(settings.sqlalchemy_url, os.environ[POOL], settings.log_store_level)
        observe.configure(fmt=settings.log_format, level=settings.log_level, keeper=keeper)
        per_device = POOLS[os.environ[POOL]].per_device
        device = pin(current_process().index, devices()) if per_device else None  # type: ignore[attr-defined]
        zygote = _zygote(settings)
        scratch = new_scratch(Path(tempfile.gettempdir()))
        self.tools = _tools(settings, zygote, scratch, device)

        def close(**_: Any) -> None:
            zygote.close()
            shutil.rmtree(scratch, ignore_errors=True)
            if keeper is not None:
                keeper.close()

        worker_process_shutdown.connect(close, weak=False)

    def _register(self, stage: Stage) -> None:
        def task(run_id: str, attempt: int) -> str:
            return work(self.tools, stage, UUID(run_id), attempt)

        task.__doc__ = f"One attempt of the step {stage.name!r}."
        self.app.task(name=task_name(stage.name), shared=False)(task)


def _zygote(settings: Settings) -> Zygote:
    opinions = check(settings.second_opinions)
    prefixes = (
        "pipeline.",
        *(f"{package}." for package in settings.stage_packages),
        *(f"{module}." for module in opinions),
    )
    return Zygote(preload=(*PRELOAD, *opinions), prefixes=prefixes)


def _tools(settings: Settings, zygote: Zygote, scratch: Path, device: Device | None) -> Tools:
    storage = Storage(**settings.storage)
    return Tools(
        begin=transactions(connect(settings.sqlalchemy_url, pool_size=2)),
        staging=storage.bucket(settings.bucket("staging")),
        registry=storage.bucket(settings.bucket("registry")),
        quarantine=storage.bucket(settings.bucket("quarantine")),
        signer=Signer(settings.signing_key.get_secret_value()),
        sandbox=zygote,
        scanner=ClamdScanner(Clamd(settings.clamd_url)) if settings.clamd_url else None,
        scratch=scratch,
        lease=settings.lease,
        options={
            "benchmark_timeout": settings.benchmark_timeout,
            "benchmark_rounds": settings.benchmark_rounds,
            "second_opinions": settings.second_opinions,
            "gpu": None if device is None else device.uuid,
        },
        worker=f"{os.environ[POOL]}@{socket.gethostname()}:{os.getpid()}",
        ready=(lambda: None) if device is None else partial(require_memory, device, settings.gpu_memory),
    )
