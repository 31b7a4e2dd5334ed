"""The inference edge beside other model servers and a bare loop of ONNX Runtime: requests a second and how long one takes.

Two models: a linear one of 4 numbers, and a ResNet-18 of 3 × 224 × 224 numbers with drawn weights, 40 channels wide at first,
some 20 ms on one core. Every server has as many workers as there are cores (MLflow one), each with one thread of ONNX Runtime; all are asked in
turns by the same client over connections that stay open. Ours checks a key, counts, and signs a receipt for every answer, and the
model runs in a sandbox. `SERVING_PEERS` names the environments of the others (`peers.servers`), `SERVING_ROUNDS` how often
each has its turn. Run it inside the stack.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import onnx
import onnxruntime
import orjson
import psutil
from alembic import command
from alembic.config import Config
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers import servers
from benchmarks.peers.servers import Question
from benchmarks.registry import _database, _free_port
from pipeline import device
from registry import blobs, keys, people, reviews, store
from registry.store import Artifact
from shared import tokens
from shared.db import connect, transactions
from shared.settings import Settings
from shared.storage import Storage

CORES = device.cores()
CLIENTS = (1, 4)
ROUNDS, SECONDS = int(os.environ.get("SERVING_ROUNDS", "5")), 1.5
OURS, LOOP = "slipway", "onnxruntime alone"
_WIDTH, _SIDE = 40, 224
_SEED = 5
_PATIENCE = 120.0
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A graph of `x` to as many values `y` as it gives, and one row for it with its batch axis."""

    name: str
    content: bytes
    row: np.ndarray[Any, Any]
    gives: int

    @property
    def listed(self) -> list[Any]:
        """The row as people write it, with four digits that are the same float32."""
        return list(self.row.astype(np.float64).round(4).tolist())


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Somebody who can be asked: `ask(clients, ends)` gives the seconds of each answer until the clock shows `ends`."""

    name: str
    form: str
    pid: int
    ask: Callable[[int, float], list[float]]


@dataclass
class Taken:
    """Of all rounds: the seconds of each answer, requests a second by round, and seconds of processor time."""

    answers: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    computed: float = 0.0


def main() -> dict[str, Any]:
    peers = servers.found()
    figures: dict[str, Any] = {name: servers.version(name, place) for name, place in peers.items()}
    figures |= {name: "not installed; see SERVING_PEERS" for name in servers.NAMES if name not in peers}
    figures |= {"onnxruntime": onnxruntime.__version__, "cores": CORES}
    with tempfile.TemporaryDirectory() as folder:
        for model in (_linear(), _residual()):
            figures |= _compared(model, peers, Path(folder, model.name))
    return figures


def _compared(model: Model, peers: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.content)
    missing = {}
    with ExitStack() as running:
        turns = [*running.enter_context(_slipway(model))]
        for name, place in peers.items():
            try:
                turns += running.enter_context(_peer(name, place, model, folder))
            except (RuntimeError, subprocess.CalledProcessError, psutil.NoSuchProcess) as error:
                missing[f"{model.name}, {name}"] = f"did not start: {error}"
        turns.append(_loop(model))
        taken: dict[tuple[str, str, int], Taken] = {}
        for number, clients, turn in itertools.product(range(ROUNDS + 1), CLIENTS, turns):
            kept = taken.setdefault((turn.name, turn.form, clients), Taken()) if number else Taken()
            before, began = _processor_time(turn.pid), time.perf_counter()
            answers = turn.ask(clients, began + SECONDS)
            kept.rates.append(len(answers) / (time.perf_counter() - began))
            kept.computed += _processor_time(turn.pid) - before
            kept.answers += answers
        figures = missing | _figures(model.name, taken)
    for figure, value in figures.items():
        print(f"    {figure}: {value}", file=sys.stderr)
    return figures


def _figures(model: str, taken: Mapping[tuple[str, str, int], Taken]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for (name, form, clients), found in taken.items():
        cuts = statistics.quantiles(found.answers, n=100)
        told = ", ".join(f"{1e3 * cuts[percent - 1]:.2f}" for percent in (50, 99))
        work = 1e3 * found.computed / len(found.answers)
        figures[f"{model}, {clients} at once, {form}, {name}"] = (
            f"{statistics.median(found.rates):.0f} req/s, p50/p99 ms {told}, CPU ms each {work:.2f}"
        )
    for name, form, clients in taken:
        if name == OURS:
            continue
        for mine in ("binary", "JSON") if name == LOOP else (form,):
            pairs = zip(taken[OURS, mine, clients].rates, taken[name, form, clients].rates, strict=True)
            ratio = statistics.median(ours / theirs for ours, theirs in pairs)
            figures[f"{model}, {clients} at once, {mine}, req/s of ours over {name}'s"] = round(ratio, 2)
    return figures


def _over_http(name: str, pid: int, port: int, questions: Mapping[str, Question]) -> list[Turn]:
    """One turn for each form, once the server answers in it."""
    turns = []
    for form, question in questions.items():
        message = _message(question)
        _await(name, pid, port, message)
        turns.append(Turn(name=name, form=form, pid=pid, ask=partial(_ask, port, message)))
    return turns


def _message(question: Question) -> bytes:
    headers = {"Host": "127.0.0.1", **question.headers, "Content-Length": str(len(question.body))}
    lines = [f"POST {question.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + question.body


def _await(name: str, pid: int, port: int, message: bytes) -> None:
    until, why = time.monotonic() + _PATIENCE, ""
    while time.monotonic() < until and psutil.pid_exists(pid):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                _exchange(connection, message)
        except (OSError, RuntimeError) as error:
            why = str(error)
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"{name} does not answer: {why}")


def _ask(port: int, message: bytes, clients: int, ends: float) -> list[float]:
    answers: list[list[float]] = [[] for _ in range(clients)]
    failures: list[Exception] = []

    def client(mine: list[float]) -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while (began := time.perf_counter()) < ends and not failures:
                    _exchange(connection, message)
                    mine.append(time.perf_counter() - began)
        except (OSError, RuntimeError) as error:
            failures.append(error)

    _together(client, answers)
    if failures:
        raise failures[0]
    return [each for several in answers for each in several]


def _exchange(connection: socket.socket, message: bytes) -> None:
    connection.sendall(message)
    received = connection.recv(65536)
    while (split := received.find(b"\r\n\r\n")) < 0:
        received += _more(connection)
    length = _LENGTH.search(received, 0, split)
    if not received.startswith(b"HTTP/1.1 200") or length is None:
        raise RuntimeError(f"answered with {received[:300]!r}")
    missing = split + 4 + int(length[1]) - len(received)
    while missing > 0:
        missing -= len(_more(connection))


def _more(connection: socket.socket) -> bytes:
    if not (piece := connection.recv(65536)):
        raise RuntimeError("the server hung up")
    return piece


def _together(work: Callable[[list[float]], None], each: list[list[float]]) -> None:
    threads = [threading.Thread(target=work, args=(one,)) for one in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _loop(model: Model) -> Turn:
    """The limit: the same numbers again and again, in as many threads as there are clients and cores for them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.content, options, providers=["CPUExecutionProvider"])

    def ask(clients: int, ends: float) -> list[float]:
        answers: list[list[float]] = [[] for _ in range(min(clients, CORES))]

        def run(mine: list[float]) -> None:
            while (began := time.perf_counter()) < ends:
                session.run(["y"], {"x": model.row})
                mine.append(time.perf_counter() - began)

        _together(run, answers)
        return [each for several in answers for each in several]

    return Turn(name=LOOP, form="no HTTP", pid=os.getpid(), ask=ask)


@contextmanager
def _slipway(model: Model) -> Iterator[list[Turn]]:
    with _database("serving"):
        command.upgrade(Config(Path(__file__).parent.parent / "alembic.ini"), "head")
        key, reference = _published(model)
        port = _free_port()
        environment = os.environ | {
            "SERVING_PORT": str(port), "SERVING_THREADS": str(CORES), "LOG_LEVEL": "WARNING", "PLANS": '{"free": {}}',
        }  # fmt: skip
        shape = list(model.row.shape)
        tensor = {"name": "x", "datatype": "FP32", "shape": shape}
        listed = orjson.dumps({"inputs": [tensor | {"data": servers.flat(model.listed)}]})
        size = {"parameters": {"binary_data_size": model.row.nbytes}}
        head = orjson.dumps({"inputs": [tensor | size], "parameters": {"binary_data_output": True}})
        known = {"Authorization": f"Bearer {key}"}
        binary = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        path = f"/v2/models/{reference}/infer"
        questions = {
            "JSON": Question(path=path, body=listed, headers=known | {"Content-Type": "application/json"}),
            "binary": Question(path=path, body=head + model.row.tobytes(), headers=known | binary),
        }
        with _process([sys.executable, "-m", "serving"], environment) as pid:
            yield _over_http(OURS, pid, port, questions)


def _published(model: Model) -> tuple[str, str]:
    """Publish the model as a run that succeeded would have: an API key that may ask it, and its name."""
    settings = Settings()
    storage = Storage(
        endpoint_url=settings.s3_endpoint_url,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        region=settings.s3_region,
        encryption=settings.s3_encryption,
        kms_key=settings.s3_kms_key,
    )
    bucket = storage.bucket(settings.bucket("registry"))
    bucket.ensure()
    sha256, size = hashlib.sha256(model.content).hexdigest(), len(model.content)
    bucket.put(stored := blobs.key(sha256, "onnx-fp32.onnx"), model.content)
    tensors = [
        {"name": name, "dtype": "float32", "shape": [None, *shape], "example": [1, *shape]}
        for name, shape in (("x", model.row.shape[1:]), ("y", (model.gives,)))
    ]
    made = Artifact(
        name="onnx-fp32", role="canonical", key=stored, sha256=sha256, size=size, media_type="application/octet-stream",
        meta={"inputs": tensors[:1], "outputs": tensors[1:], "variant": "onnx-fp32"},
    )  # fmt: skip
    key, database = tokens.new_key(), connect(settings.sqlalchemy_url)
    with transactions(database)() as session:
        owner = people.register(session, username="bench", password_hash=None, permissions=people.EVERYDAY)
        keys.add(
            session, user_id=owner.id, name="bench", prefix=key.prefix, digest=key.digest, scopes=list(people.EVERYDAY),
            expires_at=None,
        )  # fmt: skip
        intake = store.Intake(
            owner_id=owner.id, model=model.name, version=None, bump="minor", format="onnx", servable=True,
            filename="model.onnx", size=size, sha256=sha256, staging_key=f"{uuid4()}/model/model.onnx", declared={},
            side_files={},
        )  # fmt: skip
        row = store.add_version(session, intake)
        reviews.judge(session, row.id, "clean")
        store.publish(session, row.id, [made])
    database.dispose()
    return key.text, f"bench/{model.name}"


@contextmanager
def _peer(name: str, place: Path, model: Model, folder: Path) -> Iterator[list[Turn]]:
    port = _free_port()
    served = servers.served(
        name, place, folder / "model.onnx", row=model.row.shape[1:], rows=model.listed, raw=model.row.tobytes(),
        port=port, workers=CORES, folder=folder / name,
    )  # fmt: skip
    with _process(served.arguments, served.environment, served.folder) as pid:
        yield _over_http(name, pid, port, served.questions)


@contextmanager
def _process(arguments: list[str], environment: Mapping[str, str], folder: Path | None = None) -> Iterator[int]:
    """A server in a session of its own, whose processes all end with the block: the id of the first."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(arguments, env=environment, cwd=folder, start_new_session=True, **quiet) as process:
        try:
            yield process.pid
        finally:
            left = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            for child in psutil.wait_procs([psutil.Process(process.pid), *left], timeout=20)[1]:
                child.kill()


def _processor_time(pid: int) -> float:
    """Of a process and its children, in seconds."""
    process = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


def _linear() -> Model:
    draw = np.random.default_rng(_SEED)
    weights = {"w": draw.normal(size=(4, 3)).astype(np.float32), "b": np.zeros(3, np.float32)}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
    row = np.array([[0.1, -0.2, 0.3, 0.4]], np.float32)
    return Model(name="tiny", content=_graph(nodes, weights, (4,), 3), row=row, gives=3)


def _residual() -> Model:
    """ResNet-18 as an exporter leaves it: the batch normalisations are in the convolutions."""
    draw = np.random.default_rng(_SEED)
    nodes: list[Any] = []
    weights: dict[str, np.ndarray[Any, Any]] = {}

    def convolution(x: str, narrow: int, wide: int, kernel: int, stride: int) -> str:
        y = f"c{len(nodes)}"
        scale = (2 / (narrow * kernel * kernel)) ** 0.5
        weights[f"{y}.w"] = draw.normal(0, scale, (wide, narrow, kernel, kernel)).astype(np.float32)
        weights[f"{y}.b"] = np.zeros(wide, np.float32)
        shape: dict[str, Any] = {"strides": [stride] * 2, "pads": [kernel // 2] * 4}
        nodes.append(helper.make_node("Conv", [x, f"{y}.w", f"{y}.b"], [y], **shape))
        return y

    def made(kind: str, *inputs: str, **attributes: Any) -> str:
        y = f"{kind.lower()}{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [y], **attributes))
        return y

    x = made("Relu", convolution("x", 3, _WIDTH, 7, 2))
    x, narrow = made("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), _WIDTH
    for stage, block in itertools.product(range(4), range(2)):
        wide, stride = _WIDTH << stage, 2 if stage and not block else 1
        y = made("Relu", convolution(x, narrow, wide, 3, stride))
        y = convolution(y, wide, wide, 3, 1)
        short = x if narrow == wide else convolution(x, narrow, wide, 1, stride)
        x, narrow = made("Relu", made("Add", y, short)), wide
    x = made("Flatten", made("GlobalAveragePool", x))
    weights |= {"w": draw.normal(0, 0.05, (narrow, 1000)).astype(np.float32), "b": np.zeros(1000, np.float32)}
    nodes.append(helper.make_node("Gemm", [x, "w", "b"], ["y"]))
    row = draw.normal(size=(1, 3, _SIDE, _SIDE)).round(4).astype(np.float32)
    return Model(name="mid-size", content=_graph(nodes, weights, (3, _SIDE, _SIDE), 1000), row=row, gives=1000)


def _graph(nodes: list[Any], weights: Mapping[str, Any], takes: tuple[int, ...], gives: int) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *takes])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", gives])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())
