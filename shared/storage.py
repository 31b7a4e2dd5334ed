"""Object storage over the S3 protocol. Callers see bytes, digests and two errors; never boto, an ETag or a region.

Synchronous and thread-safe; async callers use threads. A multipart ETag is no content hash, so digests are our own.
Where encryption is asked for, every object is written with it and the storage must say so of every object: one that
takes the wish and forgets it is refused, not trusted. Where we encrypt ourselves, sizes, ranges and bytes are still
those of the content: nobody else sees what really lies there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import structlog

from shared.encryption import Algorithm, Encryption, label_of, size_of
from shared.envelope import CHUNK, DataKey, MasterKeys, span
from shared.errors import DependencyUnavailable
from shared.s3 import MISSING, client, code_of, outcomes

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef, ObjectIdentifierTypeDef

log = structlog.get_logger()

PART_SIZE = 16 << 20
"""A whole number of chunks, as the size of every part must be."""
PROBE = "encryption-probe"
"""Key of the object by which a bucket shows that it encrypts."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """`size` is taken for that of an object that is encrypted as the settings wish."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A multipart upload that was begun and neither completed nor aborted."""

    key: str
    upload_id: str
    started: datetime


class Storage:
    """One S3 account. `public_endpoint_url` is how clients reach it; only presigned URLs name it.

    `storage_key` and those from before are for `envelope`. Raises `ValueError` for what is no key, and for one missing.
    """

    def __init__(
        self,
        *,
        endpoint_url: str | None,
        access_key: str,
        secret_key: str,
        region: str,
        public_endpoint_url: str | None = None,
        encryption: Algorithm = "none",
        kms_key: str | None = None,
        storage_key: str = "",
        previous_storage_keys: Sequence[str] = (),
    ) -> None:
        def connected(url: str | None) -> S3Client:
            return client(url, access_key=access_key, secret_key=secret_key, region=region)

        self._client = connected(endpoint_url)
        self._public = connected(public_endpoint_url) if public_endpoint_url else self._client
        keys = MasterKeys(storage_key, previous_storage_keys) if storage_key else None
        self._encryption = Encryption(encryption, kms_key, keys)

    def bucket(self, name: str) -> Bucket:
        return Bucket(self._client, self._public, name, self._encryption)


class Bucket:
    """One bucket. Every method raises `DependencyUnavailable` when the storage is away, full or refuses us.

    Those that write raise `DependencyUnavailable("not_encrypted")` where it does not encrypt as it was asked to. So do
    those that read where we encrypt ourselves and an object is plain; and `wrong_storage_key` and `object_altered`.
    """

    def __init__(self, client: S3Client, public: S3Client, name: str, encryption: Encryption) -> None:
        self.name = name
        self._client = client
        self._public = public
        self._encryption = encryption

    def ensure(self) -> None:
        """Make the bucket if it is not there."""
        with outcomes(self.name):
            try:
                self._client.head_bucket(Bucket=self.name)
            except self._client.exceptions.ClientError as error:
                if code_of(error) not in MISSING | {"NoSuchBucket"}:
                    raise
                self._client.create_bucket(Bucket=self.name)

    def ping(self) -> None:
        with outcomes(self.name):
            self._client.head_bucket(Bucket=self.name)

    def prove_encryption(self) -> None:
        """Write a small object where encryption is asked for, and see that it is encrypted."""
        if self._encryption.wanted:
            self.put(PROBE, b"Slipway asks whether this is encrypted.", "text/plain")

    def encrypted(self, key: str) -> bool:
        """Whether an object is encrypted as the settings wish."""
        return self._encryption.fits(self._head(key))

    def encrypt(self, key: str) -> None:
        """Write an object again in place, encrypted as the settings wish.

        Where only the key of an envelope is another one, that is wrapped anew and no byte of the content passes through us.
        """
        self._bring(self, key, key, self._head(key))
        self._require_encrypted(key, keep=True)

    def put(self, key: str, data: bytes | bytearray, media_type: str = "application/octet-stream") -> None:
        data_key, parameters = self._encryption.begin()
        body = data if data_key is None else data_key.seal(0, data, last=True)
        with outcomes(key):
            answer = self._client.put_object(
                Bucket=self.name,
                Key=key,
                Body=body,  # type: ignore[arg-type]
                ContentType=media_type,
                **parameters,
            )
        if not self._encryption.fits(answer):
            self._require_encrypted(key)

    def begin(self, key: str, media_type: str = "application/octet-stream", *, part_size: int = PART_SIZE) -> Multipart:
        """Begin an upload in parts of that many whole MiB; nothing is visible under `key` before `complete`."""
        data_key, parameters = self._encryption.begin()
        with outcomes(key):
            answer = self._client.create_multipart_upload(
                Bucket=self.name, Key=key, ContentType=media_type, **parameters
            )
        return Multipart(
            self._client,
            self.name,
            key,
            answer["UploadId"],
            check=self._require_encrypted,
            part_size=part_size,
            data_key=data_key,
        )

    def upload(self, path: Path, key: str, media_type: str = "application/octet-stream") -> None:
        """Store a local file, in parts when it is large."""
        with path.open("rb") as file:
            self._write(key, iter(lambda: file.read(CHUNK), b""), media_type)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes [start, start + length) of an object, all of it by default."""
        return b"".join(self.stream(key, start, length))

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The same, piece by piece. `start` lies within the object."""
        return iter(()) if length == 0 else self._read(key, start, length)

    def download(self, key: str, path: Path) -> str:
        """Copy an object into a local file; its hex SHA-256."""
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in self.stream(key):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def sha256(self, key: str) -> str:
        """The digest of what is really stored, hex."""
        digest = hashlib.sha256()
        for chunk in self.stream(key):
            digest.update(chunk)
        return digest.hexdigest()

    def copy(self, source: Bucket, source_key: str, key: str) -> None:
        """Copy inside the storage; no byte passes through us where the source is encrypted as the copy is to be."""
        head = source._head(source_key)
        self._encryption.key_of(head)  # what must not be read must not be copied either
        self._bring(source, source_key, key, head)
        self._require_encrypted(key)

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None when there is none."""
        with outcomes(key):
            try:
                return size_of(self._client.head_object(Bucket=self.name, Key=key))
            except self._client.exceptions.ClientError as error:
                if code_of(error) in MISSING:
                    return None
                raise

    def delete(self, keys: Sequence[str]) -> None:
        """Objects that are not there are no error."""
        with outcomes(self.name):
            for start in range(0, len(keys), 1000):
                batch: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in keys[start : start + 1000]]
                answer = self._client.delete_objects(Bucket=self.name, Delete={"Objects": batch, "Quiet": True})
                for failure in answer.get("Errors", ()):
                    if failure.get("Code") not in MISSING:
                        raise DependencyUnavailable("storage_unavailable", f"Storage kept {failure.get('Key')}.")

    def list(self, prefix: str = "") -> Iterator[Stored]:
        with outcomes(self.name):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    size = self._encryption.listed_size(entry["Size"])
                    yield Stored(key=entry["Key"], size=size, modified=entry["LastModified"])

    def multiparts(self) -> Iterator[Unfinished]:
        with outcomes(self.name):
            for page in self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.name):
                for entry in page.get("Uploads", ()):
                    yield Unfinished(key=entry["Key"], upload_id=entry["UploadId"], started=entry["Initiated"])

    def abort(self, unfinished: Unfinished) -> None:
        Multipart(self._client, self.name, unfinished.key, unfinished.upload_id, check=self._require_encrypted).abort()

    def presign(self, key: str, filename: str, lifetime: int) -> str | None:
        """A GET URL for whoever holds it, for `lifetime` seconds; browsers save it as `filename`.

        None where there are keys of ours: whoever asks the storage itself might get what only we can open.
        """
        if self._encryption.keys is not None:
            return None
        disposition = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        return self._public.generate_presigned_url(
            "get_object",
            Params={"Bucket": self.name, "Key": key, "ResponseContentDisposition": disposition},
            ExpiresIn=lifetime,
        )

    def _head(self, key: str) -> Any:
        with outcomes(key):
            return self._client.head_object(Bucket=self.name, Key=key)

    def _read(
        self, key: str, start: int = 0, length: int | None = None, *, as_it_lies: bool = False
    ) -> Iterator[bytes]:
        with outcomes(key):
            answer = self._get(key, start, length)
            with closing(answer["Body"]) as body:
                data_key = None if as_it_lies else self._encryption.key_of(answer)
                if data_key is None:
                    yield from body.iter_chunks(CHUNK)
                else:
                    yield from data_key.read(body, total=_total(answer), start=start, length=length)

    def _get(self, key: str, start: int, length: int | None) -> Any:
        """What storage answers when asked for the bytes, or for the chunks that they lie in."""
        if start == 0 and length is None:
            return self._client.get_object(Bucket=self.name, Key=key)
        first, last = start, None if length is None else start + length - 1
        if self._encryption.keys is not None and label_of(self._head(key)) is not None:
            first, last = span(start, length)
        return self._client.get_object(Bucket=self.name, Key=key, Range=f"bytes={first}-{'' if last is None else last}")

    def _bring(self, source: Bucket, source_key: str, key: str, head: Any) -> None:
        """Write a copy that is encrypted as the settings wish: inside the storage, unless only we can seal or open it."""
        if (label_of(head) is not None) == self._encryption.sealing:
            # A copy in parts takes no metadata along, and a store takes an object for its own copy only where something
            # about it is said anew.
            anew = {
                "MetadataDirective": "REPLACE",
                "ContentType": head["ContentType"],
                "Metadata": self._encryption.carried(head),
            }
            with outcomes(source_key):
                self._client.copy(
                    {"Bucket": source.name, "Key": source_key},
                    self.name,
                    key,
                    ExtraArgs={**self._encryption.parameters, **anew},
                )
        else:
            pieces = source._read(source_key, as_it_lies=self._encryption.sealing)
            self._write(key, pieces, head["ContentType"])

    def _write(self, key: str, pieces: Iterable[bytes], media_type: str) -> None:
        """Store what comes, in parts when it is much."""
        parts = _parts(pieces)
        part, last = next(parts)
        if last:
            self.put(key, part, media_type)
            return
        multipart = self.begin(key, media_type)
        try:
            multipart.part(1, part)
            for number, (part, last) in enumerate(parts, start=2):
                multipart.part(number, part, last=last)
            multipart.complete()
        except BaseException:
            multipart.abort()
            raise

    def _require_encrypted(self, key: str, *, keep: bool = False) -> None:
        """Look at the object itself; what should be encrypted and is not goes away again, unless it was there before."""
        if not self._encryption.wanted or self.encrypted(key):
            return
        if not keep:
            self.delete([key])
        log.error("storage.not_encrypted", bucket=self.name)
        raise DependencyUnavailable(
            "not_encrypted", "Storage does not encrypt what it stores, although it was asked to (S3_ENCRYPTION)."
        )


class Multipart:
    """One upload in parts. Each is sent once, from any thread; every part but the last has `part_size` bytes."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        key: str,
        upload_id: str,
        *,
        check: Callable[[str], None],
        part_size: int = PART_SIZE,
        data_key: DataKey | None = None,
    ) -> None:
        self._client = client
        self._check = check
        self._where: Any = {"Bucket": bucket, "Key": key, "UploadId": upload_id}
        self._part_size = part_size
        self._data_key = data_key
        self._begun: set[int] = set()
        self._last: int | None = None
        self._parts: dict[int, str] = {}

    def part(self, number: int, data: bytes | bytearray | memoryview, *, last: bool = False) -> None:
        """Send part `number`, counted from 1; `last` where the object ends with it."""
        if number in self._begun or (len(data) != self._part_size and not last):
            raise ValueError(f"part {number} was sent before, or has {len(data)} bytes")  # a nonce must not come twice
        self._begun.add(number)
        if last:
            self._last = number
        if self._data_key is not None:
            data = self._data_key.seal((number - 1) * self._part_size // CHUNK, data, last=last)
        with outcomes(self._where["Key"]):
            answer = self._client.upload_part(**self._where, PartNumber=number, Body=data)  # type: ignore[arg-type]
        self._parts[number] = answer["ETag"]

    def complete(self) -> None:
        if self._last is None or sorted(self._parts) != list(range(1, self._last + 1)):
            raise ValueError("an upload is complete when all of its parts were sent, and the last as such")
        parts: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": tag} for number, tag in sorted(self._parts.items())
        ]
        with outcomes(self._where["Key"]):
            self._client.complete_multipart_upload(**self._where, MultipartUpload={"Parts": parts})
        self._check(self._where["Key"])

    def abort(self) -> None:
        """Forget every part. An upload that is gone already is no error."""
        with outcomes(self._where["Key"]):
            try:
                self._client.abort_multipart_upload(**self._where)
            except self._client.exceptions.ClientError as error:
                if code_of(error) not in MISSING:
                    raise


def _parts(pieces: Iterable[bytes]) -> Iterator[tuple[bytearray, bool]]:
    """The same bytes in parts of `PART_SIZE`, and whether each is the last; at least one."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) > PART_SIZE:
            yield held[:PART_SIZE], False
            held = held[PART_SIZE:]
    yield held, True


def _total(answer: Any) -> int:
    """The size of the whole object of which an answer may bring a part."""
    said: str = answer.get("ContentRange", "")
    return int(said.rpartition("/")[2] or answer["ContentLength"])
