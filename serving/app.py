"""Puts the inference edge together: `main` from the environment, for `uvicorn --factory serving.app:main` or `python -m serving`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import redis.asyncio
import structlog
from sqlalchemy.exc import SQLAlchemyError

from pipeline import device
from pipeline.errors import Unavailable
from pipeline.sandbox import Zygote, discard, forget_dead_scratch, new_scratch
from registry.logs import keeper
from serving.access import Gatekeeper
from serving.catalog import Catalog
from serving.counting import Counting
from serving.endpoints import Endpoints
from serving.fleet import Fleet, Outfit
from serving.http import Edge
from shared import observe
from shared.allowance import Allowance
from shared.db import connect, transactions
from shared.errors import AdapterError
from shared.settings import Settings
from shared.storage import Storage
from shared.tokens import Receipts, Tokens

log = structlog.get_logger()

PRELOAD = ("numpy", "orjson", "PIL.Image", "onnxruntime", "serving.executor", "pipeline.formats.onnx")
"""What runtime children need; imported once, before they are forked."""
_AWAY = (SQLAlchemyError, psycopg.Error, AdapterError, OSError)


def main() -> Edge:
    """The app as the environment describes it. Connects to nothing yet."""
    settings = Settings()
    kept = keeper(settings.sqlalchemy_url, "serving", settings.log_store_level)
    observe.configure(fmt=settings.log_format, level=settings.log_level, keeper=kept)
    return assemble(settings)


def assemble(settings: Settings) -> Edge:
    """The parts that the settings describe; made in the lifespan, because they belong to its event loop."""
    secrets = [each.get_secret_value() for each in settings.jwt_previous_secrets]
    signer = Tokens(settings.jwt_secret.get_secret_value(), lifetime=settings.jwt_lifetime, previous=secrets)
    receipts = Receipts(settings.jwt_secret.get_secret_value(), previous=secrets)

    @contextlib.asynccontextmanager
    async def lifespan(edge: Edge) -> Any:
        database = connect(settings.sqlalchemy_url, pool_size=4)
        begin = transactions(database)
        client = redis.asyncio.Redis.from_url(
            settings.redis_url.get_secret_value(), socket_timeout=1, socket_connect_timeout=1
        )
        folder = new_scratch(Path(tempfile.gettempdir()))
        bucket = Storage(**settings.storage).bucket(settings.bucket("registry"))
        fleet = Fleet(
            bucket=bucket,
            zygote=Zygote(preload=PRELOAD, prefixes=("serving.",)),
            folder=folder,
            outfit=_outfit(settings),
        )
        catalog, counting = Catalog(begin, fleet), Counting(begin)
        edge.endpoints = Endpoints(
            gate=Gatekeeper(begin, signer, Allowance(client), settings.plans),
            catalog=catalog,
            fleet=fleet,
            counting=counting,
            receipts=receipts,
            timeout=settings.serving_timeout,
            load_wait=settings.serving_load_wait,
        )
        preparing = asyncio.create_task(_prepare(fleet), name="prepare")
        stopping = asyncio.Event()
        loops = [
            asyncio.create_task(_every(settings.serving_refresh, turn, stopping), name=name)
            for name, turn in (("refresh", _refresh(catalog, fleet)), ("counts", counting.write_down))
        ]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(preparing, *loops, return_exceptions=True)
            await fleet.close()
            with contextlib.suppress(*_AWAY):
                await counting.write_down()
            await client.aclose()
            database.dispose()
            discard(folder)

    return Edge(lifespan, largest=settings.serving_max_request, patience=settings.serving_timeout)


async def _prepare(fleet: Fleet) -> None:
    """What would make the first request wait, and what killed processes left here."""
    await asyncio.to_thread(forget_dead_scratch, Path(tempfile.gettempdir()))
    try:
        await fleet.prepare()
    except Unavailable as fault:
        log.error("serving.no_sandbox", code=fault.code, why=fault.message)  # noqa: TRY400 - the message says it all


def _refresh(catalog: Catalog, fleet: Fleet) -> Callable[[], Awaitable[None]]:
    async def turn() -> None:
        fleet.look()
        await catalog.refresh()

    return turn


async def _every(seconds: float, turn: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
    """Until told to stop; a dependency that is away costs a turn, and so does a bug of ours: never the loop."""
    while not stopping.is_set():
        try:
            await turn()
        except _AWAY as error:
            log.warning("serving.dependency_away", error=str(error))
        except Exception:
            log.exception("serving.crashed")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stopping.wait()


def _outfit(settings: Settings) -> Outfit:
    return Outfit(
        memory=settings.serving_memory,
        child_memory=settings.serving_child_memory,
        queue=settings.serving_queue,
        threads=settings.serving_threads or device.cores(),
        largest=settings.serving_max_request,
        device=settings.serving_device,
        gpu=os.environ.get("CUDA_VISIBLE_DEVICES", "0") if settings.serving_device != "cpu" else None,
    )
