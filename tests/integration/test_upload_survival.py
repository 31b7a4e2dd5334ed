"""Uploads whose server is killed or cancelled, whose storage is full, whose commit is in doubt; and a very large one."""

# ruff: noqa: F811 - fixtures are imported, and asked for by name

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api.app import assemble, create_app
from api.deps import Services
from api.landing import Landing
from pipeline.staging import sweep_staging
from registry import models, store
from registry.lookup import Viewer
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Bucket
from tests.integration.api_fixtures import parts, serving  # noqa: F401 - fixtures
from tests.integration.upload_fixtures import (  # noqa: F401 - fixtures
    NOW,
    Answer,
    Wire,
    file,
    file_head,
    form,
    left_in,
    onnx,
    safetensors,
    safetensors_chunks,
    staging,
    text,
    versions_of,
    wait_for,
)

MIB = 1 << 20
ROOT = Path(__file__).parents[2]
NAME = text("name", "m")


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return Settings(max_upload_size=2048 * MIB, upload_rate_limit=1000)


@dataclass(frozen=True, kw_only=True)
class Somebody:
    id: UUID
    token: str


@pytest.fixture
def ada(owner: UUID, parts: Services) -> Somebody:
    return Somebody(id=owner, token=parts.tokens.issue(str(owner)))


def send(url: str, somebody: Somebody, body: bytes) -> Answer:
    with Wire(url, somebody.token) as wire:
        wire.begin(length=len(body))
        wire.send(body)
        return wire.answer()


# -- a server of its own, to be killed and measured ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]

    def memory(self, which: str) -> int:
        """`VmRSS` or its peak, `VmHWM`, in bytes."""
        found = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1]) << 10


@pytest.fixture
def server(environment: dict[str, str], settings: Settings, staging: Bucket, tmp_path: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    more = {
        "SLIPWAY_PORT": str(port),
        "MAX_UPLOAD_SIZE": str(settings.max_upload_size),
        "UPLOAD_RATE_LIMIT": "1000",
        "PYTHONPATH": os.fspath(ROOT),
    }
    with (tmp_path / "api.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"], env=environment | more, stdout=log, stderr=log, cwd=tmp_path
        )
    running = Server(url=f"http://127.0.0.1:{port}", process=process)
    try:
        wait_for(lambda: _lives(running))
        yield running
    finally:
        process.kill()
        process.wait()


def _lives(server: Server) -> bool:
    assert server.process.poll() is None, "the server has ended"
    try:
        with urllib.request.urlopen(f"{server.url}/livez", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


def test_a_killed_server_leaves_bytes_that_the_sweep_finds(
    server: Server, ada: Somebody, begin: Begin, staging: Bucket
) -> None:
    body = NAME + file("card_file", "a.md", b"#") + file_head("model_file", "w.safetensors") + safetensors(20 * MIB)
    with Wire(server.url, ada.token) as wire:
        wire.begin(length=30 * MIB)
        wire.send(body)
        wait_for(lambda: list(staging.list()) and list(staging.multiparts()))
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    assert versions_of(begin, ada.id) == 0
    assert len(left_in(staging)) == 2

    def known(keys: object) -> set[str]:
        with begin() as session:
            return store.staged(session, list(keys))  # type: ignore[call-overload]

    assert sweep_staging(staging, known, timedelta(hours=1)) == (0, 0)
    assert sweep_staging(staging, known, NOW) == (1, 1)
    assert left_in(staging) == []
    assert sweep_staging(staging, known, NOW) == (0, 0)


def test_the_sweep_takes_neither_what_belongs_to_a_version_nor_what_is_not_of_an_upload(
    parts: Services, ada: Somebody, begin: Begin, staging: Bucket
) -> None:
    with serving(create_app(parts)) as served:
        body = form(NAME, file("card_file", "a.md", b"#"), file("model_file", "m.onnx", onnx()))
        assert send(served.url, ada, body).status == 202
    kept = left_in(staging)
    others = [f"runs/{uuid4()}/scan/1/x", "README", f"{uuid4()}/model/deeper/x"]
    orphans = [f"{uuid4()}/model/m.onnx", f"{uuid4()}/card/a.md"]
    for key in others + orphans:
        staging.put(key, b"x")
    staging.begin(f"{uuid4()}/model/m.onnx")
    staging.begin(f"runs/{uuid4()}/convert/1/m.onnx")
    with begin() as session:
        assert sweep_staging(staging, lambda keys: store.staged(session, keys), NOW) == (2, 2)
    assert sorted(stored.key for stored in staging.list()) == sorted(kept + others)
    assert list(staging.multiparts()) == [], "what was begun in parts belongs to nobody, whoever began it"
    staging.delete(others)


def test_a_gigabyte_passes_through_a_server_whose_memory_stays_flat(
    server: Server, ada: Somebody, staging: Bucket, record_testsuite_property: Callable[[str, object], None]
) -> None:
    size, digest = 1024 * MIB, hashlib.sha256()
    before, after = NAME + file_head("model_file", "w.safetensors"), b"\r\n" + form()
    idle = server.memory("VmRSS")
    with Wire(server.url, ada.token) as wire:
        wire.begin(length=len(before) + size + len(after))
        began = time.perf_counter()
        wire.send(before)
        for chunk in safetensors_chunks(size):
            digest.update(chunk)
            wire.send(chunk)
        wire.send(after)
        answer = wire.answer()
        seconds = time.perf_counter() - began
    assert answer.status == 202, answer.body
    data = answer.body["data"]
    assert isinstance(data, dict)
    assert (data["file_size"], data["checksum"]) == (size, f"sha256:{digest.hexdigest()}")
    [stored] = staging.list()
    assert stored.size == size
    growth = server.memory("VmHWM") - idle
    record_testsuite_property("upload_mib_per_second", round(1024 / seconds))
    record_testsuite_property("peak_growth_mib", round(growth / MIB))
    assert growth < 120 * MIB


# -- faults of what stands below -------------------------------------------------------------------------------------


@contextmanager
def storage_that_is(full_from_part: int, behind: str) -> Iterator[str]:
    """The URL of a proxy before the storage that has no room from that part on."""
    target = urlsplit(behind)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            number = re.search(r"partNumber=(\d+)", self.path)
            single = self.command == "PUT" and number is None and "uploadId" not in self.path
            if (number and int(number[1]) >= full_from_part) or (single and full_from_part == 0):
                self.answer(507, {}, b"<Error><Code>InsufficientStorage</Code></Error>")
                return
            onward = HTTPConnection(target.hostname or "", target.port, timeout=30)
            onward.request(self.command, self.path, body, dict(self.headers))
            answer = onward.getresponse()
            self.answer(answer.status, dict(answer.getheaders()), answer.read())
            onward.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815 - http.server's names

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that it overrides
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    proxy.daemon_threads = True
    thread = Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


@pytest.mark.parametrize("full_from_part", [0, 1, 3])
def test_a_storage_that_is_full_keeps_nothing_and_says_so(
    full_from_part: int, settings: Settings, ada: Somebody, begin: Begin, staging: Bucket
) -> None:
    size = MIB if full_from_part == 0 else 40 * MIB
    assert settings.s3_endpoint_url
    with storage_that_is(full_from_part, behind=settings.s3_endpoint_url) as url:
        faulty = assemble(settings.model_copy(update={"s3_endpoint_url": url}))
        with serving(create_app(faulty)) as served:
            answer = send(served.url, ada, form(NAME, file("model_file", "w.safetensors", safetensors(size))))
    assert (answer.status, answer.body["code"]) == (503, "storage_full")
    assert "retry-after" in answer.headers
    assert left_in(staging) == []
    assert versions_of(begin, ada.id) == 0


def test_a_storage_that_is_away_is_a_503(settings: Settings, ada: Somebody, begin: Begin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    with serving(create_app(assemble(settings.model_copy(update={"s3_endpoint_url": nowhere})))) as served:
        answer = send(served.url, ada, form(NAME, file("model_file", "m.onnx", onnx())))
    assert (answer.status, answer.body["code"]) == (503, "storage_unavailable")
    assert versions_of(begin, ada.id) == 0


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_in_doubt_leaves_the_bytes_to_the_sweep(
    committed: bool, settings: Settings, ada: Somebody, begin: Begin, staging: Bucket
) -> None:
    """The connection may break after the server has committed: a version without its bytes would be worse."""
    parts = assemble(settings)

    @contextmanager
    def broken() -> Iterator[Session]:
        with parts.begin() as session:
            yield session
            if not models.listed(session, Viewer(user_id=ada.id), models.Wanted()):
                return  # it only looked
            if not committed:
                raise OperationalError("COMMIT", {}, Exception("the connection was lost"))
        raise OperationalError("COMMIT", {}, Exception("the connection was lost"))

    with serving(create_app(replace(parts, begin=broken))) as served:
        answer = send(served.url, ada, form(NAME, file("model_file", "m.onnx", onnx())))
    assert (answer.status, answer.body["code"]) == (503, "database_unavailable")
    assert versions_of(begin, ada.id) == int(committed)
    with begin() as session:
        assert sweep_staging(staging, lambda keys: store.staged(session, keys), NOW) == (0, int(not committed))
    assert len(left_in(staging)) == int(committed)


def test_an_upload_that_is_cancelled_anywhere_leaves_nothing(staging: Bucket) -> None:
    data = memoryview(safetensors(MIB))

    async def upload(landing: Landing) -> None:
        async with landing:
            await landing.store("card", "a.md", b"#")
            landing.begin("w.safetensors")
            for _ in range(20):
                await landing.write(data)
            await landing.finish("w.safetensors")
            await landing.complete()
            await asyncio.sleep(60)

    async def cancel(after: float) -> None:
        landing = Landing(staging, longest=20 * MIB)
        task = asyncio.create_task(upload(landing))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for after in (0, 0.01, 0.05, 0.1, 0.2, 0.4, 1.5):
        asyncio.run(cancel(after))
        assert left_in(staging) == []
