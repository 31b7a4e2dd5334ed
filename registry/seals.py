"""Whether signed manifests say what is stored. Pure: bytes, rows and public keys in, words out.

A manifest is what promotion wrote when it let files in; its signature is over its very bytes. Three things must hold: the
bytes are those of the record, a trusted key signed them, and every file that is published is in one with its digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from registry.rules import VALID
from shared import signing
from shared.signing import Signature

MANIFEST = "manifest"
"""The role of a manifest among a version's artifacts."""


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A signature as it is recorded. Its `public_key` is for those who know it from elsewhere; nothing here trusts it."""

    signature: Signature
    public_key: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest as it is recorded (`name`, `sha256`), its bytes (None: not in storage), and the signatures for it."""

    name: str
    sha256: str
    content: bytes | None
    signatures: Sequence[Signed]


def fault(manifest: Manifest, signed: Signed, trusted: Sequence[str]) -> str | None:
    """What is wrong with one signature of a manifest, None where it holds. `trusted`: public keys, base64."""
    if manifest.content is None:
        return f"{manifest.name} is not in storage"
    if hashlib.sha256(manifest.content).hexdigest() != manifest.sha256:
        return f"{manifest.name} in storage is not the one that was recorded"
    if signed.signature.key_id not in {signing.key_id(key) for key in trusted}:
        return f"the key {signed.signature.key_id} is not trusted here"
    if not signing.verify(manifest.content, signed.signature, trusted):
        return f"the signature does not fit {manifest.name}"
    return None


def seal(
    manifests: Sequence[Manifest], published: Mapping[str, str], trusted: Sequence[str], *, source: str, version: str
) -> str:
    """`valid`, or the first thing that is wrong.

    `published` are the version's files but its manifests, by name with SHA-256; `source` is the upload's.
    """
    if not manifests:
        return "there is no manifest"
    named: set[tuple[str, str]] = set()
    for manifest in manifests:
        if not manifest.signatures:
            return f"{manifest.name} is not signed"
        faults = [fault(manifest, each, trusted) for each in manifest.signatures]
        if all(faults):
            return next(each for each in faults if each)
        try:
            document = json.loads(manifest.content or b"")
            about = document["version"], document["source"]["sha256"]
            named |= {(each["name"], each["sha256"]) for each in document["artifacts"]}
        except (ValueError, LookupError, TypeError):  # the same key signs other documents too
            return f"{manifest.name} is signed, but no manifest"
        if about != (version, source):
            return f"{manifest.name} is of another version"
    strange = sorted(name for name, sha256 in published.items() if (name, sha256) not in named)
    return f"no signed manifest names {', '.join(strange)} as it is" if strange else VALID
