"""Our registry beside MLflow's: searching models and reading a version over HTTP, with 10,000 versions in each.

Both as they are served, one process each, on the same PostgreSQL server, with the same names, descriptions and tags; asked
in turns by the same client. MLflow lives in an environment of its own, with psycopg2: `MLFLOW_VENV=…`. Without it only ours is measured.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psutil
import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from registry import keys, people
from shared import tokens
from shared.db import connect, transactions
from shared.settings import Settings

MODELS, VERSIONS = 2000, 5
ROUNDS, SECONDS = 5, 3.0
CLIENTS = (1, 4)
IDLE_SECONDS, MOST_IDLE = 2.0, 0.05
"""A server is up when for so long it has taken less than this share of a core: MLflow answers before its start ends."""
WORDS = ("digits", "faces", "cats", "contracts", "speech", "weather", "traffic", "plants", "faults", "reviews")
KINDS = ("resnet", "bert", "yolo", "forest", "linear", "lstm", "unet", "whisper")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A server: what to ask it for, given a random choice, and with which headers."""

    name: str
    port: int
    pid: int
    headers: dict[str, str]
    questions: dict[str, Callable[[random.Random], str]]


@dataclass
class Taken:
    """Seconds of each answer, of all rounds together, and of processor time that the server's processes took."""

    answers: list[float] = field(default_factory=list)
    lasted: float = 0.0
    computed: float = 0.0


def main() -> dict[str, Any]:
    with ExitStack() as running:
        peers = [running.enter_context(_slipway())]
        if os.environ.get("MLFLOW_VENV"):
            peers.append(running.enter_context(_mlflow(Path(os.environ["MLFLOW_VENV"]))))
        taken: dict[tuple[str, str, int], Taken] = {}
        for number in range(ROUNDS + 1):
            for question in peers[0].questions:
                for clients in CLIENTS:
                    for peer in peers:
                        kept = taken.setdefault((question, peer.name, clients), Taken()) if number else Taken()
                        _ask(peer, question, clients, kept, seed=number)
    figures: dict[str, Any] = {}
    for (question, name, clients), found in taken.items():
        cuts = statistics.quantiles(found.answers, n=100)
        told = [round(1e3 * cuts[percent - 1], 1) for percent in (50, 95, 99)]
        rate = round(len(found.answers) / found.lasted)
        work = round(1e3 * found.computed / len(found.answers), 1)
        figures[f"{question}, {clients} at once, {name}"] = f"p50/p95/p99 ms {told}, {rate} req/s, CPU ms each {work}"
    if len(peers) == 2:
        for question in peers[0].questions:
            for clients in CLIENTS:
                ours, theirs = (taken[question, peer.name, clients] for peer in peers)
                ratio = (len(ours.answers) / ours.lasted) / (len(theirs.answers) / theirs.lasted)
                figures[f"{question}, {clients} at once, req/s of ours over theirs"] = round(ratio, 1)
    return figures


def _ask(peer: Peer, question: str, clients: int, taken: Taken, *, seed: int) -> None:
    """Ask for a while with some clients at once, each with a connection that stays open."""
    ends = time.perf_counter() + SECONDS
    answers: list[list[float]] = [[] for _ in range(clients)]
    failures: list[str] = []

    def client(number: int) -> None:
        chosen = random.Random(f"{seed} {number}")
        connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=30)
        try:
            while (began := time.perf_counter()) < ends and not failures:
                connection.request("GET", peer.questions[question](chosen), headers=peer.headers)
                answer = connection.getresponse()
                body = answer.read()
                answers[number].append(time.perf_counter() - began)
                if answer.status != 200:
                    failures.append(f"{peer.name}: {answer.status} {body[:300]!r}")
        finally:
            connection.close()

    before, began = _processor_time(peer.pid), time.perf_counter()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])
    taken.lasted += time.perf_counter() - began
    taken.computed += _processor_time(peer.pid) - before
    taken.answers += [each for several in answers for each in several]


def _wait_until_idle(pid: int) -> None:
    """Let it finish what belongs to its start. Raises `RuntimeError` after five minutes."""
    until = time.monotonic() + 300
    before, share = _processor_time(pid), 1.0
    while share > MOST_IDLE:
        if time.monotonic() > until:
            raise RuntimeError(f"process {pid} takes {share:.0%} of a core without being asked")
        time.sleep(IDLE_SECONDS)
        now = _processor_time(pid)
        share, before = abs(now - before) / IDLE_SECONDS, now  # a child that has ended takes its time along


def _processor_time(pid: int) -> float:
    """Of a process and its children, in seconds. Without the database's."""
    process = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


def _named(number: int) -> tuple[str, str, str]:
    """A model's name, description and tag."""
    word, kind = WORDS[number % len(WORDS)], KINDS[number // len(WORDS) % len(KINDS)]
    return f"{word}-{kind}-{number}", f"Tells {word} apart with a {kind}; trained for customer {number % 97}", kind


def _searched(chosen: random.Random) -> tuple[str, str]:
    return chosen.choice(WORDS), chosen.choice(KINDS)


@contextmanager
def _slipway() -> Iterator[Peer]:
    with _database("slipway") as url:
        command.upgrade(Config(Path(__file__).parent.parent / "alembic.ini"), "head")
        key = tokens.new_key()
        database = connect(Settings().sqlalchemy_url)
        with transactions(database)() as session:
            owner = people.register(session, username="bench", password_hash=None, permissions=people.EVERYDAY)
            keys.add(
                session,
                user_id=owner.id,
                name="bench",
                prefix=key.prefix,
                digest=key.digest,
                scopes=list(people.EVERYDAY),
                expires_at=None,
            )
        database.dispose()
        with psycopg.connect(url) as connection:
            _fill_slipway(connection, str(owner.id))
        port = _free_port()
        environment = os.environ | {"SLIPWAY_PORT": str(port), "LOG_LEVEL": "WARNING"}
        with _process([sys.executable, "-m", "api"], environment, port, "/livez") as pid:
            _wait_until_idle(pid)
            yield Peer(
                name="slipway",
                port=port,
                pid=pid,
                headers={"Authorization": f"Bearer {key.text}"},
                questions={
                    "search": lambda chosen: "/api/v1/models?" + urlencode({"search": " ".join(_searched(chosen))}),
                    "get version": lambda chosen: (
                        f"/api/v1/models/{quote(_named(chosen.randrange(MODELS))[0])}"
                        f"/versions/1.{chosen.randrange(VERSIONS)}.0"
                    ),
                },
            )


def _fill_slipway(connection: psycopg.Connection[Any], owner: str) -> None:
    """Models and published versions, each version with a source, two variants, a manifest and a run of six steps."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO models (owner_id, name, folded, description, tags, framework, created_at)"
            " VALUES (%s, %s, %s, %s, %s, 'pytorch', now() - make_interval(secs => %s))",
            [(owner, name, name, about, [tag], MODELS - n) for n in range(MODELS) for name, about, tag in [_named(n)]],
        )
        cursor.execute(
            "INSERT INTO versions (model_id, ordinal, version, format, servable, filename, size, sha256, staging_key, verdict,"
            " status, uploaded_by, published_at) SELECT id, n, '1.' || n - 1 || '.0', 'onnx', true, 'model.onnx', 1000,"
            " repeat('ab', 32), 'k', 'clean', 'approved', owner_id, now() FROM models, generate_series(1, %s) n",
            [VERSIONS],
        )
        cursor.execute(
            "INSERT INTO artifacts (version_id, name, role, key, sha256, size, media_type) SELECT versions.id, name, role,"
            " 'k', repeat('cd', 32), 1000, 'application/octet-stream' FROM versions, (VALUES ('onnx-fp32', 'canonical'),"
            " ('onnx-int8-dynamic', 'variant'), ('manifest.json', 'manifest')) made (name, role)"
        )
        cursor.execute(
            "INSERT INTO runs (id, version_id, owner_id, status, position, version, finished_at, purpose)"
            " SELECT gen_random_uuid(), id, uploaded_by, 'succeeded', 5, 20, now(), 'intake' FROM versions"
        )
        report = json.dumps(
            {
                "facts": {"quality": {"of": "onnx-fp32", "score": 90.0, "terms": []}, "rows": [], "variants": []},
                "files": [],
            }
        )
        cursor.execute(
            "INSERT INTO steps (run_id, position, stage, status, queue, attempt, final_attempt, max_attempts, time_limit, report)"
            " SELECT runs.id, place, stage, 'passed', 'cpu', 1, 3, 3, 60, %s FROM runs, unnest("
            "ARRAY['scan', 'validate', 'convert', 'optimize', 'benchmark', 'promote']) WITH ORDINALITY made (stage, place)",
            [report],
        )
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE")


@contextmanager
def _mlflow(environment: Path) -> Iterator[Peer]:
    program = environment / "bin" / "mlflow"
    with _database("mlflow") as url:
        port = _free_port()
        served = [
            str(program), "server", "--backend-store-uri", url.replace("://", "+psycopg2://", 1), "--workers", "1", "--host", "127.0.0.1",
            "--port", str(port),
        ]  # fmt: skip
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with _process(served, clean, port, "/health") as pid:  # which makes its tables
            with psycopg.connect(url) as connection:
                _fill_mlflow(connection)
            _wait_until_idle(pid)
            base = "/api/2.0/mlflow"
            yield Peer(
                name="mlflow",
                port=port,
                pid=pid,
                headers={},
                questions={
                    "search": lambda chosen: (
                        f"{base}/registered-models/search?"
                        + urlencode({"filter": "name LIKE '{}-{}%'".format(*_searched(chosen)), "max_results": 20})
                    ),
                    "get version": lambda chosen: (
                        f"{base}/model-versions/get?"
                        + urlencode(
                            {"name": _named(chosen.randrange(MODELS))[0], "version": chosen.randrange(VERSIONS) + 1}
                        )
                    ),
                },
            )


def _fill_mlflow(connection: psycopg.Connection[Any]) -> None:
    now = int(time.time() * 1000)
    with connection.cursor() as cursor:
        named = [_named(n) for n in range(MODELS)]
        cursor.executemany(
            "INSERT INTO registered_models (name, description, creation_time, last_updated_time, workspace)"
            " VALUES (%s, %s, %s, %s, 'default')",
            [(name, about, now, now) for name, about, _ in named],
        )
        cursor.executemany(
            "INSERT INTO registered_model_tags (name, key, value, workspace) VALUES (%s, 'kind', %s, 'default')",
            [(name, tag) for name, _, tag in named],
        )
        cursor.execute(
            "INSERT INTO model_versions (name, version, creation_time, last_updated_time, description, current_stage, source,"
            " status, workspace) SELECT name, n, %s, %s, '', 'None', 's3://k', 'READY', 'default'"
            " FROM registered_models, generate_series(1, %s) n",
            [now, now, VERSIONS],
        )
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE")


@contextmanager
def _database(name: str) -> Iterator[str]:
    """An empty database, named by DATABASE_URL while the block lasts."""
    before = os.environ["DATABASE_URL"]
    name = f"bench_{name}_{os.getpid()}"
    with psycopg.connect(before, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    os.environ["DATABASE_URL"] = make_url(before).set(database=name).render_as_string(hide_password=False)
    try:
        yield os.environ["DATABASE_URL"]
    finally:
        os.environ["DATABASE_URL"] = before
        with psycopg.connect(before, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _process(arguments: list[str], environment: dict[str, str], port: int, path: str) -> Iterator[int]:
    """A server that answers at `path`, until the block ends: its process id."""
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 120
            while not _answers(port, path):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{arguments[0]} did not come up")
                time.sleep(0.2)
            yield process.pid
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
