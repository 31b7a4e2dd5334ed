"""Other people's model servers over one ONNX file, each set up as its own documentation says.

They live in environments of their own, which `SERVING_PEERS` names (separated as PATH is, for their pins clash). Each has as many
workers as it is told, MLflow one, and ONNX Runtime with one thread in each worker. All take `x` as a list of rows in JSON; BentoML and
LitServe also take it as bytes, in a form. MLflow and MLServer have no such way over HTTP.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import orjson

NAMES = ("mlflow", "bentoml", "litserve", "mlserver")

_BOUNDARY = "numbers"

_SESSION = """
import numpy as np, onnxruntime

def opened(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
"""

_BENTO = """
import os
from pathlib import Path
from typing import Annotated
import bentoml
from session import np, opened

WIDTHS = [-1, *map(int, os.environ["ROW"].split(","))]

@bentoml.service(workers=int(os.environ["WORKERS"]))
class Bench:
    def __init__(self):
        self.session = opened(os.environ["MODEL"])

    @bentoml.api
    def predict(self, x: Annotated[np.ndarray, bentoml.validators.DType("float32")]) -> np.ndarray:
        return self.session.run(None, {"x": x})[0]

    @bentoml.api
    def binary(self, x: Path) -> np.ndarray:
        rows = np.frombuffer(x.read_bytes(), np.float32).reshape(WIDTHS)
        return self.session.run(None, {"x": rows})[0]
"""

_LIT = """
import os
import litserve
from session import np, opened

WIDTHS = [-1, *map(int, os.environ["ROW"].split(","))]

class Api(litserve.LitAPI):
    def setup(self, device):
        self.session = opened(os.environ["MODEL"])

    def decode_request(self, request):
        x = request["x"]
        if isinstance(x, list):
            return np.asarray(x, np.float32)
        return np.frombuffer(x.file.read(), np.float32).reshape(WIDTHS)

    def predict(self, x):
        return self.session.run(None, {"x": x})[0]

    def encode_response(self, y):
        return {"y": y.tolist()}

if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", devices=1, workers_per_device=int(os.environ["WORKERS"]))
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), num_api_servers=1, generate_client_file=False, log_level="warning")
"""

_MLSERVER = """
import os
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from session import opened

class Bench(MLModel):
    async def load(self):
        self.session = opened(os.environ["MODEL"])
        return True

    async def predict(self, payload):
        x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        y = self.session.run(None, {"x": x})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
"""

_MLFLOW = """
import os, sys
import mlflow.onnx, numpy as np, onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

row = tuple(map(int, os.environ["ROW"].split(",")))
takes = Schema([TensorSpec(np.dtype("float32"), (-1, *row), "x")])
mlflow.onnx.save_model(
    onnx.load(os.environ["MODEL"]), "saved", signature=ModelSignature(inputs=takes),
    onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
)
"""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is posted where."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass(frozen=True, kw_only=True)
class Served:
    """How a peer is started, in which folder and environment, and what it is asked by form."""

    name: str
    arguments: list[str]
    folder: Path
    environment: dict[str, str]
    questions: dict[str, Question]


def found() -> dict[str, Path]:
    """By name of a peer, the environment that has it."""
    places = [Path(one) for one in os.environ.get("SERVING_PEERS", "").split(os.pathsep) if one]
    there = {name: next((one for one in places if (one / "bin" / name).exists()), None) for name in NAMES}
    return {name: place for name, place in there.items() if place is not None}


def version(name: str, place: Path) -> str:
    """Of a peer, and of the ONNX Runtime beside it."""
    libraries = [str(one) for one in place.glob("lib/python*/site-packages")]
    there: Iterator[Distribution] = iter(distributions(name=name, path=libraries))
    runtime = next(iter(distributions(name="onnxruntime", path=libraries)))
    return f"{next(there).version} with onnxruntime {runtime.version}"


def served(name: str, place: Path, model: Path, *, row: tuple[int, ...], rows: list[Any], raw: bytes,
           port: int, workers: int, folder: Path) -> Served:  # fmt: skip
    """Writes what the peer needs into `folder`. `rows` and `raw` are the same numbers, as lists and as float32."""
    folder.mkdir()
    (folder / "session.py").write_text(_SESSION)
    widths = ",".join(map(str, row))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MLFLOW"))}
    environment |= {
        "MODEL": str(model), "ROW": widths, "WORKERS": str(workers), "PORT": str(port), "PYTHONPATH": str(folder),
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(place),
        "BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true",
    }  # fmt: skip
    plain = orjson.dumps({"x": rows})
    form = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="x"; filename="x"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode() + raw + f"\r\n--{_BOUNDARY}--\r\n".encode()  # fmt: skip
    as_form = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    program = str(place / "bin" / name)
    match name:
        case "bentoml":
            (folder / "bench.py").write_text(_BENTO)
            arguments = [program, "serve", "bench:Bench", "--host", "127.0.0.1", "--port", str(port)]
            questions = {
                "JSON": Question(path="/predict", body=plain),
                "binary": Question(path="/binary", body=form, headers=as_form),
            }
        case "litserve":
            (folder / "bench.py").write_text(_LIT)
            arguments = [str(place / "bin" / "python"), "bench.py"]
            questions = {
                "JSON": Question(path="/predict", body=plain),
                "binary": Question(path="/predict", body=form, headers=as_form),
            }
        case "mlserver":
            (folder / "bench.py").write_text(_MLSERVER)
            (folder / "model-settings.json").write_text(json.dumps({"name": "bench", "implementation": "bench.Bench"}))
            ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
            settings = {"parallel_workers": workers, "host": "127.0.0.1", **ports}
            (folder / "settings.json").write_text(json.dumps(settings))
            arguments = [program, "start", str(folder)]
            tensor = {"name": "x", "shape": [1, *row], "datatype": "FP32", "data": flat(rows)}
            asked = orjson.dumps({"inputs": [tensor]})
            questions = {"JSON": Question(path="/v2/models/bench/infer", body=asked)}
        case "mlflow":
            (folder / "save.py").write_text(_MLFLOW)
            python = str(place / "bin" / "python")
            subprocess.run([python, "save.py"], cwd=folder, env=environment, check=True, capture_output=True)
            # One worker, its default: with more, uvicorn's shared socket keeps Nagle's algorithm on, and answers wait 40 ms.
            address = ["-h", "127.0.0.1", "-p", str(port)]
            arguments = [program, "models", "serve", "-m", "saved", "--env-manager", "local", *address]
            questions = {"JSON": Question(path="/invocations", body=orjson.dumps({"inputs": {"x": rows}}))}
        case _:
            raise LookupError(f"there is no set-up for {name}")
    return Served(name=name, arguments=arguments, folder=folder, environment=environment, questions=questions)


def flat(rows: list[Any]) -> list[Any]:
    """The values of nested lists, row by row."""
    while isinstance(rows[0], list):
        rows = [value for row in rows for value in row]
    return rows
