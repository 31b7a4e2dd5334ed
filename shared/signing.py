"""Signatures by which others can tell what this instance vouched for. Ed25519 (RFC 8032); knows no document.

Who verifies brings the public keys that they trust: a signature that carries its own key proves nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF
from Crypto.Signature import eddsa

ALGORITHM = "ed25519"
MIN_SECRET = 32
"""Bytes: as long as the key that is made of them."""
_CONTEXT = b"slipway ed25519 1"
_RAW = 32


@dataclass(frozen=True, kw_only=True)
class Signature:
    """`value` is base64, `key_id` the first half of the public key's SHA-256 in hex."""

    key_id: str
    value: str
    algorithm: str = ALGORITHM


class Signer:
    """Signs with a key made of the instance's secret (HKDF, RFC 5869): the same secret is the same key, everywhere.

    Raises `ValueError` for a secret that can be guessed.
    """

    def __init__(self, secret: str) -> None:
        if len(secret.encode()) < MIN_SECRET:
            raise ValueError(
                f"SIGNING_KEY must have at least {MIN_SECRET} bytes, e.g. the output of `openssl rand -hex 32`"
            )
        seed = HKDF(secret.encode(), _RAW, b"", SHA256, context=_CONTEXT)
        assert isinstance(seed, bytes)  # noqa: S101 - a tuple only for those who ask for several keys
        key = eddsa.import_private_key(seed)
        self.public_key = base64.b64encode(key.public_key().export_key(format="raw")).decode()
        self.key_id = key_id(self.public_key)
        self._signer = eddsa.new(key, "rfc8032")

    def sign(self, message: bytes) -> Signature:
        return Signature(key_id=self.key_id, value=base64.b64encode(self._signer.sign(message)).decode())


def key_id(public_key: str) -> str:
    """How a public key (base64 of its 32 bytes) is named. Raises `ValueError` for what is none."""
    return hashlib.sha256(_raw(public_key)).hexdigest()[:32]


def verify(message: bytes, signature: Signature, trusted: Iterable[str]) -> bool:
    """Whether one of the trusted public keys (base64) made the signature over this message."""
    known = {key_id(public_key): public_key for public_key in trusted}
    if signature.algorithm != ALGORITHM or signature.key_id not in known:
        return False
    key = eddsa.import_public_key(_raw(known[signature.key_id]))
    try:
        eddsa.new(key, "rfc8032").verify(message, base64.b64decode(signature.value, validate=True))
    except (ValueError, binascii.Error):
        return False
    return True


def _raw(public_key: str) -> bytes:
    try:
        raw = base64.b64decode(public_key, validate=True)
    except binascii.Error as error:
        raise ValueError("a public key is the base64 of 32 bytes") from error
    if len(raw) != _RAW:
        raise ValueError("a public key is the base64 of 32 bytes")
    return raw
