"""Encryption where objects are stored: asked for with every write, seen on every object, and refused where it is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest

from shared.encryption import Encryption
from shared.errors import DependencyUnavailable
from shared.settings import Settings
from shared.storage import Bucket, Storage


def opened(settings: Settings, algorithm: str, endpoint_url: str | None = None) -> Storage:
    return Storage(
        endpoint_url=endpoint_url or settings.s3_endpoint_url,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        region=settings.s3_region,
        encryption=algorithm,  # type: ignore[arg-type]
    )


@pytest.fixture
def registry(storage: Storage, settings: Settings) -> Bucket:
    return storage.bucket(settings.bucket("registry"))


def test_whatever_way_an_object_is_written_it_is_encrypted(
    registry: Bucket, storage: Storage, settings: Settings
) -> None:
    assert settings.s3_encryption == "AES256"  # what the embedded stack gives its processes
    name = uuid4().hex
    registry.put(f"{name}/small", b"small")
    parts = registry.begin(f"{name}/large", part_size=5 << 20)
    parts.part(1, bytes(5 << 20))
    parts.part(2, bytes(5 << 20))
    parts.part(3, b"the end", last=True)
    parts.complete()
    registry.copy(storage.bucket(settings.bucket("registry")), f"{name}/large", f"{name}/copy")
    assert [registry.encrypted(f"{name}/{each}") for each in ("small", "large", "copy")] == [True, True, True]
    assert registry.sha256(f"{name}/copy") == registry.sha256(f"{name}/large")
    assert registry.read(f"{name}/large", (10 << 20) + 4, 3) == b"end"
    before = registry.sha256(f"{name}/large")
    registry.encrypt(f"{name}/large")  # what an operator has done to objects from before
    assert (registry.sha256(f"{name}/large"), registry.encrypted(f"{name}/large")) == (before, True)
    registry.put(f"{name}/empty", b"")  # nothing to encrypt is nothing to complain of
    registry.prove_encryption()


def test_storage_that_cannot_encrypt_as_wished_is_an_error(settings: Settings, registry: Bucket) -> None:
    by_kms = opened(settings, "aws:kms").bucket(registry.name)
    with pytest.raises(DependencyUnavailable, match="NotImplemented"):
        by_kms.prove_encryption()


class Forgetful(BaseHTTPRequestHandler):
    """An S3 server of the kind that takes the wish, says 200, and stores plain bytes."""

    protocol_version = "HTTP/1.1"
    gone: list[str]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"")

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "39")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.gone.append(self.path)
        self._answer(b"<DeleteResult></DeleteResult>")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", '"x"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def forgetful() -> Iterator[str]:
    handler = type("Bound", (Forgetful,), {"gone": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
        assert handler.gone, "what was stored in the clear must go away again"


def test_storage_that_takes_the_wish_and_forgets_it_is_found_out(settings: Settings, forgetful: str) -> None:
    bucket = opened(settings, "AES256", forgetful).bucket("anything")
    with pytest.raises(DependencyUnavailable) as caught:
        bucket.prove_encryption()
    assert caught.value.code == "not_encrypted"


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:aws:kms:eu-1:1:key/k1"}, True),
        ({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k1"}, True),
        ({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:aws:kms:eu-1:1:key/other"}, False),
        ({"ServerSideEncryption": "AES256"}, False),
        ({}, False),
    ],
)
def test_another_key_or_another_way_is_not_what_was_wished(said: dict[str, str], fits: bool) -> None:
    assert Encryption("aws:kms", "k1").fits(said) is fits
