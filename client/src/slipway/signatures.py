"""Signatures: what the server vouched for, and the keys to verify that with."""

from __future__ import annotations

from dataclasses import dataclass, field

from slipway import refs
from slipway.records import Json
from slipway.transport import Wire


@dataclass(frozen=True, kw_only=True)
class Signature:
    """An Ed25519 signature over the bytes of a manifest; `fault` says why it is not `valid`."""

    manifest: str
    sha256: str
    key_id: str
    signature: str
    public_key: str
    valid: bool
    fault: str | None = None

    @classmethod
    def read(cls, data: Json) -> Signature:
        """Read it from an answer."""
        return cls(
            manifest=str(data["manifest"]),
            sha256=str(data.get("sha256") or ""),
            key_id=str(data.get("key_id") or ""),
            signature=str(data.get("signature") or ""),
            public_key=str(data.get("public_key") or ""),
            valid=data.get("valid") is True,
            fault=data.get("fault"),
        )


@dataclass(frozen=True, kw_only=True)
class Seal:
    """A version's signatures; `sealed`: they are valid and name all that is published, else `fault` says what is missing."""

    sealed: bool
    fault: str | None
    signatures: tuple[Signature, ...]
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Seal:
        """Read it from an answer."""
        return cls(
            sealed=data.get("sealed") is True,
            fault=data.get("fault"),
            signatures=tuple(Signature.read(item) for item in data.get("items") or ()),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A public key (base64) whose signatures count on the server; `current`: it signs with this one."""

    key_id: str
    algorithm: str
    public_key: str
    current: bool
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> SigningKey:
        """Read it from an answer."""
        return cls(
            key_id=str(data["key_id"]),
            algorithm=str(data.get("algorithm") or ""),
            public_key=str(data.get("public_key") or ""),
            current=data.get("current") is True,
            raw=data,
        )


class Signatures:
    """What is signed, by which keys."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def of(self, ref: str) -> Seal:
        """Return the signatures of the version that `NAME[@REF]` means, verified by the server just now."""
        return Seal.read(self._wire.json("GET", refs.version_path(*refs.parse(ref)) + "/signatures"))

    def trusted(self) -> list[SigningKey]:
        """Return the public keys whose signatures count on the server."""
        return [SigningKey.read(item) for item in self._wire.json("GET", "/api/v1/keys/signing").get("items") or ()]
