"""Looks at the figures of every rollout that runs, and does what they say."""

from __future__ import annotations

import structlog
from sqlalchemy.exc import SQLAlchemyError

from pipeline import launching
from pipeline.promotability import Trust
from registry import rollouts
from shared.db import Begin
from shared.errors import DependencyUnavailable

log = structlog.get_logger()


def settle(begin: Begin, trust: Trust) -> int:
    """Promote, roll back or stop those that are decided, each in a transaction of its own. How many were.

    Whoever dies over one has changed nothing, and of two at once one finds it ended. One whose gates cannot be asked now,
    because storage is away, waits for the next look and holds up no other.
    """
    with begin() as session:
        running = [(row.model_id, row.id) for row in rollouts.running(session)]
    ended = 0
    for model_id, rollout_id in running:
        try:
            with begin() as session:
                row = launching.settle(session, model_id, rollout_id, trust)
        except DependencyUnavailable as error:
            log.warning("rollout.put_off", rollout_id=str(rollout_id), error=error.message)
            continue
        except SQLAlchemyError:
            raise
        except Exception:
            log.exception("rollout.crashed", rollout_id=str(rollout_id))  # a fault of ours holds up no other either
            continue
        if row is not None:
            ended += 1
            log.info("rollout.ended", rollout_id=str(rollout_id), status=row.status, reason=row.reason)
    return ended
