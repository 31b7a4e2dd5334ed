"""A task is claim, work, report. Between the two transactions nothing is locked and nobody is trusted to still own the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import DataError, InterfaceError, OperationalError

from pipeline import engine
from pipeline.errors import IllegalTransition, NotFound, Rejected, Stale, Unavailable
from pipeline.run import Broke, Claimed, Passed, Refused
from pipeline.stage import Report, Sandbox, Scanner, Stage
from shared.db import Begin
from shared.errors import AdapterError
from shared.signing import Signer
from shared.storage import Bucket
from workers.context import Abandoned, Workshop
from workers.lease import Lease

log = structlog.get_logger()

RETRY_PAUSE = 1.0
"""Seconds between tries to report."""
UNSPEAKABLE = "An error in Slipway itself: the step's report cannot be stored; the worker's log has the traceback."


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a worker process has at hand; built once, in its composition root. `lease` in seconds.

    `ready` raises `Unavailable` where the machine is in no state to work now: its GPU is full.
    """

    begin: Begin
    staging: Bucket
    registry: Bucket
    quarantine: Bucket
    signer: Signer
    sandbox: Sandbox
    scanner: Scanner | None
    scratch: Path
    lease: float
    options: Mapping[str, Any]
    worker: str
    ready: Callable[[], None] = lambda: None


def work(tools: Tools, stage: Stage, run_id: UUID, attempt: int) -> str:
    """Carry out one attempt of one step. The answer is a word for the log: `passed`, `refused`, `broke`, `stale`, `abandoned`."""
    about = {"run_id": str(run_id), "stage": stage.name, "attempt": attempt}
    try:
        with tools.begin() as session:
            claim = Claimed(stage=stage.name, attempt=attempt, worker=tools.worker, lease=tools.lease)
            run = engine.send(session, run_id, claim)
    except (Stale, IllegalTransition, NotFound) as error:
        log.info("stage.stale", **about, reason=error.message)
        return "stale"

    started = time.monotonic()
    lease = Lease(tools.begin, run_id, stage.name, attempt, seconds=tools.lease, time_limit=run.step.time_limit)
    with lease:
        signal = _attempt(tools, stage, run_id, attempt, lease)
        if signal is None:
            log.info("stage.abandoned", **about, reason=lease.lost)
            return "abandoned"
        outcome = _report(tools, run_id, signal, lease)
    log.info("stage.finished", **about, outcome=outcome, seconds=round(time.monotonic() - started, 3))
    return outcome


def _attempt(tools: Tools, stage: Stage, run_id: UUID, attempt: int, lease: Lease) -> Passed | Refused | Broke | None:
    """What the stage makes of the model, sorted by fault. None: the attempt was taken from us meanwhile."""
    who: dict[str, Any] = {"stage": stage.name, "attempt": attempt}
    try:
        tools.ready()
        with Workshop(tools, stage, run_id, attempt, lease) as workshop:
            report = stage.carry_out(workshop)
            return Passed(**who, report=_stored(report, workshop))
    except Abandoned:
        return _over(lease, who)
    except Rejected as error:
        if lease.lost:  # a child that we ended ourselves says nothing about the model
            return _over(lease, who)
        lease.log(f"Refused: {error.message}")
        report_facts = {"facts": {"code": error.code, "detail": error.message, **error.details}, "files": []}
        return Refused(**who, code=error.code, detail=error.message, report=report_facts)
    except (Unavailable, AdapterError) as error:
        if lease.lost:
            return _over(lease, who)
        lease.log(f"Broke: {error.message}")
        return Broke(**who, code=error.code, detail=error.message)
    except (OperationalError, InterfaceError) as error:
        if lease.lost:
            return _over(lease, who)
        log.warning("stage.database_away", run_id=str(run_id), **who, error=str(error))
        return Broke(**who, code="database_unavailable", detail="The database was away while the step worked.")
    except Exception:
        if lease.lost:
            return _over(lease, who)
        log.exception("stage.crashed", run_id=str(run_id), **who)
        lease.log("Broke: an error in Slipway itself; the operator finds it in the worker's log.")
        return Broke(**who, code="internal", detail="An error in Slipway itself; the worker's log has the traceback.")


def _over(lease: Lease, who: Mapping[str, Any]) -> Broke | None:
    """Out of time is still ours to report; anything else was taken from us."""
    if lease.timed_out:
        return Broke(**who, code="step_timeout", detail="The step took longer than its plan allows.")
    return None


def _stored(report: Report, workshop: Workshop) -> dict[str, Any]:
    files = [workshop.store(made) for made in report.files]
    return {"facts": dict(report.facts), "files": files, "key": report.key}


def _report(tools: Tools, run_id: UUID, signal: Passed | Refused | Broke, lease: Lease) -> str:
    """Tell the engine. Minutes of work are not thrown away for a database that restarts: the lease says how long to try.

    A run that was cancelled or taken over in the last moment is not ours to change.
    """
    outcome, in_doubt = type(signal).__name__.lower(), False
    while True:
        try:
            with tools.begin() as session:
                engine.send(session, run_id, signal)
        except (Stale, IllegalTransition, NotFound):
            return outcome if in_doubt else "stale"
        except DataError as error:
            log.exception("stage.report_refused", run_id=str(run_id), error=str(error))
            signal = Broke(stage=signal.stage, attempt=signal.attempt, code="internal", detail=UNSPEAKABLE)
            outcome = "broke"
        except (OperationalError, InterfaceError) as error:
            log.warning("stage.report_waits", run_id=str(run_id), error=str(error))
            if lease.lost and not lease.timed_out:
                return "abandoned"
            in_doubt = True  # the commit may have gone through before the connection broke
            time.sleep(RETRY_PAUSE)
        else:
            return outcome
