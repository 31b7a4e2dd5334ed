"""Endpoints over HTTP: where a model answers, who may ask, how often and for how long. What answers is `serving`."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Response
from sqlalchemy import Row

from api.deps import Parts, Principal, Transaction, require
from api.errors import documented
from api.etags import IfMatch, revision_in, tag
from api.schemas.endpoints import Endpoint, EndpointChange
from registry import endpoints, lookup
from shared.settings import Settings

router = APIRouter(prefix="/models/{model}/endpoint", tags=["deployments"])

Reader = Annotated[Principal, Depends(require("models:read"))]
Deployer = Annotated[Principal, Depends(require("models:deploy"))]

_ABOUT_MODEL = ("unauthenticated", "forbidden", "model_not_found")


@router.get("", summary="Read a model's endpoint", responses=documented(*_ABOUT_MODEL))
def read(model: str, response: Response, asking: Reader, session: Transaction, parts: Parts) -> Endpoint:
    """Where it answers, and by which rules. That nothing is live there yet is no error: the address stays."""
    owner = lookup.find_model(session, asking.viewer, model)
    return _tagged(response, parts.settings, owner, endpoints.of(session, [owner.id])[owner.id])


@router.patch(
    "",
    summary="Change a model's endpoint",
    responses=documented(*_ABOUT_MODEL, "not_granted", "endpoint_changed", "precondition_failed", "invalid_field"),
)
def change(
    model: str,
    wish: EndpointChange,
    response: Response,
    asking: Deployer,
    session: Transaction,
    parts: Parts,
    *,
    if_match: IfMatch = None,
) -> Endpoint:
    """Only what you send is changed. Opening it (`auth_required: false`) opens predictions, not the model's files.

    A private model's is opened by its owner and admins only, whoever else may deploy it.
    """
    owner = lookup.find_model(session, asking.viewer, model, permission="models:deploy")
    changes = wish.model_dump(exclude_unset=True)
    theirs = asking.viewer.admin or owner.owner_id == asking.user_id
    if "timeout" in changes:
        seconds = changes.pop("timeout")
        changes["timeout_ms"] = None if seconds is None else round(seconds * 1000)
    after = endpoints.change(
        session, owner.id, changes, expected=revision_in(if_match), may_open=theirs, actor=asking.actor
    )
    return _tagged(response, parts.settings, owner, after)


def url(settings: Settings, owner: Row[Any]) -> str:
    """Where a model answers, in the words of the Open Inference Protocol."""
    return f"{settings.serving_address}/v2/models/{_address(owner)}"


def _address(owner: Row[Any]) -> str:
    return f"{quote(owner.owner, safe='')}/{quote(owner.name, safe='')}"


def _tagged(response: Response, settings: Settings, owner: Row[Any], said: endpoints.Endpoint) -> Endpoint:
    tag(response, said.revision)
    limit = settings.serving_timeout
    there = url(settings, owner)
    return Endpoint(
        model=owner.name,
        owner=owner.owner,
        url=there,
        predict_url=f"{settings.serving_address}/api/v1/models/{_address(owner)}/predict",
        schema_url=f"{there}/schema",
        auth_required=said.auth_required,
        requests_per_minute=said.requests_per_minute,
        timeout=limit if said.timeout_ms is None else min(limit, said.timeout_ms / 1000),
        own_timeout=said.timeout_ms is not None,
        revision=said.revision,
    )
