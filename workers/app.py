"""The Celery side of the pipeline: one task per stage, each on its stage's queue. Celery carries doorbells, nothing else.

No result backend, no canvas, no retry of Celery's own: state, attempts and leases are rows in Postgres.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from celery import Celery

from pipeline import extras
from pipeline.stage import Stage

TASK_PREFIX = "stage."

POOL = "SLIPWAY_POOL"
"""Environment variable in which a worker tells its children what pool they are of."""

HALF_A_DAY = 43_200


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A kind of worker process: the queues it serves and how many children it forks (None: one per CPU).

    `per_device`: one for each GPU instead, where there are any, which has that one for itself.
    """

    queues: tuple[str, ...]
    concurrency: int | None
    start_method: str = "fork"
    per_device: bool = False


POOLS = {
    # Queues take turns, so that a thousand re-scans do not stand before an upload.
    "cpu": Pool(queues=("scan", "cpu", "convert", "default", "rescan"), concurrency=None),
    # Measurements do not share a core with each other.
    "bench": Pool(queues=("bench",), concurrency=1),
    # One process per device, started afresh: CUDA does not survive a fork.
    "gpu": Pool(queues=("gpu",), concurrency=1, start_method="spawn", per_device=True),
}


def queues(pool: Pool, stages: Iterable[Stage], installed: Collection[str]) -> tuple[str, ...]:
    """The pool's queues and, of those stages that open what was uploaded, one for each extra that is installed here."""
    opening = sorted({stage.queue for stage in stages if stage.opens_source and stage.queue in pool.queues})
    return (*pool.queues, *(extras.queue(name, extra) for name in opening for extra in installed))


def task_name(stage: str) -> str:
    return TASK_PREFIX + stage


def create(redis_url: str, stages: Iterable[Stage]) -> Celery:
    """The Celery app with its routes. Connects to nothing until used."""
    app = Celery("slipway", broker=redis_url, set_as_current=False, loader="workers.children:Loader")
    app.conf.update(
        task_routes={task_name(stage.name): {"queue": stage.queue} for stage in stages},
        task_default_queue="default",
        task_ignore_result=True,
        # A message is a doorbell: acknowledged before the work begins, never given out twice for working long.
        task_acks_late=False,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=True,
        task_send_sent_event=True,
        worker_soft_shutdown_timeout=20.0,
        worker_enable_soft_shutdown_on_idle=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": HALF_A_DAY,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        task_publish_retry=False,
    )
    return app
