"""What the form, the checks and the row cost: an upload through the API beside SHA-256 + S3 put of the same bytes.

Both send the same parts to the same storage, two at a time, and are run in turn. Run it inside the stack.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from api.landing import UNDER_WAY, part_size
from registry import people
from shared.db import connect, transactions
from shared.settings import Settings
from shared.storage import Bucket, Storage
from shared.tokens import Tokens

MIB = 1 << 20
SIZE = 256 * MIB
ROUNDS = 7
WARM_UP = 1
BOUNDARY = "benchmark"
_PATTERN = bytes(range(251)) * 4177


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one upload: seconds of wall time, and of CPU and bytes at the peak in the process that did it."""

    seconds: float
    cpu: float
    memory: int


def main() -> dict[str, Any]:
    with _surroundings() as settings:
        storage = Storage(**settings.storage)
        staging = storage.bucket(settings.bucket("staging"))
        staging.ensure()
        bearer = token(settings)
        through_api, direct = [], []
        with _server() as (port, process):
            for _ in range(ROUNDS + WARM_UP):
                through_api.append(_measured(process.pid, lambda: _upload(port, bearer)))
                _empty(staging)
                direct.append(_measured(os.getpid(), lambda: _put(staging)))
                _empty(staging)
    return _figures(through_api[WARM_UP:], direct[WARM_UP:])


def _figures(through_api: list[Cost], direct: list[Cost]) -> dict[str, Any]:
    def rate(costs: list[Cost]) -> int:
        return round(SIZE / 1e6 / statistics.median(cost.seconds for cost in costs))

    def cpu(costs: list[Cost]) -> float:
        return round(statistics.median(cost.cpu for cost in costs) * (1 << 30) / SIZE, 2)

    ratios = [ours.seconds / theirs.seconds for ours, theirs in zip(through_api, direct, strict=True)]
    return {
        "through the API, median MB/s": rate(through_api),
        "SHA-256 + S3 put, median MB/s": rate(direct),
        "ratio of times, median of pairs": round(statistics.median(ratios), 2),
        "API process, CPU s/GiB": cpu(through_api),
        "API process, highest memory growth MiB": round(max(cost.memory for cost in through_api) / MIB),
        "SHA-256 + S3 put, highest memory growth MiB": round(max(cost.memory for cost in direct) / MIB),
        "bytes": SIZE,
        "rounds": len(ratios),
    }


def _content() -> Iterator[bytes]:
    """A safetensors file, in pieces of about a mebibyte."""
    count = SIZE - 8 - 512
    text = json.dumps({"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    yield (512).to_bytes(8, "little") + text.ljust(512)
    left = count
    while left:
        yield _PATTERN[:left]
        left -= min(left, len(_PATTERN))


def _upload(port: int, bearer: str) -> None:
    def part(name: str, more: str = "") -> bytes:
        return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()

    before = part("name") + f"m-{uuid4()}x\r\n".encode() + part("model_file", '; filename="w.safetensors"')
    after = f"\r\n--{BOUNDARY}--\r\n".encode()
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    connection.putrequest("POST", "/api/v1/models/upload")
    connection.putheader("Authorization", f"Bearer {bearer}")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", str(len(before) + SIZE + len(after)))
    connection.endheaders(before)
    for piece in _content():
        connection.send(piece)
    connection.send(after)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 202:
        raise RuntimeError(f"the upload was refused: {body.decode()}")


def _put(staging: Bucket) -> None:
    """What the API cannot do without: hash, and send parts, as many at once as it does."""
    digest, part, size = hashlib.sha256(), bytearray(), part_size(SIZE)
    multipart = staging.begin(f"direct/{uuid4()}", part_size=size)
    under_way: deque[Future[None]] = deque()
    number = 0
    with ThreadPoolExecutor(UNDER_WAY) as senders:
        for piece in _content():
            part += piece
            if len(part) > size:  # more follows, so this is not the last
                number += 1
                digest.update(part[:size])
                under_way.append(senders.submit(multipart.part, number, part[:size]))
                del part[:size]
                if len(under_way) > UNDER_WAY:
                    under_way.popleft().result()
        digest.update(part)
        under_way.append(senders.submit(multipart.part, number + 1, part, last=True))
        for each in under_way:
            each.result()
    multipart.complete()


def _measured(pid: int, work: Any) -> Cost:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
    memory, cpu, began = _memory(pid, "VmRSS"), _cpu(pid), time.perf_counter()
    work()
    return Cost(seconds=time.perf_counter() - began, cpu=_cpu(pid) - cpu, memory=_memory(pid, "VmHWM") - memory)


def _memory(pid: int, which: str) -> int:
    found = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) << 10 if found else 0


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _empty(staging: Bucket) -> None:
    staging.delete([stored.key for stored in staging.list()])


def token(settings: Settings, username: str = "bench") -> str:
    """A bearer token of a new user, good for an hour."""
    engine = connect(settings.sqlalchemy_url)
    with transactions(engine)() as session:
        user = people.register(session, username=username, password_hash=None, permissions=people.EVERYDAY)
    engine.dispose()
    return Tokens(settings.jwt_secret.get_secret_value(), lifetime=3600).issue(str(user.id))


@contextmanager
def _surroundings() -> Iterator[Settings]:
    """A database and buckets of the benchmark's own, named by the environment while the block lasts."""
    before, name = dict(os.environ), f"bench-{uuid4().hex[:8]}"
    url = make_url(before["DATABASE_URL"]).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(before["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        os.environ.update(
            DATABASE_URL=url,
            S3_BUCKET_PREFIX=name,
            ENVIRONMENT="development",
            MAX_UPLOAD_SIZE=str(SIZE),
            UPLOAD_RATE_LIMIT="1000",
            LOG_LEVEL="WARNING",
        )
        try:
            command.upgrade(Config("alembic.ini"), "head")
            yield Settings()
        finally:
            os.environ.clear()
            os.environ.update(before)
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def _server() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "api"], env=os.environ | {"SLIPWAY_PORT": str(port)})
    try:
        _wait_until_it_lives(port, process)
        yield port, process
    finally:
        process.kill()
        process.wait()


def _wait_until_it_lives(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5):
                return
        except urllib.error.URLError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
