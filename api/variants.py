"""A version's variants over HTTP: ask for more of them, have all of them made again, say which one to prefer on a device."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.deps import Parts, Principal, Problem, Transaction, require
from api.errors import documented, invalid
from api.idempotency import IdempotentRoute
from api.runs import whole
from api.schemas.runs import Run
from api.schemas.versions import NewVariants, Pin, Version
from api.versions import described, find, refuse_unless_clean
from pipeline import engine, evidence, online, planning, selection
from pipeline import store as runs
from pipeline.run import Purpose, Step
from registry import audit, lookup, quotas, store
from registry.audit import Actor

router = APIRouter(prefix="/models/{model}/versions/{version}", tags=["versions"], route_class=IdempotentRoute)

Uploader = Annotated[Principal, Depends(require("models:upload"))]
Device = Annotated[str, Path(pattern=r"^(cpu|sm[0-9]{2,3})$", description="`cpu`, or a GPU's architecture: `sm90`")]

_CHANGES_ONE = ("unauthenticated", "forbidden", "not_granted", "model_not_found", "version_not_found")
_RUNS_FOR_ONE = (*_CHANGES_ONE, "quarantined", "not_yet_scanned", "not_published", "not_servable", "run_under_way")


@router.post(
    "/variants",
    summary="Add variants",
    status_code=HTTPStatus.ACCEPTED,
    responses=documented(*_RUNS_FOR_ONE, "quota_exceeded", "variant_exists", "invalid_field"),
)
def add_variants(
    model: str,
    version: str,
    wish: NewVariants,
    response: Response,
    asking: Uploader,
    session: Transaction,
    parts: Parts,
) -> Run:
    """As a run of its own: made from the canonical file, verified, measured, and published beside what is there.

    Nothing that is published changes. A variant for a GPU is built by a worker that has one, and waits for it. The quota
    of the model's owner must have room for each as if it were as large as the canonical file.
    """
    owner, row = _published(session, asking, model, version)
    offered = planning.offered(parts.stages)
    unknown = sorted(set(wish.variants) - set(offered))
    if unknown:
        raise invalid({"body.variants": f"{', '.join(unknown)} cannot be made here; known are {', '.join(offered)}"})
    recorded = evidence.recorded(session, row.id)
    there = sorted({one["name"] for one in recorded}.intersection(wish.variants))
    if there:
        detail = f"{row.version} has {', '.join(there)} already; artifacts never change."
        raise Problem(HTTPStatus.CONFLICT, "variant_exists", detail)
    each = max((one.size for one in store.list_artifacts(session, row.id) if one.role == "canonical"), default=0)
    quotas.admit_bytes(session, owner.owner_id, parts.settings.plans, each * len(set(wish.variants)))
    request = {"variants": sorted(wish.variants), "recorded": recorded}
    plan = planning.addition(parts.stages, wish.variants, queues=evidence.queues(session, row.id))
    return _begin(session, response, asking, row, purpose=Purpose.VARIANT, plan=plan, request=request)


@router.post(
    "/rebuild",
    summary="Rebuild a version",
    status_code=HTTPStatus.ACCEPTED,
    responses=documented(*_RUNS_FOR_ONE),
)
def rebuild(model: str, version: str, response: Response, asking: Uploader, session: Transaction, parts: Parts) -> Run:
    """Convert the stored original again, from scratch, and compare digests. Publishes nothing.

    The report of the step `compare` says `same`, both digests of each artifact, and where the toolchains differ.
    """
    _, row = _published(session, asking, model, version)
    request = {"recorded": evidence.recorded(session, row.id)}
    plan = planning.rebuild(parts.stages, queues=evidence.queues(session, row.id))
    return _begin(session, response, asking, row, purpose=Purpose.REBUILD, plan=plan, request=request)


@router.put(
    "/pins/{device}",
    summary="Pin a variant",
    responses=documented(*_CHANGES_ONE, "artifact_not_found", "invalid_field"),
)
def pin(model: str, version: str, device: Device, wish: Pin, asking: Uploader, session: Transaction) -> Version:
    """Prefer this variant on a device, whatever the measurements say: it is what a download gives by default."""
    owner, row = _own(session, asking, model, version)
    names = {one["name"] for one in evidence.recorded(session, row.id)}
    if wish.variant not in names:
        detail = f"This version has no variant {wish.variant!r}."
        raise Problem(HTTPStatus.NOT_FOUND, "artifact_not_found", detail)
    if not selection.runs_on(wish.variant, device):
        raise invalid({"body.variant": f"{wish.variant} does not run on {device}"})
    store.pin(session, row.id, device, wish.variant)
    _tell(session, asking, "variant.pinned", row, {"device": device, "variant": wish.variant})
    return described(session, asking.viewer, str(owner.id), row.version)


@router.delete("/pins/{device}", summary="Unpin a variant", responses=documented(*_CHANGES_ONE, "pin_not_found"))
def unpin(model: str, version: str, device: Device, asking: Uploader, session: Transaction) -> Version:
    """From now on the measurements choose again."""
    owner, row = _own(session, asking, model, version)
    if device not in row.pins:
        raise Problem(HTTPStatus.NOT_FOUND, "pin_not_found", f"No variant is pinned for {device}.")
    store.unpin(session, row.id, device)
    _tell(session, asking, "variant.unpinned", row, {"device": device, "variant": row.pins[device]})
    return described(session, asking.viewer, str(owner.id), row.version)


def _own(session: Session, asking: Principal, model: str, version: str) -> tuple[Row[Any], Row[Any]]:
    """A version that the asker may change, locked: of two who ask at once the second sees what the first did."""
    owner, row = find(session, asking.viewer, model, version, permission="models:upload")
    if not (asking.viewer.admin or asking.user_id in (owner.owner_id, row.uploaded_by)):
        detail = f"Only {owner.owner}, who owns {owner.name}, and who uploaded {row.version} decide about its variants."
        raise Problem(HTTPStatus.FORBIDDEN, "not_granted", detail)
    store.lock_version(session, row.id)
    return owner, lookup.find_version(session, owner.id, row.version)


def _published(session: Session, asking: Principal, model: str, version: str) -> tuple[Row[Any], Row[Any]]:
    """A version that the asker may have variants made of, after its model."""
    owner, row = _own(session, asking, model, version)
    refuse_unless_clean(row)
    if row.published_at is None:
        raise Problem(HTTPStatus.CONFLICT, "not_published", f"{row.version} is not published (yet).")
    if not row.servable:
        raise Problem(HTTPStatus.CONFLICT, "not_servable", f"{row.version} cannot be served, so nothing is made of it.")
    return owner, row


def _begin(
    session: Session,
    response: Response,
    asking: Principal,
    row: Row[Any],
    *,
    purpose: Purpose,
    plan: list[Step],
    request: dict[str, Any],
) -> Run:
    other = evidence.under_way(session, row.id, purpose)
    if other is not None:
        detail = f"Run {other} does the same for {row.version}; wait for its end."
        raise Problem(HTTPStatus.CONFLICT, "run_under_way", detail, details={"run": str(other)})
    run = engine.submit(
        session, version_id=row.id, owner_id=row.uploaded_by, plan=plan, purpose=purpose, request=request
    )
    _tell(session, asking, f"{purpose}.requested", row, {"run": str(run.id), "variants": request.get("variants", [])})
    response.headers["Location"] = f"/api/v1/runs/{run.id}"
    response.headers["Retry-After"] = "1"
    return whole(*runs.find(session, asking.viewer, run.id), online.served(session))


def _tell(session: Session, asking: Principal, action: str, row: Row[Any], details: dict[str, Any]) -> None:
    audit.append(session, Actor(id=asking.user_id, name=asking.username), action, str(row.id), details)
