"""Exports over HTTP: a variant as a Triton model repository in storage or in an archive, and KServe's manifest for it."""

from __future__ import annotations

import hashlib
import shlex
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import chain
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from api.deps import Parts, Principal, Problem, Services, Transaction, require
from api.errors import documented, invalid
from api.schemas.exports import DEVICE, Export, Exported, NewExport
from api.versions import find, refuse_unless_clean
from pipeline import budgets, comparing, evidence, exporting, pages, selection
from pipeline.exporting import Form
from pipeline.questions import LARGEST_BATCH
from registry import audit, usage
from registry.store import Artifact
from shared.errors import DependencyUnavailable, ObjectMissing

router = APIRouter(prefix="/models/{model}/versions/{version}/exports", tags=["versions"])

Downloader = Annotated[Principal, Depends(require("models:download"))]

ZIP = "application/zip"
ENVELOPE: str = "envelope"
"""Of `S3_ENCRYPTION`: what is stored is for our own eyes."""
_EXPORTS = (
    "unauthenticated",
    "forbidden",
    "not_granted",
    "model_not_found",
    "version_not_found",
    "artifact_not_found",
    "quarantined",
    "not_yet_scanned",
    "not_published",
    "not_servable",
    "not_exportable",
    "invalid_field",
)


MOST_PER_HOUR = 30


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What is exported of which version, and where its bytes are."""

    version_id: UUID
    form: Form
    artifact: Artifact


@router.post(
    "",
    summary="Export a version for Triton or KServe",
    status_code=HTTPStatus.CREATED,
    responses=documented(*_EXPORTS, "encrypted_here", "rate_limited", "object_altered", "storage_unavailable"),
)
def export(model: str, version: str, wish: NewExport, request: Request, asking: Downloader, parts: Parts) -> Export:
    """Copied inside the storage, every digest read back; it goes after `EXPORT_RETENTION`, or with the clean verdict.

    The address opens nothing: your server needs credentials of its own that may read it. Exported again, the same
    version has the same address.
    """
    if wish.storage_uri is not None and wish.format != "kserve":
        raise invalid({"body.storage_uri": "is for kserve; a Triton repository is stored where Slipway decides"})
    with parts.begin() as session:
        chosen = _chosen(session, asking, model, version, variant=wish.variant, device=wish.device, where="body")
        texts = exporting.texts(chosen.form)
    files = [] if wish.storage_uri else _copied(parts, request, asking, chosen, texts)
    own = f"s3://{parts.exports.name}/{_prefix(chosen)}"
    address = wish.storage_uri or own
    with parts.begin() as session:
        _, row = find(session, asking.viewer, model, version)
        refuse_unless_clean(row)  # it may have lost its verdict while we copied
        _note(session, asking, chosen, wish.format, address=address, handed_out=bool(files))
    manifest = exporting.manifest(chosen.form, address) if wish.format == "kserve" else None
    served = f"tritonserver --model-repository={shlex.quote(_for_triton(parts, own))}"
    applied = f"kubectl apply -f {chosen.form.name}.yaml"
    return Export(
        format=wish.format,
        version=chosen.form.version,
        variant=chosen.form.variant,
        device=chosen.form.device,
        address=address,
        files=files,
        commands=[served] if manifest is None else [applied],
        manifest=manifest,
        expires_at=datetime.now(UTC) + timedelta(seconds=parts.settings.export_retention) if files else None,
    )


@router.get(
    "/triton",
    summary="Get a version as a Triton model repository",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A zip archive; unpacked, it is a model repository.",
            "content": {ZIP: {"schema": {"type": "string", "format": "binary"}, "example": "PK…"}},
        },
        **documented(*_EXPORTS, "storage_unavailable"),
    },
)
def download(
    model: str,
    version: str,
    asking: Downloader,
    session: Transaction,
    parts: Parts,
    *,
    variant: Annotated[str | None, Query(max_length=200, description="default: the best one on the device")] = None,
    device: Annotated[str | None, Query(pattern=DEVICE, description="`cpu`, or a GPU's architecture")] = None,
) -> StreamingResponse:
    """Nothing in it is compressed. The model's bytes are checked on their way: where they are wrong, the archive ends."""
    chosen = _chosen(session, asking, model, version, variant=variant, device=device, where="query")
    texts = exporting.texts(chosen.form)
    _note(session, asking, chosen, "triton", address=None)
    name = quote(f"{chosen.form.name}-{chosen.form.version}-triton.zip", safe="")
    pieces = parts.registry.stream(chosen.artifact.key)
    try:
        first = next(pieces, b"")  # what storage has to complain of must be known before the answer begins
    except ObjectMissing as error:
        raise _gone() from error
    return StreamingResponse(
        _archive(chain([first], pieces), chosen, texts),
        media_type=ZIP,
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
    )


def _chosen(
    session: Session,
    asking: Principal,
    model: str,
    version: str,
    *,
    variant: str | None,
    device: str | None,
    where: str,
) -> Chosen:
    owner, row = find(session, asking.viewer, model, version, permission="models:download")
    refuse_unless_clean(row)
    if row.published_at is None:
        raise Problem(HTTPStatus.CONFLICT, "not_published", f"{row.version} is not published (yet).")
    if not row.servable:
        raise Problem(HTTPStatus.CONFLICT, "not_servable", f"{row.version} cannot be served, here or elsewhere.")
    known = pages.read(session, asking.viewer, str(owner.id), row.version)
    published = known.artifacts
    made = {one.name: one for one in published if one.role in evidence.SERVABLE}
    built_for = (variant or "").partition("@")[2]
    device = device or built_for or selection.CPU
    name = variant or evidence.preferred(row, published, known.variants, known.rows, device=device)
    found = made.get(name or "")
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "artifact_not_found", f"This version has no variant {variant!r}.")
    if not selection.runs_on(found.name, device):
        raise invalid({f"{where}.device": f"{found.name} runs on {built_for} and nowhere else"})
    promises = comparing.contract(known.reports, row)
    form = Form(
        owner=owner.owner,
        model=owner.name,
        version=row.version,
        ordinal=row.ordinal,
        variant=found.name,
        device=device,
        sha256=found.sha256,
        size=found.size,
        manifest=_manifest(published, found.name),
        meta=found.meta,
        classes=promises.classes if promises else tuple(row.declared.get("classes") or ()),
        largest_batch=budgets.max_batch(row.declared) or LARGEST_BATCH,
    )
    return Chosen(version_id=row.id, form=form, artifact=found)


def _manifest(published: Sequence[Artifact], variant: str) -> str:
    """The digest of the manifest that names a variant: what came later has one of its own."""
    named = {one.name.removesuffix(".json"): one.sha256 for one in published if one.role == "manifest"}
    own = (sha256 for name, sha256 in named.items() if variant in name.split("+")[1:])
    return next(own, named.get("manifest", ""))


def _prefix(chosen: Chosen) -> str:
    return f"{chosen.version_id}/{exporting.digest(chosen.form)[:16]}"


def _for_triton(parts: Services, address: str) -> str:
    """As Triton wants it: storage that is not Amazon's is named with scheme, host and port before the bucket."""
    endpoint = parts.settings.s3_public_endpoint_url or parts.settings.s3_endpoint_url
    return address if endpoint is None else address.replace("s3://", f"s3://{endpoint.rstrip('/')}/", 1)


def _copied(
    parts: Services, request: Request, asking: Principal, chosen: Chosen, texts: dict[str, bytes]
) -> list[Exported]:
    """A copy reads every byte back, while somebody waits on a thread of ours: so many an hour are enough for anybody."""
    decision = parts.limiter.allow(f"export:{asking.user_id}", MOST_PER_HOUR)
    request.state.rate_headers = decision.headers
    if not decision.allowed:
        detail = f"You have used your {MOST_PER_HOUR} exports for this hour; the archive (`GET …/exports/triton`) is not counted."
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", detail)
    try:
        return _stored(parts, chosen, texts)
    except ObjectMissing as error:
        raise _gone() from error


def _gone() -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "artifact_not_found", "The version was removed while it was being exported.")


def _stored(parts: Services, chosen: Chosen, texts: dict[str, bytes]) -> list[Exported]:
    """Put the repository into storage, its settings last: a server that looks now and then takes up what is whole."""
    if parts.settings.s3_encryption == ENVELOPE:
        raise Problem(
            HTTPStatus.CONFLICT,
            "encrypted_here",
            "Here only Slipway can read what is stored; another server could not.",
        )
    prefix, form = _prefix(chosen), chosen.form
    target = f"{prefix}/{form.model_path}"
    parts.exports.copy(parts.registry, chosen.artifact.key, target)
    if parts.exports.sha256(target) != form.sha256:
        parts.exports.delete([target, *(f"{prefix}/{path}" for path in texts)])
        raise _altered()
    for path, content in texts.items():
        parts.exports.put(f"{prefix}/{path}", content, "text/plain")
    told = [(path, hashlib.sha256(content).hexdigest(), len(content)) for path, content in texts.items()]
    return [
        Exported(path=path, sha256=sha256, size=size)
        for path, sha256, size in [(form.model_path, form.sha256, form.size), *told]
    ]


def _altered() -> DependencyUnavailable:
    return DependencyUnavailable("object_altered", "Storage holds other bytes than were recorded.")


def _archive(content: Iterable[bytes], chosen: Chosen, texts: dict[str, bytes]) -> Iterator[bytes]:
    """The archive piece by piece, stored without packing: models do not shrink."""
    from stream_zip import ZIP_64, stream_zip

    now, mode = datetime.now(UTC), 0o100644

    def checked() -> Iterator[bytes]:
        digest = hashlib.sha256()
        for chunk in content:
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != chosen.form.sha256:
            raise _altered()

    members = [
        *((path, now, mode, ZIP_64, iter([text])) for path, text in texts.items()),
        (chosen.form.model_path, now, mode, ZIP_64, checked()),
    ]
    yield from stream_zip(members, get_compressobj=lambda: zlib.compressobj(level=0, wbits=-zlib.MAX_WBITS))


def _note(
    session: Session,
    asking: Principal,
    chosen: Chosen,
    format_: str,
    *,
    address: str | None,
    handed_out: bool = True,
) -> None:
    """Write down who took which bytes where, and count it as a download where they were ours to hand out."""
    if handed_out:
        usage.count(session, chosen.version_id, "download", bytes=chosen.form.size)
    details: dict[str, Any] = {"format": format_, "variant": chosen.form.variant, "sha256": chosen.form.sha256}
    told = details | ({"address": address} if address else {})
    audit.append(session, asking.actor, "version.exported", str(chosen.version_id), told)
