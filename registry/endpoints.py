"""How a model is served where that differs from how all are: who may ask, how often, how long an answer may take.

A model without a row is served by the rules of all: callers have a right, their plan says how often, the settings how long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry import audit
from registry.audit import Actor
from registry.errors import Denied, Outdated
from registry.tables import endpoints, models

_RULES = ("auth_required", "requests_per_minute", "timeout_ms")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """`requests_per_minute` is of each caller, None: as their plan says. `timeout_ms` None: as the settings say.

    Without `auth_required` anybody may ask for predictions and for what the model takes and gives, and for nothing else,
    also where the model is private.
    """

    auth_required: bool = True
    requests_per_minute: int | None = None
    timeout_ms: int | None = None
    revision: int = 1


def of(session: Session, model_ids: Collection[UUID]) -> dict[UUID, Endpoint]:
    """The endpoint of every one of these models."""
    query = select(endpoints).where(endpoints.c.model_id.in_(set(model_ids)))
    said = {row.model_id: row for row in session.execute(query)}
    return {
        model_id: Endpoint(**{name: getattr(said[model_id], name) for name in (*_RULES, "revision")})
        if model_id in said
        else Endpoint()
        for model_id in model_ids
    }


def change(
    session: Session,
    model_id: UUID,
    changes: Mapping[str, Any],
    *,
    expected: int | None = None,
    may_open: bool = True,
    actor: Actor,
) -> Endpoint:
    """Change what is given of `auth_required`, `requests_per_minute` and `timeout_ms`; the endpoint as it is then.

    Raises `Outdated` where it has another revision than the one that was seen, `Denied` where a private model's is to be
    opened by somebody who does not `may_open` it. The audit says what it was before, and whether a private model is open to
    everybody now.
    """
    # The model's lock: a row that is not there yet cannot be locked.
    visibility = session.execute(
        select(models.c.visibility).where(models.c.id == model_id).with_for_update()
    ).scalar_one()
    if changes.get("auth_required") is False and visibility == "private" and not may_open:
        raise Denied("not_granted", "Only its owner and admins open the endpoint of a private model to everybody.")
    before = of(session, [model_id])[model_id]
    if expected not in (None, before.revision):
        raise Outdated("endpoint_changed", "The endpoint has changed since you read it; read it again.")
    different = {name: value for name, value in changes.items() if value != getattr(before, name)}
    if not different:
        return before
    values = {"updated_by": actor.id, "updated_at": func.now(), "revision": before.revision + 1, **different}
    written = upsert(endpoints).values(model_id=model_id, **values)
    session.execute(written.on_conflict_do_update(index_elements=["model_id"], set_=values))
    after = of(session, [model_id])[model_id]
    told = {name: {"from": getattr(before, name), "to": value} for name, value in different.items()}
    opened = {"open_to_everybody": True} if not after.auth_required and visibility == "private" else {}
    audit.append(session, actor, "endpoint.changed", str(model_id), told | opened)
    return after
