"""What gets into the registry bucket: the bytes whose digest was reported, looked at once more where they lie."""

from __future__ import annotations

import hashlib
from uuid import uuid4

import pytest

from pipeline.errors import Unavailable
from pipeline.stage import File
from shared.db import Begin
from shared.settings import Settings
from shared.signing import Signer
from shared.storage import Bucket, Storage
from workers.context import Publishing

SIGNER = Signer("s" * 32)
CHECKED = b"what the scan, the conversion and the benchmark saw"
SWAPPED = bytes(reversed(CHECKED))


@pytest.fixture
def staging(storage: Storage, settings: Settings) -> Bucket:
    return storage.bucket(settings.bucket("staging"))


@pytest.fixture
def registry(storage: Storage, settings: Settings) -> Bucket:
    return storage.bucket(settings.bucket("registry"))


def staged(staging: Bucket, content: bytes) -> File:
    """A file as a step reported it, in a staging bucket that holds `content` now."""
    checked = CHECKED + uuid4().bytes
    content = checked if content == CHECKED else content + checked[-16:]
    key = f"{uuid4()}/canonical.onnx"
    staging.put(key, content)
    return File(
        name="canonical.onnx", role="canonical", key=key, sha256=hashlib.sha256(checked).hexdigest(), size=len(checked)
    )


def key_of(file: File) -> str:
    return f"sha256/{file.sha256[:2]}/{file.sha256}/{file.name}"


def test_the_bytes_that_were_reported_are_published_under_their_digest(
    begin: Begin, staging: Bucket, registry: Bucket
) -> None:
    file = staged(staging, CHECKED)
    publishing = Publishing(begin, staging, registry, SIGNER)
    assert publishing.publish(file) == publishing.publish(file) == key_of(file)
    assert registry.sha256(key_of(file)) == file.sha256


def test_bytes_that_were_exchanged_after_the_checks_are_not_published(
    begin: Begin, staging: Bucket, registry: Bucket
) -> None:
    """Of the same length: a size alone would not tell."""
    file = staged(staging, SWAPPED)
    assert staging.size(file.key) == file.size
    with pytest.raises(Unavailable) as caught:
        Publishing(begin, staging, registry, SIGNER).publish(file)
    assert caught.value.code == "digest_mismatch"
    assert registry.size(key_of(file)) is None


def test_wrong_bytes_that_lie_in_the_registry_already_are_found_and_removed(
    begin: Begin, staging: Bucket, registry: Bucket
) -> None:
    file = staged(staging, CHECKED)
    registry.put(key_of(file), bytes(file.size))
    publishing = Publishing(begin, staging, registry, SIGNER)
    with pytest.raises(Unavailable):
        publishing.publish(file)
    assert registry.size(key_of(file)) is None
    assert publishing.publish(file) == key_of(file)
    assert registry.sha256(key_of(file)) == file.sha256
