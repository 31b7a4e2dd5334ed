"""Usage and quotas over HTTP: how much a model is used, how much a user has and may have."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from api.deps import Asking, Parts, Principal, Transaction, require
from api.errors import documented, invalid
from api.schemas.usage import Account, Amount, Day, OfVersion, Quota, Usage
from registry import audit, feedback, lookup, quotas, usage
from registry.feedback import Score

router = APIRouter()

Reader = Annotated[Principal, Depends(require("models:read"))]
Admin = Annotated[Principal, Depends(require("admin"))]


@router.get(
    "/models/{model}/usage",
    tags=["models"],
    summary="Read a model's usage",
    responses=documented("unauthenticated", "forbidden", "model_not_found", "invalid_field"),
)
def read_usage(
    model: str, asking: Reader, session: Transaction, days: Annotated[int, Query(ge=1, le=3650)] = 30
) -> Usage:
    """Downloads and predictions of the last days (UTC), today among them, and what feedback on predictions has said.

    Who downloaded is in the audit trail.
    """
    row = lookup.find_model(session, asking.viewer, model)
    use = usage.of_model(session, row.id, days=days)
    scores = feedback.of_model(session, row.id, days=days)
    by_version = dict.fromkeys(scores, usage.Used()) | dict(use.by_version)
    return Usage(
        days=days,
        **_used(use.total),
        by_day=[Day(day=day, **_used(used)) for day, used in use.by_day],
        by_version=[
            OfVersion(version=version, **_used(used), **_judged(scores.get(version, Score())))
            for version, used in by_version.items()
        ],
    )


@router.get(
    "/me/usage",
    tags=["people"],
    summary="Read what I have and may have",
    responses=documented("unauthenticated"),
)
def read_account(asking: Asking, session: Transaction, parts: Parts) -> Account:
    """Models and bytes, used and allowed."""
    return _account(quotas.account(session, asking.user_id, parts.settings.plans))


@router.put(
    "/users/{user_id}/quota",
    tags=["people"],
    summary="Set a user's quota",
    responses=documented("unauthenticated", "forbidden", "user_not_found", "invalid_field"),
)
def set_quota(user_id: UUID, wish: Quota, asking: Admin, session: Transaction, parts: Parts) -> Account:
    """Only admins may. Nothing is taken away from a user who has more already; nothing more is let in."""
    if wish.plan not in parts.settings.plans:
        raise invalid({"body.plan": f"is none of {', '.join(parts.settings.plans)}"})
    quotas.set_for(session, user_id, plan=wish.plan, max_models=wish.max_models, max_bytes=wish.max_bytes)
    account = quotas.account(session, user_id, parts.settings.plans)
    audit.append(session, asking.actor, "quota.set", str(user_id), wish.model_dump())
    return _account(account)


def _used(used: usage.Used) -> dict[str, Any]:
    return {
        "downloads": used.downloads,
        "predictions": used.predictions,
        "bytes": used.bytes,
        "last_used": used.last_used,
    }


def _judged(score: Score) -> dict[str, Any]:
    total = score.right + score.wrong
    return {"right": score.right, "wrong": score.wrong, "accuracy": round(score.right / total, 6) if total else None}


def _account(account: quotas.Account) -> Account:
    return Account(
        plan=account.plan,
        models=Amount(used=account.models.used, allowed=account.models.allowed),
        bytes=Amount(used=account.bytes.used, allowed=account.bytes.allowed),
    )
