"""A signed bundle as bytes: a zip archive that can be written without an end in sight, the same bytes every time.

`bundle.json` says what there is, as canonical JSON; `bundle.sig` signs its bytes; every file it names lies under its
digest. Nothing is compressed, and no clock is read. Knows nothing of what the document tells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from shared.errors import DependencyUnavailable
from shared.signing import Signature, Signer

DOCUMENT = "bundle.json"
SIGNATURE = "bundle.sig"
FILES = "files/"
"""What the names of files begin with; their SHA-256 in hex follows."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Content:
    """One file: its SHA-256 in hex, and its bytes when they are asked for."""

    sha256: str
    chunks: Iterator[bytes]


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one way to write a document down."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def signed(document: Mapping[str, Any], signer: Signer) -> tuple[bytes, bytes]:
    """The document's bytes, and those of its signature."""
    body = canonical(document)
    made = signer.sign(body)
    said = {
        "algorithm": made.algorithm,
        "key_id": made.key_id,
        "public_key": signer.public_key,
        "signature": made.value,
    }
    return body, canonical(said)


def signature_of(said: bytes) -> Signature:
    """Read `bundle.sig`. Raises `ValueError` for what is none."""
    try:
        read = json.loads(said)
        return Signature(algorithm=str(read["algorithm"]), key_id=str(read["key_id"]), value=str(read["signature"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("is no signature of a bundle") from error


def stream(document: bytes, signature: bytes, contents: Iterable[Content]) -> Iterator[bytes]:
    """The archive, a chunk at a time. Raises `DependencyUnavailable` where a file is not what its digest says."""
    sink = _Sink()
    with ZipFile(cast("IO[bytes]", sink), "w", ZIP_STORED) as archive:  # it asks for no more than `write`
        for name, data in ((SIGNATURE, signature), (DOCUMENT, document)):
            archive.writestr(ZipInfo(name, _EPOCH), data)
            yield sink.taken()
        for content in contents:
            digest = hashlib.sha256()
            with archive.open(ZipInfo(FILES + content.sha256, _EPOCH), "w", force_zip64=True) as member:
                for chunk in content.chunks:
                    digest.update(chunk)
                    member.write(chunk)
                    yield sink.taken()
            if digest.hexdigest() != content.sha256:
                raise DependencyUnavailable("digest_mismatch", "Storage holds other bytes than were recorded.")
    yield sink.taken()


class _Sink:
    """A file that cannot seek, and forgets what was taken from it."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        """Nothing waits anywhere."""

    def taken(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held
