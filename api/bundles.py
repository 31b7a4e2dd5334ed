"""Versions between instances over HTTP: out as a signed bundle, in as an upload that brings its history along.

What comes in is believed as far as its signature goes, and scanned, converted and measured all the same.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.deps import Parts, Principal, Problem, Services, Transaction, require
from api.errors import documented, invalid
from api.idempotency import PARAMETER
from api.landing import Landing
from api.reception import Arrival, Reception, missing
from api.schemas.bundles import Compared, Document, Import
from api.upload import UploadRoute, afforded, paced, take_in
from api.upload_reference import ANSWERS, Accepted
from api.versions import find, refuse_unless_clean
from pipeline import bundling
from pipeline import upload as form
from pipeline.formats import Format
from registry import audit, blobs, store
from registry import bundles as registry
from registry.audit import Actor
from registry.store import Artifact
from shared import bundles, signing
from shared.settings import Settings

DOCUMENT, SIGNATURE = "bundle_file", "signature_file"
"""The parts of the form that hold `bundle.json` and `bundle.sig`."""
ZIP = "application/zip"

router = APIRouter(tags=["bundles"], route_class=UploadRoute)

Reader = Annotated[Principal, Depends(require("models:read"))]
Downloader = Annotated[Principal, Depends(require("models:download"))]
Uploader = Annotated[Principal, Depends(require("models:upload"))]

_ABOUT_ONE = ("unauthenticated", "forbidden", "model_not_found", "version_not_found")


@router.get(
    "/models/{model}/versions/{version}/bundle",
    summary="Export a version",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A zip archive: `bundle.json`, `bundle.sig`, and every file under its digest.",
            "content": {ZIP: {"schema": {"type": "string", "format": "binary"}, "example": "PK…"}},
        },
        **documented(*_ABOUT_ONE, "quarantined", "not_yet_scanned", "not_published"),
    },
)
def export(model: str, version: str, asking: Downloader, session: Transaction, parts: Parts) -> StreamingResponse:
    """The version with its history, its evidence and all of its bytes, signed by this instance.

    What was uploaded is among them, so only the model's owner and admins may. `slipway verify bundle` checks it offline.
    """
    owner, row = find(session, asking.viewer, model, version)
    if not (asking.viewer.admin or owner.owner_id == asking.user_id):
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", "Only the model's owner exports its versions.")
    refuse_unless_clean(row)
    if row.published_at is None:
        raise Problem(HTTPStatus.CONFLICT, "not_published", f"{row.version} is not published (yet).")
    signer = parts.signer
    told, held = bundling.document(session, owner, row, key_id=signer.key_id, public_key=signer.public_key)
    document, signature = bundles.signed(told, signer)
    details = {"sha256": hashlib.sha256(document).hexdigest(), "key_id": signer.key_id}
    audit.append(session, asking.actor, "bundle.exported", str(row.id), details)
    rooms = {"staging": parts.staging, "registry": parts.registry, "quarantine": parts.quarantine}
    contents = (bundles.Content(sha256=one.sha256, chunks=rooms[one.room].stream(one.key)) for one in held)
    name = quote(f"{owner.name}-{row.version}.slipway.zip", safe="")
    return StreamingResponse(
        bundles.stream(document, signature, contents),
        media_type=ZIP,
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
    )


@router.get(
    "/models/{model}/versions/{version}/import",
    summary="Read where a version came from",
    responses=documented(*_ABOUT_ONE, "not_imported"),
)
def read_import(model: str, version: str, asking: Reader, session: Transaction) -> Import:
    """What the other instance vouched for, beside what was found here: each form's digest is the same, or is not."""
    _, row = find(session, asking.viewer, model, version)
    told = registry.origin(session, row.id)
    if told is None:
        raise Problem(HTTPStatus.NOT_FOUND, "not_imported", f"{row.version} did not come from another instance.")
    compared = registry.compare(told.meta["artifacts"], store.list_artifacts(session, row.id))
    return Import(
        key_id=told.meta["key_id"],
        model=told.meta["model"],
        owner=told.meta["owner"],
        version=told.meta["version"],
        bundle_sha256=told.sha256,
        artifacts=[
            Compared(
                name=one.name,
                theirs=one.theirs,
                ours=one.ours,
                outcome=one.outcome,
                toolchain_same=one.toolchain_same,
            )
            for one in compared
        ],
    )


DESCRIPTION = """Send what a bundle holds: its document, its signature, the uploaded file and the side files it names.

The signature must be by a key that this server trusts (`TRUSTED_KEYS`, and its own). What was declared comes from the
document; then it is an upload as any other: scanned, converted and measured here. The document is kept as the artifact
`imported-bundle.json`. `slipway import FILE` does all of it; by hand:

```sh
unzip digits-1.0.0.slipway.zip -d bundle
curl -H "Authorization: Bearer $SLIPWAY_API_KEY" \\
     -F bundle_file=@bundle/bundle.json -F signature_file=@bundle/bundle.sig \\
     -F 'model_file=@bundle/files/9f86…;filename=digits.onnx' \\
     $SLIPWAY_URL/api/v1/bundles
```
"""
_BINARY = {"type": "string", "format": "binary"}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [DOCUMENT, SIGNATURE, form.MODEL_FILE],
                "properties": {
                    "name": {"type": "string", "description": "The model's name here; default: as it was there."},
                    DOCUMENT: _BINARY | {"description": "`bundle.json`, as it is."},
                    SIGNATURE: _BINARY | {"description": "`bundle.sig`, as it is."},
                    form.MODEL_FILE: _BINARY | {"description": "What was uploaded there, under its file name."},
                    **{
                        name: _BINARY | {"description": f"{side.meaning.capitalize()}, where the bundle names it."}
                        for name, side in form.SIDE_FILES.items()
                    },
                },
                "additionalProperties": False,
            },
            "example": {"name": "digits"},
        }
    },
}


@router.post(
    "/bundles",
    status_code=HTTPStatus.ACCEPTED,
    summary="Import a version",
    description=DESCRIPTION,
    response_model=Accepted,
    responses=ANSWERS | documented("forbidden", "quota_exceeded", "untrusted_bundle"),
    openapi_extra={"requestBody": REQUEST_BODY, "parameters": [PARAMETER]},
    dependencies=[Depends(afforded), Depends(paced)],
)
async def bring_in(request: Request, parts: Parts, asking: Uploader) -> Response:
    return await take_in(request, parts, asking, partial(BundleReception, parts))


class BundleReception(Reception):
    """A form whose declaration is a signed document."""

    fields = ("name",)
    others = (DOCUMENT, SIGNATURE)

    def __init__(self, parts: Services, landing: Landing, settings: Settings, accepted: tuple[Format, ...]) -> None:
        super().__init__(landing, settings, accepted)
        self._parts = parts
        self._came: dict[str, bytes] = {}
        self._told: Document | None = None
        self._artifact: Artifact | None = None

    async def take_other(self, name: str, content: bytes) -> None:
        self._came[name] = content
        if len(self._came) == len(self.others):
            self._told, signature = self._trusted(self._came[DOCUMENT], self._came[SIGNATURE])
            self.texts = _texts(self._told) | self.texts
            self._artifact = _artifact(self._told, signature, self._came[DOCUMENT])
            await self.landing.run(partial(self._keep, self._artifact, self._came[DOCUMENT]))

    def _keep(self, artifact: Artifact, document: bytes) -> None:
        """Whatever fails from here on leaves bytes that nobody names, for the garbage collection."""
        with self._parts.begin() as session:
            blobs.hold(session, [artifact.sha256])
            self._parts.registry.put(artifact.key, document, artifact.media_type)

    def arrival(self, claims: Any, whole: str) -> Arrival:
        if self._told is None:
            absent = next(name for name in self.others if name not in self._came)
            raise missing(f"The form has no {absent}.", absent)
        arrival = super().arrival(claims, whole)
        roles = {side.role for side in form.SIDE_FILES.values()}
        named = {one.role: one.sha256 for one in self._told.files if one.role in roles}
        sent = {role: landed.sha256 for role, landed in arrival.side_files.items()}
        if wrong := sorted(role for role, _ in named.items() ^ sent.items()):
            detail = f"These are not the files that the bundle names: {', '.join(dict.fromkeys(wrong))}."
            raise Problem(HTTPStatus.BAD_REQUEST, "digest_mismatch", detail)
        return arrival

    def recorded(self, session: Session, version: Row[Any], actor: Actor) -> None:
        if self._artifact is None:
            raise AssertionError("a version was recorded before its bundle came")
        registry.remember(session, version.id, self._artifact)
        details = {"sha256": self._artifact.sha256} | {
            name: self._artifact.meta[name] for name in ("key_id", "owner", "model", "version")
        }
        audit.append(session, actor, "bundle.imported", str(version.id), details)

    def _trusted(self, document: bytes, signature: bytes) -> tuple[Document, signing.Signature]:
        """Raises `Problem` for a document that nobody whom we trust has signed, before anything in it is read."""
        try:
            made = bundles.signature_of(signature)
        except ValueError as error:
            raise invalid({SIGNATURE: str(error)}) from error
        trusted = (self._parts.signer.public_key, *self.settings.trusted_keys)
        if not signing.verify(document, made, trusted):
            if made.key_id in {signing.key_id(key) for key in trusted}:
                detail = "The signature is not one of this document: one of them was changed."
            else:
                detail = f"The bundle is signed by the key {made.key_id[:64]}, which this server does not trust."
            raise Problem(HTTPStatus.FORBIDDEN, "untrusted_bundle", detail)
        try:
            return Document.model_validate_json(document), made
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise invalid({DOCUMENT: f"{where}: {error.errors()[0]['msg']}"}) from error


def _texts(told: Document) -> dict[str, bytes]:
    """What the other instance was told, as the fields of an upload. Fields that we do not know are history."""
    said = {name: value for name, value in told.version.declared.items() if name in form.FIELDS}
    said |= {"name": told.model.name, "version": told.version.version, "sha256": told.version.sha256}
    return {name: (value if isinstance(value, str) else json.dumps(value)).encode() for name, value in said.items()}


def _artifact(told: Document, signature: signing.Signature, document: bytes) -> Artifact:
    sha256 = hashlib.sha256(document).hexdigest()
    return Artifact(
        name=registry.IMPORTED,
        role="evidence",
        key=blobs.key(sha256, registry.IMPORTED),
        sha256=sha256,
        size=len(document),
        media_type="application/json",
        meta={
            "key_id": signature.key_id,
            "signature": signature.value,
            "model": told.model.name,
            "owner": told.model.owner,
            "version": told.version.version,
            "artifacts": [
                {"name": one.name, "sha256": one.sha256, "toolchain": one.meta.get("toolchain")}
                for one in told.files
                if one.role in registry.COMPARED
            ],
        },
    )
