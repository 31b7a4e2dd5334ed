"""Licence checks over HTTP: may a project under this licence use that model?"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends

from api.deps import Parts, Principal, Problem, Services, require
from api.errors import documented, invalid
from api.schemas.licence_checks import LicenceAnswer, LicenceQuestion, ProjectLicence
from registry import licence_texts, licences, lookup, store
from registry.licences import Answer, Expression, Verdict
from registry.lookup import Viewer

router = APIRouter(tags=["licences"])

Reader = Annotated[Principal, Depends(require("models:read"))]

LOOKUPS = 60
"""GitHub repositories that one user may ask about in an hour."""
_MAY_SAY = (
    *("unauthenticated", "forbidden", "model_not_found", "version_not_found", "invalid_field", "repository_unknown"),
    *("rate_limited", "github_unavailable"),
)


@router.post("/models/{model}/licence-check", summary="Check a licence", responses=documented(*_MAY_SAY))
def check_model_licence(model: str, body: ProjectLicence, asking: Reader, parts: Parts) -> LicenceAnswer:
    """Whether a project may use the model, build it in or fine-tune it, and still be handed out under its own licence."""
    return _answer(model, body, asking, parts)


@router.post("/licence-check", summary="Check a licence against a model", responses=documented(*_MAY_SAY))
def check_licence(body: LicenceQuestion, asking: Reader, parts: Parts) -> LicenceAnswer:
    """The same, with the model in the body."""
    return _answer(body.model_id, body, asking, parts)


def _answer(model: str, body: ProjectLicence, asking: Principal, parts: Services) -> LicenceAnswer:
    # No transaction stays open while GitHub thinks.
    model_id, declared = _declared(parts, asking.viewer, model, body.version)
    project = _project(body, asking, parts)
    found = _expression(declared)
    answer = _judged(project, found, declared)
    return LicenceAnswer(
        answer=answer.verdict.name.lower(),
        compatible=_COMPATIBLE[answer.verdict],
        project_licence=None if project is None else licences.written(project),
        model_licence=declared if found is None else licences.written(found),
        model_families=[] if found is None else licences.families(found),
        model_id=model_id,
        reason=answer.reason,
        warnings=list(answer.warnings),
    )


_COMPATIBLE = {Verdict.COMPATIBLE: True, Verdict.INCOMPATIBLE: False, Verdict.UNKNOWN: None}


def _declared(parts: Services, viewer: Viewer, model: str, version: str) -> tuple[UUID, str | None]:
    """The model, and the licence that the version declares, or else the model. A model without versions has its own."""
    with parts.begin() as session:
        row = lookup.find_model(session, viewer, model)
        if version == "latest" and not store.list_versions(session, row.id):
            return row.id, row.licence
        found = lookup.find_version(session, row.id, version)
        return row.id, found.declared.get("licence") or row.licence


def _project(body: ProjectLicence, asking: Principal, parts: Services) -> Expression | None:
    if body.licence is not None:
        try:
            return licences.parse(body.licence)
        except ValueError as error:
            raise invalid({"body.licence": str(error)}) from error
    if body.text is not None:
        return _expression(licence_texts.identify(body.text))
    return _of_repository(body.github_url or "", asking, parts)


def _of_repository(address: str, asking: Principal, parts: Services) -> Expression | None:
    if parts.github is None:
        raise invalid({"body.github_url": "this server does not ask GitHub; give licence or text"})
    try:
        repository = parts.github.repository(address)
    except ValueError as error:
        raise invalid({"body.github_url": str(error)}) from error
    if not (decision := parts.limiter.allow(f"github:{asking.user_id}", LOOKUPS)).allowed:
        detail = f"You have asked about {LOOKUPS} repositories within an hour."
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", detail, headers=decision.headers)
    found = parts.github.licence(repository)
    return _expression(found.spdx_id or licence_texts.identify((found.text or "")[: licence_texts.LONGEST]))


def _expression(text: str | None) -> Expression | None:
    """What a licence that somebody else has written says, as far as it can be read."""
    try:
        return None if text is None else licences.parse(text)
    except ValueError:
        return None


def _judged(project: Expression | None, model: Expression | None, declared: str | None) -> Answer:
    if declared is None:
        reason = "The model declares no licence; without one nobody may use it but its owner. Ask them."
    elif model is None:
        reason = "What the model declares as its licence is no SPDX expression; somebody has to read it."
    elif project is None:
        reason = "The project's licence is none that Slipway recognises; somebody has to read it."
    else:
        return licences.check(project=project, model=model)
    return Answer(verdict=Verdict.UNKNOWN, reason=reason)
