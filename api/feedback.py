"""Feedback over HTTP: whether predictions were right, told later by those who got them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from sqlalchemy.orm import Session

from api.deps import Parts, Principal, Transaction, require
from api.errors import documented
from api.schemas.feedback import Batch, NewFeedback, Recorded, Unrecorded
from registry import feedback, lookup
from registry.errors import Conflict, Invalid, Missing, RegistryError
from registry.feedback import Judged
from shared.tokens import Receipts, TokenRefused

router = APIRouter(tags=["rollouts"])

Predictor = Annotated[Principal, Depends(require("models:predict"))]


@router.post(
    "/feedback",
    summary="Tell whether predictions were right",
    responses=documented(
        "unauthenticated",
        "forbidden",
        "not_granted",
        "model_not_found",
        "version_not_found",
        "prediction_judged",
        "invalid_prediction",
        "prediction_without_label",
        "invalid_field",
    ),
)
def give(wish: NewFeedback | Batch, asking: Predictor, session: Transaction, parts: Parts) -> Recorded:
    """With the receipt that came with each as the header `Slipway-Prediction`; each is judged once.

    Of a list, up to 1000, what can be taken down is, and `refused` says why the rest was not; sending it again is harmless.
    """
    wishes = wish if isinstance(wish, list) else [wish]
    judged, refused = _read(session, asking, parts.receipts, wishes)
    kept = feedback.record(session, list(judged.values()), given_by=asking.user_id) if judged else set()
    for index, each in judged.items():
        if each.prediction_id in kept:
            kept.discard(each.prediction_id)  # the same one twice in a list counts once
        else:
            refused[index] = Conflict(
                "prediction_judged", "This prediction has been judged already; each is judged once."
            )
    if refused and not isinstance(wish, list):
        raise refused[0]
    right = [each.right for index, each in judged.items() if index not in refused]
    return Recorded(
        recorded=len(right),
        right=sum(right),
        wrong=len(right) - sum(right),
        refused=[
            Unrecorded(index=index, code=error.code, detail=error.message) for index, error in sorted(refused.items())
        ],
    )


def _read(
    session: Session, asking: Principal, receipts: Receipts, wishes: Sequence[NewFeedback]
) -> tuple[dict[int, Judged], dict[int, RegistryError]]:
    """What can be taken down, and what cannot, each by its place in the list."""
    judged: dict[int, Judged] = {}
    refused: dict[int, RegistryError] = {}
    for index, wish in enumerate(wishes):
        try:
            judged[index] = _judged(receipts, wish)
        except RegistryError as error:
            refused[index] = error
    models = feedback.models_of(session, [each.version_id for each in judged.values()])
    allowed: dict[UUID, RegistryError | None] = {}
    for index, each in list(judged.items()):
        model_id = models.get(each.version_id)
        if model_id is None:
            refused[index] = Missing("version_not_found", "The version that answered is not here any more.")
        else:
            if model_id not in allowed:
                allowed[model_id] = _refusal(session, asking, model_id)
            if (why := allowed[model_id]) is not None:
                refused[index] = why
        if index in refused:
            del judged[index]
    return judged, refused


def _judged(receipts: Receipts, wish: NewFeedback) -> Judged:
    try:
        receipt = receipts.read(wish.prediction)
        right = wish.correct if wish.label is None else receipts.agrees(wish.prediction, wish.label)
    except TokenRefused as error:
        detail = f"{error} Send the header Slipway-Prediction of the answer as it was."
        raise Invalid("invalid_prediction", detail) from error
    if right is None:
        detail = "That answer had no single label to compare yours with; say correct=true or correct=false."
        raise Invalid("prediction_without_label", detail)
    return Judged(
        prediction_id=receipt.id,
        version_id=receipt.version_id,
        rollout_id=receipt.rollout_id,
        arm=receipt.arm,
        right=right,
        label=wish.label,
    )


def _refusal(session: Session, asking: Principal, model_id: UUID) -> RegistryError | None:
    """Why the asker may not judge what this model predicts."""
    try:
        lookup.find_model(session, asking.viewer, str(model_id), permission="models:predict")
    except RegistryError as error:
        return error
    return None
