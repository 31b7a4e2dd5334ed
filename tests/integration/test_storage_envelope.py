"""Where storage encrypts nothing: what really lies in the buckets, and how it comes back – to us, to others not at all."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from slipway import Client
from sqlalchemy import text as sql

from api.deps import Services
from registry import reviews
from shared.db import Begin
from shared.errors import DependencyUnavailable
from shared.settings import Settings
from shared.storage import PART_SIZE, Bucket, Storage
from tests.integration.api_fixtures import ada, app, parts, problem, served, url
from tests.integration.upload_fixtures import CONTENT_TYPE, file, form, safetensors
from tests.integration.upload_fixtures import text as field
from workers import housekeeping

MIB = 1 << 20
KEY, NEXT_KEY = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
ENVELOPE: dict[str, Any] = {"s3_encryption": "envelope", "storage_key": KEY}
MARK = b"weights that nobody else may read"


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return Settings(**ENVELOPE)


@pytest.fixture
def bucket(storage: Storage, settings: Settings) -> Bucket:
    return storage.bucket(settings.bucket("registry"))


def opened(**changed: Any) -> Bucket:
    """The same bucket, as a process with other settings has it."""
    settings = Settings(**ENVELOPE | changed)
    return Storage(**settings.storage).bucket(settings.bucket("registry"))


def lying(bucket: Bucket, key: str) -> tuple[bytes, dict[str, str]]:
    """Bytes and metadata as they lie in storage."""
    answer = bucket._client.get_object(Bucket=bucket.name, Key=key)
    return answer["Body"].read(), answer["Metadata"]


def lay(bucket: Bucket, key: str, content: bytes, metadata: dict[str, str]) -> None:
    bucket._client.put_object(Bucket=bucket.name, Key=key, Body=content, Metadata=metadata)


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(DependencyUnavailable) as caught:
        work()
    return caught.value.code


def test_whatever_way_it_is_written_the_content_comes_back_and_does_not_lie_there(
    bucket: Bucket, storage: Storage, settings: Settings, tmp_path: Path
) -> None:
    large = MARK + os.urandom(PART_SIZE + MIB // 2) + MARK
    bucket.put("small", MARK)
    bucket.put("empty", b"")
    (tmp_path / "large").write_bytes(large)
    bucket.upload(tmp_path / "large", "large")
    middling = MARK + os.urandom(10 * MIB)
    pieces = [middling[at : at + 5 * MIB] for at in range(0, len(middling), 5 * MIB)]
    parts = bucket.begin("by threads", part_size=5 * MIB)
    with ThreadPoolExecutor(3) as senders:
        jobs = [
            senders.submit(parts.part, number, piece, last=number == len(pieces))
            for number, piece in reversed(list(enumerate(pieces, start=1)))
        ]
        for job in jobs:
            job.result()
    with pytest.raises(ValueError, match="part 1 was sent before"):
        parts.part(1, pieces[1])
    parts.complete()
    elsewhere = storage.bucket(settings.bucket("quarantine"))
    elsewhere.copy(bucket, "large", "copy")
    assert lying(elsewhere, "copy") == lying(bucket, "large")
    elsewhere.delete(["copy"])

    contents = {"small": MARK, "empty": b"", "large": large, "by threads": middling}
    assert {stored.key: stored.size for stored in bucket.list()} == {key: len(each) for key, each in contents.items()}
    for key, content in contents.items():
        assert MARK not in lying(bucket, key)[0]
        assert (bucket.size(key), bucket.encrypted(key)) == (len(content), True)
        assert bucket.sha256(key) == hashlib.sha256(content).hexdigest()
    for start, length in ((0, 1), (MIB - 1, 2), (PART_SIZE - 5, 10), (len(large) - 3, 99), (3 * MIB, None)):
        end = None if length is None else start + length
        assert bucket.read("large", start, length) == large[start:end]


def test_what_somebody_does_in_the_bucket_is_noticed(bucket: Bucket) -> None:
    bucket.put("one", MARK)
    bucket.put("two", MARK)
    content, label = lying(bucket, "one")
    lay(bucket, "changed", content[:-1] + bytes([content[-1] ^ 1]), label)
    lay(bucket, "exchanged", lying(bucket, "two")[0], label)
    lay(bucket, "without a key", content, {})
    lay(bucket, "planted", b"never sealed", {})
    assert [
        refused(lambda key=key: bucket.read(key)) for key in ("changed", "exchanged", "without a key", "planted")
    ] == [
        "object_altered",
        "object_altered",
        "not_encrypted",
        "not_encrypted",
    ]
    assert refused(lambda: bucket.copy(bucket, "planted", "published")) == "not_encrypted"
    assert refused(lambda: opened(storage_key=NEXT_KEY).read("one")) == "wrong_storage_key"
    assert refused(lambda: opened(s3_encryption="none", storage_key="").read("one")) == "wrong_storage_key"
    bucket.delete([stored.key for stored in bucket.list()])


def test_an_operator_brings_everything_under_a_key_under_another_and_back(
    settings: Settings, begin: Begin, capsys: pytest.CaptureFixture[str], storage: Storage
) -> None:
    large = os.urandom(PART_SIZE + 5)
    plain = opened(s3_encryption="none", storage_key="")
    plain.put("old", MARK)
    parts = plain.begin("old and large")
    parts.part(1, large[:PART_SIZE])
    parts.part(2, large[PART_SIZE:], last=True)
    parts.complete()
    parser = argparse.ArgumentParser()
    housekeeping.add_commands(parser.add_subparsers(dest="command"))

    def check(*more: str, **changed: Any) -> tuple[int, list[str], list[str]]:
        code = housekeeping.run(
            parser.parse_args(["storage", "check", "--json", *more]), begin, Settings(**ENVELOPE | changed)
        )
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        return code, [each["key"] for each in told["plain"]], [each["code"] for each in told["failed"]]

    both = ["old", "old and large"]
    assert refused(lambda: opened().read("old")) == "not_encrypted"
    assert check() == (1, both, [])
    assert check("--encrypt") == (0, both, [])
    assert check() == (0, [], [])
    before, _ = lying(plain, "old and large")
    assert large[:100] not in before

    assert check("--encrypt", storage_key=NEXT_KEY) == (1, both, ["wrong_storage_key"] * 2)
    rotated = {"storage_key": NEXT_KEY, "storage_previous_keys": [KEY]}
    assert opened(**rotated).read("old") == MARK  # before and while keys are wrapped anew
    assert check("--encrypt", **rotated) == (0, both, [])
    assert lying(plain, "old and large")[0] == before  # the key was wrapped anew, the content was not touched
    assert opened(storage_key=NEXT_KEY).sha256("old and large") == hashlib.sha256(large).hexdigest()
    assert refused(lambda: opened().read("old")) == "wrong_storage_key"

    back = {"s3_encryption": "AES256", "storage_key": NEXT_KEY}
    assert opened(**back).read("old", 8, 4) == MARK[8:12]
    assert check("--encrypt", **back) == (0, both, [])
    assert lying(plain, "old and large")[0] == large


def test_an_upload_comes_back_through_an_address_at_our_own_api_for_as_long_as_it_is_good(
    parts: Services, begin: Begin, ada: httpx2.Client, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = safetensors(9 * MIB + 5)
    body = form(field("name", "sealed"), file("model_file", "weights.safetensors", content))
    taken = ada.post("/api/v1/models/upload", content=body, headers={"Content-Type": CONTENT_TYPE}).json()["data"]
    assert [stored.size for stored in parts.staging.list()] == [len(content)]
    with begin() as session:
        version = session.execute(sql("SELECT id, staging_key FROM versions")).one()
        reviews.judge(session, version.id, "clean")
    assert content[:100] not in lying(parts.staging, version.staging_key)[0]

    path = f"/api/v1/models/{taken['model_id']}/versions/{taken['version']}/download"
    handed = ada.get(path, params={"artifact": "source"}).json()
    assert handed["url"].startswith("/api/v1/objects?ticket=")
    assert str(version.id) not in base64.b64decode(handed["url"].partition("=")[2] + "==", altchars=b"-_").decode(
        "latin-1"
    )
    whole = httpx2.get(url + handed["url"])  # without a credential
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["repr-digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"
    assert whole.headers["content-disposition"] == "attachment; filename*=UTF-8''weights.safetensors"

    def ask(range_: str, **more: str) -> httpx2.Response:
        return httpx2.get(url + handed["url"], headers={"Range": range_} | more)

    some = ask(f"bytes={MIB - 2}-{MIB + 1}")
    assert (some.status_code, some.content) == (206, content[MIB - 2 : MIB + 2])
    assert some.headers["content-range"] == f"bytes {MIB - 2}-{MIB + 1}/{len(content)}"
    assert ask("bytes=-7").content == content[-7:]
    assert ask(f"bytes={9 * MIB}-").content == content[9 * MIB :]
    assert ask("bytes=0-1", **{"If-Range": whole.headers["etag"]}).content == content[:2]
    for other in (
        ask("bytes=0-1", **{"If-Range": '"other"'}),
        ask("bytes=0-1,4-5"),
    ):
        assert (other.status_code, len(other.content)) == (200, len(content))
    problem(ask(f"bytes={len(content)}-"), 416, "range_not_satisfiable")

    with Client(url, ada.headers["Authorization"].removeprefix("Bearer ")) as client:
        target = tmp_path / "pulled"
        (tmp_path / f"pulled.{handed['sha256'][:12]}.part").write_bytes(content[: 2 * MIB])  # what broke off goes on
        client.pull("sealed", target, "source")
    assert target.read_bytes() == content

    problem(httpx2.get(f"{url}{handed['url'][:-6]}AAAAAA"), 403, "address_refused")
    problem(httpx2.get(f"{url}/api/v1/objects?ticket=ä"), 403, "address_refused")
    monkeypatch.setattr(parts.tickets, "lifetime", -1)
    problem(httpx2.get(url + ada.get(path, params={"artifact": "source"}).json()["url"]), 403, "address_expired")
    sealed, label = lying(parts.staging, version.staging_key)
    lay(parts.staging, version.staging_key, bytes([sealed[0] ^ 1]) + sealed[1:], label)
    problem(httpx2.get(url + handed["url"]), 503, "object_altered")
    parts.staging.delete([version.staging_key])
    problem(httpx2.get(url + handed["url"]), 404, "artifact_not_found")


def test_a_process_does_not_start_without_a_key_that_is_one(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="openssl rand -base64 32"):
        Settings(s3_encryption="envelope")
    with pytest.raises(ValueError, match="openssl rand -base64 32"):
        opened(storage_key="guess")
