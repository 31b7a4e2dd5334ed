"""Signatures of manifests, and the keys that they are verified with."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, SHA, example

_KEY = {
    "key_id": "6f1a5b2f9c04d5e0a1b2c3d4e5f60718",
    "algorithm": "ed25519",
    "public_key": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
}
_SIGNATURE = {
    **_KEY,
    "manifest": "manifest.json",
    "sha256": SHA,
    "signature": "5VZDAMNgrHKQhuLMgG6Cio…",
    "created_at": LATER,
    "valid": True,
    "fault": None,
}


class Signature(BaseModel):
    """Ed25519 (RFC 8032) over the manifest's very bytes, which are the artifact of that name."""

    manifest: str
    sha256: str = Field(description="of the manifest")
    key_id: str = Field(description="the first half of the public key's SHA-256")
    algorithm: str
    signature: str = Field(description="base64")
    public_key: str = Field(description="base64 of its 32 bytes; trust it only if you know it from elsewhere")
    created_at: datetime
    valid: bool = Field(description="verified just now: the stored bytes, by a key that is trusted here")
    fault: str | None = Field(description="what is wrong with it")

    model_config = example(**_SIGNATURE)


class Signatures(BaseModel):
    items: list[Signature]
    sealed: bool = Field(
        description="every manifest has a valid signature, and together they name all that is published"
    )
    fault: str | None = Field(description="what is missing for that")

    model_config = example(items=[_SIGNATURE], sealed=True, fault=None)


class SigningKey(BaseModel):
    key_id: str
    algorithm: str
    public_key: str = Field(description="base64 of its 32 bytes")
    current: bool = Field(description="the one that this instance signs with")

    model_config = example(**_KEY, current=True)


class SigningKeys(BaseModel):
    items: list[SigningKey]

    model_config = example(items=[{**_KEY, "current": True}])
