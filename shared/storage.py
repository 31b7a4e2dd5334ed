"""Object storage over the S3 protocol. Callers see bytes, digests and two errors; never boto, an ETag or a region.

Synchronous and thread-safe; async callers use threads. A multipart ETag is no content hash, so digests are our own.
Where encryption is asked for, every object is written with it and the storage must say so of every object: one that
takes the wish and forgets it is refused, not trusted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import structlog

from shared.errors import DependencyUnavailable, ObjectMissing

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef, ObjectIdentifierTypeDef

log = structlog.get_logger()

CHUNK = 1 << 20
PART_SIZE = 16 << 20
PROBE = "encryption-probe"
"""Key of the object by which a bucket shows that it encrypts."""
Algorithm = Literal["none", "AES256", "aws:kms"]
_FULL = {"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"}
_MISSING = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}


@dataclass(frozen=True, kw_only=True)
class Stored:
    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A multipart upload that was begun and neither completed nor aborted."""

    key: str
    upload_id: str
    started: datetime


class Encryption:
    """How objects are to be encrypted where they are stored (SSE-S3, SSE-KMS), or not at all."""

    def __init__(self, algorithm: Algorithm = "none", key: str | None = None) -> None:
        self.wanted = algorithm != "none"
        self._algorithm = algorithm
        self.parameters: Any = {}
        """What every request that writes has to carry."""
        if self.wanted:
            self.parameters["ServerSideEncryption"] = algorithm
        if self.wanted and key is not None:
            self.parameters["SSEKMSKeyId"] = key

    def fits(self, answer: Any) -> bool:
        """Whether the storage says of an object that it is encrypted as wished."""
        key = self.parameters.get("SSEKMSKeyId")
        named = str(answer.get("SSEKMSKeyId", ""))
        right_key = key is None or named == key or named.endswith(f"/{key}")
        return not self.wanted or (answer.get("ServerSideEncryption") == self._algorithm and right_key)


class Storage:
    """One S3 account. `public_endpoint_url` is how clients reach it; only presigned URLs name it."""

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
    ) -> None:
        # boto3 takes half a second to import and not every process that imports this module needs it.
        import boto3
        from botocore.config import Config

        config = Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
            max_pool_connections=64,
            connect_timeout=5,
            read_timeout=120,
            retries={"mode": "standard", "max_attempts": 3},
        )

        def client(url: str | None) -> S3Client:
            return boto3.client(
                "s3",
                endpoint_url=url,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                region_name=region,
                config=config,
            )

        self._client = client(endpoint_url)
        self._public = client(public_endpoint_url) if public_endpoint_url else self._client
        self._encryption = Encryption(encryption, kms_key)

    def bucket(self, name: str) -> Bucket:
        return Bucket(self._client, self._public, name, self._encryption)


class Bucket:
    """One bucket. Every method raises `DependencyUnavailable` when the storage is away, full or refuses us.

    Those that write raise `DependencyUnavailable("not_encrypted")` where it does not encrypt as it was asked to.
    """

    def __init__(self, client: S3Client, public: S3Client, name: str, encryption: Encryption) -> None:
        self.name = name
        self._client = client
        self._public = public
        self._encryption = encryption

    def ensure(self) -> None:
        """Make the bucket if it is not there."""
        with _outcomes(self.name):
            try:
                self._client.head_bucket(Bucket=self.name)
            except self._client.exceptions.ClientError as error:
                if _code(error) not in _MISSING | {"NoSuchBucket"}:
                    raise
                self._client.create_bucket(Bucket=self.name)

    def ping(self) -> None:
        with _outcomes(self.name):
            self._client.head_bucket(Bucket=self.name)

    def prove_encryption(self) -> None:
        """Write a small object where encryption is asked for, and see that it is encrypted."""
        if self._encryption.wanted:
            self.put(PROBE, b"Slipway asks whether this is encrypted.", "text/plain")

    def encrypted(self, key: str) -> bool:
        """Whether an object is encrypted as the settings wish. One without a byte has nothing to encrypt."""
        with _outcomes(key):
            head = self._client.head_object(Bucket=self.name, Key=key)
        return head["ContentLength"] == 0 or self._encryption.fits(head)

    def encrypt(self, key: str) -> None:
        """Write an object again in place, encrypted as the settings wish."""
        with _outcomes(key):
            head = self._client.head_object(Bucket=self.name, Key=key)
            # A store takes an object for its own copy only where something about it is said anew.
            anew = {"MetadataDirective": "REPLACE", "ContentType": head["ContentType"], "Metadata": head["Metadata"]}
            self._client.copy(
                {"Bucket": self.name, "Key": key}, self.name, key, ExtraArgs={**self._encryption.parameters, **anew}
            )
        self._require_encrypted(key, keep=True)

    def put(self, key: str, data: bytes, media_type: str = "application/octet-stream") -> None:
        with _outcomes(key):
            answer = self._client.put_object(
                Bucket=self.name, Key=key, Body=data, ContentType=media_type, **self._encryption.parameters
            )
        if not self._encryption.fits(answer):
            self._require_encrypted(key)

    def begin(self, key: str, media_type: str = "application/octet-stream") -> Multipart:
        """Begin an upload in parts; nothing is visible under `key` before `complete`."""
        with _outcomes(key):
            answer = self._client.create_multipart_upload(
                Bucket=self.name, Key=key, ContentType=media_type, **self._encryption.parameters
            )
        return Multipart(self._client, self.name, key, answer["UploadId"], check=self._require_encrypted)

    def upload(self, path: Path, key: str, media_type: str = "application/octet-stream") -> None:
        """Store a local file, in parts when it is large."""
        with path.open("rb") as file:
            head = file.read(PART_SIZE)
            if len(head) < PART_SIZE:
                self.put(key, head, media_type)
                return
            parts = self.begin(key, media_type)
            try:
                number = 1
                while head:
                    parts.part(number, head)
                    number, head = number + 1, file.read(PART_SIZE)
                parts.complete()
            except BaseException:
                parts.abort()
                raise

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes [start, start + length) of an object, all of it by default."""
        span = f"bytes={start}-{'' if length is None else start + length - 1}"
        with _outcomes(key):
            if start == 0 and length is None:
                return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
            return self._client.get_object(Bucket=self.name, Key=key, Range=span)["Body"].read()

    def stream(self, key: str) -> Iterator[bytes]:
        with _outcomes(key):
            body = self._client.get_object(Bucket=self.name, Key=key)["Body"]
            yield from body.iter_chunks(CHUNK)

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
        """Copy inside the storage; no byte passes through us."""
        with _outcomes(source_key):
            self._client.copy(
                {"Bucket": source.name, "Key": source_key}, self.name, key, ExtraArgs=self._encryption.parameters
            )
        self._require_encrypted(key)

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None when there is none."""
        with _outcomes(key):
            try:
                return self._client.head_object(Bucket=self.name, Key=key)["ContentLength"]
            except self._client.exceptions.ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise

    def delete(self, keys: Sequence[str]) -> None:
        """Objects that are not there are no error."""
        with _outcomes(self.name):
            for start in range(0, len(keys), 1000):
                batch: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in keys[start : start + 1000]]
                answer = self._client.delete_objects(Bucket=self.name, Delete={"Objects": batch, "Quiet": True})
                for failure in answer.get("Errors", ()):
                    if failure.get("Code") not in _MISSING:
                        raise DependencyUnavailable("storage_unavailable", f"Storage kept {failure.get('Key')}.")

    def list(self, prefix: str = "") -> Iterator[Stored]:
        with _outcomes(self.name):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    yield Stored(key=entry["Key"], size=entry["Size"], modified=entry["LastModified"])

    def multiparts(self) -> Iterator[Unfinished]:
        with _outcomes(self.name):
            for page in self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.name):
                for entry in page.get("Uploads", ()):
                    yield Unfinished(key=entry["Key"], upload_id=entry["UploadId"], started=entry["Initiated"])

    def abort(self, unfinished: Unfinished) -> None:
        Multipart(self._client, self.name, unfinished.key, unfinished.upload_id, check=self._require_encrypted).abort()

    def presign(self, key: str, filename: str, lifetime: int) -> str:
        """A GET URL for whoever holds it, for `lifetime` seconds; browsers save it as `filename`."""
        disposition = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        return self._public.generate_presigned_url(
            "get_object",
            Params={"Bucket": self.name, "Key": key, "ResponseContentDisposition": disposition},
            ExpiresIn=lifetime,
        )

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
    """One upload in parts. Parts may be sent from several threads; every part but the last has at least 5 MiB."""

    def __init__(
        self, client: S3Client, bucket: str, key: str, upload_id: str, *, check: Callable[[str], None]
    ) -> None:
        self._client = client
        self._check = check
        self._where: Any = {"Bucket": bucket, "Key": key, "UploadId": upload_id}
        self._parts: dict[int, str] = {}

    def part(self, number: int, data: bytes | bytearray | memoryview) -> None:
        """Send part `number`, counted from 1."""
        with _outcomes(self._where["Key"]):
            answer = self._client.upload_part(**self._where, PartNumber=number, Body=data)  # type: ignore[arg-type]
        self._parts[number] = answer["ETag"]

    def complete(self) -> None:
        parts: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": tag} for number, tag in sorted(self._parts.items())
        ]
        with _outcomes(self._where["Key"]):
            self._client.complete_multipart_upload(**self._where, MultipartUpload={"Parts": parts})
        self._check(self._where["Key"])

    def abort(self) -> None:
        """Forget every part. An upload that is gone already is no error."""
        with _outcomes(self._where["Key"]):
            try:
                self._client.abort_multipart_upload(**self._where)
            except self._client.exceptions.ClientError as error:
                if _code(error) not in _MISSING:
                    raise


@contextmanager
def _outcomes(what: str) -> Iterator[None]:
    """Translate the client library's many errors into our two.

    Their texts reach clients, so they name neither key nor address; the log does.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = _code(error)
        if code in _MISSING:
            log.warning("storage.missing", what=what)
            raise ObjectMissing("object_missing", "An object that should be there is not in storage.") from error
        if code in _FULL:
            raise DependencyUnavailable(
                "storage_full", "Storage is full; free some space or raise its quota."
            ) from error
        log.warning("storage.refused", what=what, code=code)
        raise DependencyUnavailable("storage_unavailable", f"Storage refused a request ({code}).") from error
    except (BotoCoreError, Boto3Error, OSError) as error:
        log.warning("storage.unreachable", what=what, error=str(error))
        raise DependencyUnavailable("storage_unavailable", "Storage does not answer.") from error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
