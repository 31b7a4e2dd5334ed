"""Whether this process lives, takes work, and what its dependencies say. Open to all, so it names no address."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import redis
import structlog
from fastapi import APIRouter, Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.deps import Parts, Problem, Services, principal
from api.schemas.health import About, Alive, Component, Endpoint, Health, Metrics
from api.traffic import Figures
from shared.antivirus import Clamd
from shared.db import Begin
from shared.errors import DependencyUnavailable
from shared.settings import Settings
from shared.storage import Bucket

log = structlog.get_logger()

router = APIRouter(tags=["health"])

PATIENCE = 3.0
"""Seconds: what has not answered by then counts as down."""

Status = Literal["ready", "degraded", "not_ready"]
Check = Callable[[], Component]

OK = Component(status="ok", detail="answers")
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Health, "description": "Something is down without which no upload can be taken."}
}


class Vitals:
    """Asks every dependency at the same time. One that hangs is not asked a second time while it does."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._pool = ThreadPoolExecutor(max_workers=len(checks), thread_name_prefix="vitals")
        self._asked: dict[str, Future[Component]] = {}
        self._lock = Lock()

    def take(self) -> dict[str, Component]:
        """What each says, within `PATIENCE`."""
        with self._lock:
            for name, check in self._checks.items():
                if name not in self._asked:
                    self._asked[name] = self._pool.submit(check)
            asked = dict(self._asked)
        wait(asked.values(), timeout=PATIENCE)
        with self._lock:
            for name, future in asked.items():
                if future.done() and self._asked.get(name) is future:
                    del self._asked[name]
        return {name: _outcome(name, future) for name, future in asked.items()}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def checks(parts: Services) -> dict[str, Check]:
    """How each dependency is asked."""
    return {
        "database": partial(_database, parts.begin),
        "migrations": partial(_migrations, parts.begin, _head()),
        "redis": partial(_redis, parts.redis),
        "storage": partial(_storage, (parts.staging, parts.registry, parts.quarantine, parts.exports)),
        "antivirus": partial(_antivirus, parts.settings),
        "sandbox": _sandbox,
    }


@router.get("/livez", summary="Is the process alive")
def livez() -> Alive:
    """Asks nobody else."""
    return Alive()


@router.get("/readyz", summary="Does it take work", responses=NOT_READY)
def readyz(request: Request, response: Response) -> Health:
    """503 while something is down without which no upload can be taken."""
    return _health(request, response, detailed=True)


@router.get(
    "/health",
    summary="How is it",
    responses=NOT_READY,
    openapi_extra={"security": [{}, {"bearer": []}]},
)
def health(request: Request, response: Response, parts: Parts, *, detailed: bool = False) -> Health:
    """As `/readyz`; with `detailed=true` the components and, for admins, how the requests of this one process went.

    Of several API processes each tells of itself alone, since it began; probes are not counted, event streams not timed.
    """
    said = _health(request, response, detailed=detailed)
    if detailed and _admin_asks(request, parts):
        figures = request.app.state.traffic.figures()
        said.metrics, said.top_endpoints = _metrics(figures), _top(figures)
    return said


@router.get("/version", summary="What is it")
def version(request: Request, parts: Parts) -> About:
    """The program's version, and what it can take in."""
    return About(
        name="slipway",
        version=request.app.version,
        api="v1",
        formats=[each.name for each in parts.formats],
        stages=[each.name for each in parts.stages],
    )


def _health(request: Request, response: Response, *, detailed: bool) -> Health:
    vitals: Vitals = request.app.state.vitals
    components = vitals.take()
    status = _overall(components)
    if status == "not_ready":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Health(status=status, timestamp=datetime.now(UTC), components=components if detailed else None)


def _admin_asks(request: Request, parts: Services) -> bool:
    """Whoever is nobody, or cannot be looked up now, gets the open part: a probe must have an answer."""
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential:
        return False
    try:
        return principal(request, parts, HTTPAuthorizationCredentials(scheme=scheme, credentials=credential)).may(
            "admin"
        )
    except Problem:
        return False
    except SQLAlchemyError as error:
        log.warning("health.nobody_known", error=type(error).__name__)
        return False


def _metrics(figures: Figures) -> Metrics:
    import psutil

    total = figures.total
    return Metrics(
        uptime_seconds=round(figures.uptime, 1),
        total_requests=total.requests,
        successful_requests=total.requests - total.failed,
        failed_requests=total.failed,
        error_rate_percent=round(100 * total.failed / total.requests, 2) if total.requests else 0.0,
        avg_response_time_ms=_ms(total.average),
        p95_response_time_ms=_ms(figures.p95),
        p99_response_time_ms=_ms(figures.p99),
        cpu_percent=psutil.cpu_percent(interval=None),
        memory_percent=psutil.virtual_memory().percent,
        disk_percent=psutil.disk_usage("/").percent,
    )


def _top(figures: Figures) -> list[Endpoint]:
    return [
        Endpoint(endpoint=name, count=each.requests, errors=each.failed, avg_response_ms=_ms(each.average))
        for name, each in figures.top
    ]


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def _overall(components: Mapping[str, Component]) -> Status:
    said = {component.status for component in components.values()}
    if "down" in said:
        return "not_ready"
    return "degraded" if said & {"degraded", "off"} else "ready"


def _outcome(name: str, future: Future[Component]) -> Component:
    if not future.done():
        return Component(status="degraded" if name == "redis" else "down", detail=f"no answer within {PATIENCE:g} s")
    error = future.exception()
    if error is None:
        return future.result()
    log.warning("health.down", component=name, error=str(error).splitlines()[0])
    return Component(status="down", detail="does not answer")


def _database(begin: Begin) -> Component:
    with begin() as session:
        session.execute(text("SELECT 1"))
    return OK


def _migrations(begin: Begin, head: str) -> Component:
    found = _revision(begin)
    if found == head:
        return Component(status="ok", detail=f"at {head}")
    return Component(status="down", detail=f"the database is at {found}, this program needs {head}: migrate")


def _redis(client: redis.Redis) -> Component:
    """Down is no reason to refuse work: uploads go on, their doorbells wait in the outbox."""
    try:
        client.ping()
    except redis.RedisError as error:
        log.warning("health.redis", error=str(error))
        return Component(status="degraded", detail="does not answer; uploads are taken, work starts later")
    return OK


def _storage(buckets: Sequence[Bucket]) -> Component:
    for bucket in buckets:
        bucket.ping()
    return OK


def _antivirus(settings: Settings) -> Component:
    """A daemon that answers is not enough: it must find the test virus, and know the viruses of this week."""
    if settings.clamd_url is None:
        return Component(status="off", detail="no CLAMD_URL: nothing is scanned for viruses (development only)")
    down: Literal["down", "degraded"] = "down" if settings.environment == "production" else "degraded"
    try:
        found = Clamd(settings.clamd_url, connect_timeout=PATIENCE, answer_timeout=PATIENCE).condition()
    except DependencyUnavailable as error:
        log.warning("health.antivirus", error=str(error))
        return Component(status=down, detail="does not answer; runs wait at their scan")
    if not found.finds_test_virus:
        return Component(status=down, detail=f"{found.engine} does not find the EICAR test virus: no signatures?")
    if found.made is None:
        detail = f"{found.engine}, only our own test signatures, no virus database: not protection (run freshclam)"
        return Component(status="degraded", detail=detail)
    days = (datetime.now(UTC) - found.made).total_seconds() / 86400
    detail = f"{found.engine}, signatures of {found.made:%Y-%m-%d}, {_days(days)} old"
    if days * 86400 > settings.signatures_max_age:
        return Component(status="degraded", detail=f"{detail}: stale, is freshclam running?")
    return Component(status="ok", detail=detail)


def _days(days: float) -> str:
    whole = max(0, int(days))
    return f"{whole} day" if whole == 1 else f"{whole} days"


def _sandbox() -> Component:
    from pipeline.sandbox import supported

    support = supported()
    refused = support.refused
    if refused:
        return Component(
            status="degraded", detail=f"none on the API's machine (workers look for themselves): {refused}"
        )
    limits = "rlimits alone" if support.cgroup_missing else "rlimits and cgroups"
    return Component(
        status="ok", detail=f"the API's machine can lock a child down; limits there: {limits} (workers log theirs)"
    )


def _head() -> str:
    """The newest migration that this program brings."""
    from alembic.script import ScriptDirectory

    import migrations

    return str(ScriptDirectory(Path(migrations.__path__[0])).get_current_head())


def _revision(begin: Begin) -> str | None:
    """The newest migration that the database has seen."""
    from alembic.runtime.migration import MigrationContext

    with begin() as session:
        return MigrationContext.configure(session.connection()).get_current_revision()
