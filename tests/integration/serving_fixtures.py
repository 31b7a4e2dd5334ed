"""The inference edge as clients meet it: a process of its own, over versions that are published as the pipeline does it."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sqlalchemy import text

from registry import blobs, keys, people, reviews, store
from registry.store import Artifact
from shared import tokens
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Bucket, Storage

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, kw_only=True)
class User:
    id: UUID
    name: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@dataclass(frozen=True, kw_only=True)
class Moored:
    """A version that can be asked."""

    model_id: UUID
    version_id: UUID
    reference: str
    version: str
    sha256: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Edge:
    url: str
    process: subprocess.Popen[bytes]

    def client(self, user: User | None = None) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, headers=user.headers if user else {}, timeout=30)


def scaled(factor: float, *, width: int = 4) -> bytes:
    """y = factor · x over rows of `width` numbers."""
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    return _model(nodes, {"factor": np.float32(factor)}, [("x", width)], [("y", width)])


def failing_above(bound: float, *, width: int = 4) -> bytes:
    """x as it is, but for a first number above `bound`, which the runtime cannot work at."""
    nodes = [
        helper.make_node("Greater", ["x", "bound"], ["above"]),
        helper.make_node("Cast", ["above"], ["counted"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["counted", "axes"], ["worst"], keepdims=0),
        helper.make_node("Mul", ["worst", "far"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["zeros"]),
        helper.make_node("Unsqueeze", ["zeros", "axes"], ["column"]),
        helper.make_node("Add", ["x", "column"], ["y"]),
    ]
    constants = {
        "bound": np.float32(bound),
        "axes": np.array([1], np.int64),
        "far": np.int64(1000),
        "table": np.zeros(2, np.float32),
    }
    return _model(nodes, constants, [("x", width)], [("y", width)])


def slow(rounds: int, *, width: int = 4) -> bytes:
    """x as it is, after so many products of 64 × 64 matrices (some 20 µs each)."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m", "turn"], ["m_next"]),
            helper.make_node("Identity", ["going"], ["still_going"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m", TensorProto.FLOAT, [64, 64]),
        ],
        [
            helper.make_tensor_value_info("still_going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_next", TensorProto.FLOAT, [64, 64]),
        ],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "nothing"], ["zero"]),
        helper.make_node("Add", ["begin", "zero"], ["m0"]),
        helper.make_node("Loop", ["rounds", "yes", "m0"], ["m1"], body=body),
        helper.make_node("ReduceSum", ["m1"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "nothing"], ["none"]),
        helper.make_node("Add", ["x", "none"], ["y"]),
    ]
    constants = {
        "nothing": np.float32(0),
        "begin": np.eye(64, dtype=np.float32),
        "turn": np.eye(64, dtype=np.float32),
        "rounds": np.int64(rounds),
        "yes": np.bool_(True),
    }
    return _model(nodes, constants, [("x", width)], [("y", width)])


def _model(nodes: Any, constants: Mapping[str, Any], inputs: Any, outputs: Any) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in outputs],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return made_of(graph)


def made_of(graph: onnx.GraphProto) -> bytes:
    """The bytes of a model of this graph."""
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def tensors(model: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What `convert` would have noted of a graph's inputs and outputs."""
    graph = onnx.load_model_from_string(model).graph

    def told(info: Any) -> dict[str, Any]:
        kind = info.type.tensor_type
        sizes = [one.dim_value if one.HasField("dim_value") else None for one in kind.shape.dim]
        dtype = "str" if kind.elem_type == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        return {
            "name": info.name,
            "dtype": dtype,
            "shape": sizes,
            "example": [1 if size is None else size for size in sizes],
        }

    known = {one.name for one in graph.initializer}
    return [told(one) for one in graph.input if one.name not in known], [told(one) for one in graph.output]


@pytest.fixture(scope="module")
def shelf_bucket(storage: Storage, settings: Settings) -> Bucket:
    return storage.bucket(settings.bucket("registry"))


@pytest.fixture(scope="module")
def enrol(begin: Begin) -> Callable[..., User]:
    """Make a user with an API key."""

    def enrol(*scopes: str, calls: int | None = None, plan: str = "unbound") -> User:
        name, key = f"user-{uuid4().hex[:8]}", tokens.new_key()
        with begin() as session:
            user = people.register(session, username=name, password_hash=None, permissions=people.EVERYDAY)
            session.execute(text("UPDATE users SET plan = :plan WHERE id = :id"), {"plan": plan, "id": user.id})
            keys.add(
                session,
                user_id=user.id,
                name="test",
                prefix=key.prefix,
                digest=key.digest,
                scopes=list(scopes or people.EVERYDAY),
                expires_at=None,
                calls=calls,
            )
        return User(id=user.id, name=name, key=key.text)

    return enrol


@pytest.fixture(scope="module")
def moor(begin: Begin, shelf_bucket: Bucket) -> Callable[..., Moored]:
    """Publish a version of a user's model as a run that succeeded would have."""

    def moor(
        owner: User,
        model: str,
        content: bytes,
        *,
        classes: tuple[str, ...] = (),
        config: Mapping[str, Any] | None = None,
        live: bool = True,
        way: Mapping[str, Any] | None = None,
    ) -> Moored:
        inputs, outputs = tensors(content)
        sha256 = hashlib.sha256(content).hexdigest()
        key = blobs.key(sha256, "onnx-fp32.onnx")
        shelf_bucket.put(key, content)
        made = Artifact(
            name="onnx-fp32",
            role="canonical",
            key=key,
            sha256=sha256,
            size=len(content),
            media_type="application/octet-stream",
            meta={"inputs": inputs, "outputs": outputs, "variant": "onnx-fp32", **(way or {})},
        )
        intake = store.Intake(
            owner_id=owner.id,
            model=model,
            version=None,
            bump="minor",
            format="onnx",
            servable=True,
            filename="model.onnx",
            size=len(content),
            sha256=sha256,
            staging_key=f"{uuid4()}/model/model.onnx",
            declared={"classes": list(classes), "config": dict(config or {})},
            side_files={},
        )
        with begin() as session:
            row = store.add_version(session, intake)
            reviews.judge(session, row.id, "clean")
            store.publish(session, row.id, [made])
            if live:
                _go_live(session, row.model_id, row.id, owner.id)
        return Moored(
            model_id=row.model_id,
            version_id=row.id,
            reference=f"{owner.name}/{model}",
            version=row.version,
            sha256=sha256,
            key=key,
        )

    return moor


def _go_live(session: Any, model_id: UUID, version_id: UUID, by: UUID) -> None:
    place = {"model": model_id, "version": version_id, "by": by}
    session.execute(
        text(
            "UPDATE deployments SET status = 'superseded', ended_at = now(), ended_by = :by"
            " WHERE model_id = :model AND target = 'production' AND status = 'live'"
        ),
        place,
    )
    session.execute(
        text(
            "INSERT INTO deployments (model_id, version_id, target, deployed_by) VALUES (:model, :version, 'production', :by)"
        ),
        place,
    )


@pytest.fixture
def nothing_live(begin: Begin) -> None:
    """What earlier tests have made live is not loaded ahead by this test's own process."""
    ended = "UPDATE deployments SET status = 'ended', ended_at = now(), ended_by = deployed_by WHERE status = 'live'"
    with begin() as session:
        session.execute(text(ended))


@contextmanager
def started(environment: Mapping[str, str], **more: str) -> Iterator[Edge]:
    """A serving process, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    variables = {**environment, "SERVING_PORT": str(port), "LOG_LEVEL": "INFO", "SERVING_REFRESH": "0.2", **more}
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-m", "serving"], cwd=ROOT, env=variables) as process:
        try:
            until = time.monotonic() + 60
            while not _answers(url):
                assert process.poll() is None, "the serving process has ended"
                assert time.monotonic() < until, "the serving process did not start in time"
                time.sleep(0.05)
            yield Edge(url=url, process=process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/v2/health/ready", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


@pytest.fixture(scope="module")
def edge(environment: dict[str, str], begin: Begin, storage: Storage) -> Iterator[Edge]:
    with started(environment, PLANS='{"unbound": {}, "small": {"requests_per_minute": 3}}') as running:
        yield running


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """The runtime children of a serving process: what its zygote has forked, the youngest last."""
    found: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            found[int(status.parent.name)] = int(fields[1])
        except OSError:
            continue
    below = {process.pid}
    depth = {process.pid: 0}
    for _ in range(6):
        for pid, parent in found.items():
            if parent in below and pid not in below:
                below.add(pid)
                depth[pid] = depth[parent] + 1
    return sorted(pid for pid in below if depth[pid] == 3)  # guardian, zygote, child


def kill_children(process: subprocess.Popen[bytes]) -> int:
    killed = children(process)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    return len(killed)
