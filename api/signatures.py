"""Signatures over HTTP: what this instance vouched for, verified on every read, and the keys to verify it with elsewhere."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from api.deps import Asking, Parts, Principal, Transaction, require
from api.errors import documented
from api.schemas.signatures import Signature, Signatures, SigningKey, SigningKeys
from api.versions import find
from pipeline import promotability
from registry import seals
from registry.rules import VALID
from shared import signing

router = APIRouter(tags=["signatures"])

Reader = Annotated[Principal, Depends(require("models:read"))]


@router.get(
    "/models/{model}/versions/{version}/signatures",
    summary="Verify a version's signatures",
    responses=documented("unauthenticated", "forbidden", "model_not_found", "version_not_found", "storage_unavailable"),
)
def list_signatures(model: str, version: str, asking: Reader, session: Transaction, parts: Parts) -> Signatures:
    """Of its manifests, which name every published file with its SHA-256. The manifests are artifacts: download them."""
    _, row = find(session, asking.viewer, model, version)
    manifests, seal = promotability.sealed(session, row, parts.trust)
    items = []
    for manifest in manifests:
        for signed in manifest.signatures:
            fault = seals.fault(manifest, signed, parts.trust.keys)
            items.append(
                Signature(
                    manifest=manifest.name,
                    sha256=manifest.sha256,
                    key_id=signed.signature.key_id,
                    algorithm=signed.signature.algorithm,
                    signature=signed.signature.value,
                    public_key=signed.public_key,
                    created_at=signed.created_at,
                    valid=fault is None,
                    fault=fault,
                )
            )
    return Signatures(items=items, sealed=seal == VALID, fault=None if seal == VALID else seal)


@router.get("/keys/signing", summary="List the signing keys", responses=documented("unauthenticated"))
def list_keys(_: Asking, parts: Parts) -> SigningKeys:
    """The public keys whose signatures count here: this instance's own, and those that its operator trusts."""
    current = parts.signer.public_key
    keys = dict.fromkeys(parts.trust.keys)
    return SigningKeys(
        items=[
            SigningKey(key_id=signing.key_id(key), algorithm=signing.ALGORITHM, public_key=key, current=key == current)
            for key in keys
        ]
    )
