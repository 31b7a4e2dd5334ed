"""Net scores over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from api.deps import Parts, Principal, Transaction, require
from api.errors import documented
from api.schemas.scores import Score, SubScore
from pipeline import appraisal
from registry import lookup

router = APIRouter(prefix="/models/{model}/versions/{version}/score", tags=["scores"])

Reader = Annotated[Principal, Depends(require("models:read"))]


@router.get(
    "",
    summary="Read a version's net score",
    responses=documented("unauthenticated", "forbidden", "model_not_found", "version_not_found"),
)
def read_score(model: str, version: str, asking: Reader, session: Transaction, parts: Parts) -> Score:
    """One figure from 0 to 1, what it is made of, and why each part is what it is. Worked out anew each time."""
    owner = lookup.find_model(session, asking.viewer, model)
    row = lookup.find_version(session, owner.id, version)
    found = appraisal.net_score(session, asking.viewer, row.id, wanted_licence=parts.settings.project_licence)
    return Score(
        version=row.version,
        net_score=found.net_score,
        known=found.known,
        sub_scores=[
            SubScore(name=one.name, weight=one.weight, value=one.value, because=one.because, parts=dict(one.parts))
            for one in found.sub_scores
        ],
    )
