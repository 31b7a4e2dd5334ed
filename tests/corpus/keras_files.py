"""Keras models whose configuration names code: `.keras` archives, `.h5` attributes, and what HDF5 can reach."""

from __future__ import annotations

import base64
import json
import marshal
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from tests.corpus import CANARY, COMMAND, SOURCE, Sample
from tests.corpus.assembler import PAYLOAD
from tests.corpus.containers import zipped
from tests.corpus.hdf5 import Dataset, Group, hdf5

_WEIGHTS = Dataset(data=struct.pack("<4f", 1, 2, 3, 4), shape=(2, 2))


def _code() -> str:
    return base64.b64encode(marshal.dumps(compile(SOURCE, "x", "exec"))).decode()


def layer(
    class_name: str, config: dict[str, Any], *, module: str = "keras.layers", registered: str | None = None
) -> dict[str, Any]:
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": registered,
        "build_config": {"input_shape": [None, 2]},
    }


def sequential(*layers: dict[str, Any], **more: Any) -> dict[str, Any]:
    inputs = layer("InputLayer", {"batch_shape": [None, 2], "dtype": "float32", "sparse": False, "name": "input"})
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "sequential", "trainable": True, "layers": [inputs, *layers]},
        "registered_name": None,
        **more,
    }


def weights() -> bytes:
    return hdf5(
        Group(
            members={
                "layers": Group(members={"dense": Group(members={"vars": Group(members={"0": _WEIGHTS})})}),
                "vars": Group(),
            }
        )
    )


def keras(config: Any, **members: bytes) -> bytes:
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    metadata = {"keras_version": "3.15.1", "date_saved": "2026-11-01@10:00:00"}
    return zipped(
        {"metadata.json": json.dumps(metadata).encode(), "config.json": text, "model.weights.h5": weights(), **members}
    )


def h5(config: Any, **attributes: bytes) -> bytes:
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    said = {"backend": b"tensorflow", "keras_version": b"2.15.0", "model_config": text, **attributes}
    inner = Group(
        members={"dense": Group(members={"kernel": _WEIGHTS}, attributes={"weight_names": b"kernel:0"})},
        attributes={"layer_names": b"dense"},
    )
    return hdf5(Group(members={"model_weights": inner}, attributes=said))


_DENSE = layer("Dense", {"name": "dense", "units": 2, "activation": "linear", "use_bias": False})


def harmless() -> dict[str, Any]:
    return sequential(_DENSE)


def _function(module: str, name: str, config: Any = None) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": config or name, "registered_name": name}


def _configs() -> Iterator[tuple[str, dict[str, Any], str]]:
    lambda_code = {"class_name": "__lambda__", "config": {"code": _code(), "defaults": None, "closure": None}}
    yield (
        "Lambda with code",
        sequential(layer("Lambda", {"name": "l", "function": lambda_code})),
        "CVE-2024-3660: marshalled code",
    )
    yield (
        "Lambda with old code",
        sequential(
            layer(
                "Lambda",
                {"name": "l", "function": [_code(), None, None], "function_type": "lambda", "module": "__main__"},
            )
        ),
        "CVE-2024-3660: the form of Keras 2",
    )
    yield (
        "Lambda by function name",
        sequential(layer("Lambda", {"name": "l", "function": "system", "function_type": "function", "module": "os"})),
        "a function of any module",
    )
    yield (
        "Lambda as a function",
        sequential(layer("Lambda", {"name": "l", "function": _function("os", "system"), "arguments": {}})),
        "CVE-2025-1550: any module",
    )
    yield "Lambda without code", sequential(layer("Lambda", {"name": "l"})), "a Lambda is code, wherever it comes from"
    yield (
        "module outside Keras",
        sequential(layer("Popen", {"args": ["touch", str(CANARY)]}, module="subprocess")),
        "CVE-2025-1550: config.json names any class",
    )
    yield (
        "function outside Keras",
        sequential(layer("Dense", {"units": 2, "activation": _function("os", "system")})),
        "CVE-2025-1550: config.json names any function",
    )
    yield (
        "function that evaluates",
        sequential(layer("Dense", {"units": 2, "activation": _function("builtins", "eval")})),
        "CVE-2025-1550",
    )
    yield (
        "Keras that downloads",
        sequential(layer("Dense", {"units": 2, "activation": _function("keras.utils", "get_file")})),
        "CVE-2025-8747: gadgets inside Keras: files from anywhere",
    )
    yield (
        "Keras that loads",
        sequential(layer("Dense", {"units": 2, "kernel_initializer": _function("keras.saving", "load_model")})),
        "CVE-2025-8747: gadgets inside Keras",
    )
    yield (
        "Keras that lifts its own guard",
        sequential(
            {
                "module": "keras.config",
                "class_name": "function",
                "config": "enable_unsafe_deserialization",
                "registered_name": "enable_unsafe_deserialization",
            },
            layer("Lambda", {"name": "l", "function": lambda_code}),
        ),
        "CVE-2025-9906: config.json switches safe_mode off",
    )
    yield (
        "Keras that unpickles",
        sequential(layer("Dense", {"units": 2, "activation": _function("keras.src.utils.python_utils", "func_load")})),
        "CVE-2025-8747: marshal by its function",
    )
    yield (
        "Keras internals",
        sequential(
            layer(
                "Dense",
                {"units": 2, "activation": _function("keras.src.saving.serialization_lib", "deserialize_keras_object")},
            )
        ),
        "gadgets inside Keras",
    )
    yield (
        "numpy inside Keras",
        sequential(layer("Dense", {"units": 2, "activation": _function("keras.src.backend.numpy.core", "np.load")})),
        "names with dots",
    )
    yield (
        "TorchModuleWrapper",
        sequential(
            layer(
                "TorchModuleWrapper",
                {"module": {"class_name": "__bytes__", "config": {"value": base64.b64encode(PAYLOAD).decode()}}},
            )
        ),
        "CVE-2025-49655: torch.load of bytes in the configuration",
    )
    yield (
        "TFSMLayer",
        sequential(layer("TFSMLayer", {"filepath": "/tmp/slipway-corpus-model", "call_endpoint": "serve"})),
        "CVE-2026: loads a SavedModel from any path",
    )
    yield (
        "StringLookup of a file",
        sequential(layer("StringLookup", {"name": "s", "vocabulary": "/etc/passwd", "num_oov_indices": 1})),
        "CVE-2025-12058: reads a file into the vocabulary",
    )
    yield (
        "IntegerLookup of an address",
        sequential(layer("IntegerLookup", {"name": "s", "vocabulary": "http://127.0.0.1:1/x"})),
        "CVE-2025-12058: SSRF",
    )
    yield (
        "TextVectorization of a file",
        sequential(layer("TextVectorization", {"name": "s", "vocabulary": "/etc/passwd"})),
        "CVE-2025-12058",
    )
    yield (
        "TextVectorization by a function",
        sequential(layer("TextVectorization", {"name": "s", "standardize": _function("os", "system")})),
        "calls what it is given",
    )
    yield (
        "registered class",
        sequential(layer("Net", {"name": "n"}, module="my_models", registered="Package>Net")),
        "code that the loader must import",
    )
    yield (
        "class without a module",
        sequential(layer("Evil", {"name": "n"}, module="")),
        "a name that somebody registered",
    )
    yield (
        "module with a dot too many",
        sequential(layer("Dense", {"units": 2}, module="keras.layers..os")),
        "names of no module",
    )
    yield (
        "module that begins like Keras",
        sequential(layer("Dense", {"units": 2}, module="keras_evil.layers")),
        "keras_evil is not keras",
    )
    yield (
        "module that begins like Keras, dotted",
        sequential(layer("Dense", {"units": 2}, module="keras.evil")),
        "no module of Keras",
    )
    yield (
        "class that is not of Keras",
        sequential(layer("system", {"command": COMMAND}, module="keras.layers")),
        "no class of Keras",
    )
    yield (
        "compile with a function",
        sequential(_DENSE, compile_config={"optimizer": "sgd", "loss": _function("os", "system"), "metrics": []}),
        "the loss is a function",
    )
    yield (
        "compile with a Lambda",
        sequential(_DENSE, compile_config={"optimizer": "sgd", "loss": lambda_code}),
        "the loss is code",
    )
    yield (
        "build_config with a class",
        sequential({**_DENSE, "build_config": {"input_shape": layer("Popen", {"args": "id"}, module="subprocess")}}),
        "anything with a class_name is built",
    )
    yield (
        "nested in a wrapper",
        sequential(layer("TimeDistributed", {"layer": layer("Lambda", {"name": "l", "function": lambda_code})})),
        "a layer in a layer",
    )
    yield (
        "nested in a list in a dictionary",
        sequential(
            layer("Dense", {"units": 2, "extra": {"a": [[{"b": layer("Popen", {"args": "id"}, module="subprocess")}]]}})
        ),
        "anywhere",
    )
    yield (
        "function in an initializer",
        sequential(
            layer(
                "Dense",
                {
                    "units": 2,
                    "kernel_initializer": {
                        "module": "builtins",
                        "class_name": "eval",
                        "config": {"source": SOURCE},
                        "registered_name": None,
                    },
                },
            )
        ),
        "CVE-2025-1550",
    )
    yield (
        "Functional with a call argument",
        {
            "module": "keras",
            "class_name": "Functional",
            "config": {
                "layers": [
                    {**layer("InputLayer", {"batch_shape": [None, 2], "name": "i"}), "name": "i", "inbound_nodes": []},
                    {
                        **layer("Dense", {"units": 2, "name": "d"}),
                        "name": "d",
                        "inbound_nodes": [
                            {"args": [layer("Popen", {"args": "id"}, module="subprocess")], "kwargs": {}}
                        ],
                    },
                ],
                "input_layers": [["i", 0, 0]],
                "output_layers": [["d", 0, 0]],
            },
        },
        "arguments of calls are deserialised too",
    )


def samples() -> Iterator[Sample]:
    for name, config, why in _configs():
        yield Sample(
            name=f"keras: {name}",
            attack="keras",
            why=why,
            make=lambda config=config: keras(config),
            filename="model.keras",
        )  # type: ignore[misc]
        yield Sample(
            name=f"keras h5: {name}",
            attack="keras",
            why=f"{why}; CVE-2025-9905: h5 knows no safe_mode",
            make=lambda config=config: h5(config),
            filename="model.h5",
        )  # type: ignore[misc]
    for name, make, filename, why in _files():
        yield Sample(name=f"keras: {name}", attack="keras", why=why, make=make, filename=filename)


_Rows = Iterator[tuple[str, Callable[[], bytes], str, str]]


def _files() -> _Rows:
    def with_weights(content: bytes) -> bytes:
        return zipped(
            {
                "metadata.json": b'{"keras_version": "3.15.1"}',
                "config.json": json.dumps(harmless()).encode(),
                "model.weights.h5": content,
            }
        )

    yield "weights that are a pickle", lambda: with_weights(PAYLOAD), "model.keras", "a name is not a type"
    yield (
        "weights as npz with objects",
        lambda: zipped(
            {
                "metadata.json": b"{}",
                "config.json": json.dumps(harmless()).encode(),
                "model.weights.npz": zipped(
                    {
                        "x.npy": b"\x93NUMPY\x01\x00\x46\x00"
                        + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(69)
                        + b"\n"
                        + PAYLOAD
                    }
                ),
            }
        ),
        "model.keras",
        "the other weight format",
    )
    yield (
        "pickle in the assets",
        lambda: keras(harmless(), **{"assets/x.bin": PAYLOAD}),
        "model.keras",
        "assets are files too",
    )
    yield (
        "path out of the archive",
        lambda: keras(harmless(), **{"assets/../../../x": b"x"}),
        "model.keras",
        "CVE-2025-12060: extraction climbs out",
    )
    yield (
        "configuration twice",
        lambda: zipped(
            [
                ("metadata.json", b"{}"),
                ("config.json", json.dumps(harmless()).encode()),
                ("config.json", json.dumps(sequential(layer("Popen", {}, module="subprocess"))).encode()),
                ("model.weights.h5", weights()),
            ]
        ),
        "model.keras",
        "which is read?",
    )
    yield (
        "key twice",
        lambda: keras(
            json.dumps(harmless())
            .encode()
            .replace(b'"class_name": "Sequential"', b'"class_name": "Sequential", "class_name": "Lambda"')
        ),
        "model.keras",
        "which is read?",
    )
    yield "configuration that is no JSON", lambda: keras(b"{'module': 'keras'}"), "model.keras", "cannot be judged"
    yield "configuration that is a list", lambda: keras([1, 2]), "model.keras", "cannot be judged"
    yield "configuration nested deeply", lambda: keras(b'{"a":' * 50_000), "model.keras", "a parser that recurses"
    yield (
        "configuration with NaN",
        lambda: keras(b'{"module": "keras", "class_name": "Sequential", "config": {"x": NaN, "layers": []}}'),
        "model.keras",
        "no JSON",
    )
    yield (
        "script beside the model",
        lambda: keras(harmless(), **{"layers.py": b"import os\n"}),
        "model.keras",
        "nothing Keras writes",
    )
    yield (
        "bomb in the weights",
        lambda: zipped(
            {
                "config.json": json.dumps(harmless()).encode(),
                "metadata.json": b"{}",
                "model.weights.h5": weights() + bytes(64 << 20),
            },
            zipfile.ZIP_DEFLATED,
        ),
        "model.keras",
        "keras #23010: a decompression bomb",
    )
    for where, wrap in (
        (
            "h5",
            lambda one: hdf5(
                Group(
                    members={"model_weights": one},
                    attributes={"model_config": json.dumps(harmless()).encode(), "keras_version": b"2.15.0"},
                )
            ),
        ),
        ("keras", lambda one: with_weights(hdf5(Group(members={"layers": one})))),
    ):
        filename = f"model.{where}"
        yield (
            f"external link, {where}",
            lambda wrap=wrap: wrap(Group(members={"dense": ("/etc/passwd", "/x")})),
            filename,
            "GHSA-27f4-p4xq-cxg8: a link into another file",
        )
        yield (
            f"soft link, {where}",
            lambda wrap=wrap: wrap(Group(members={"dense": "/elsewhere/kernel"})),
            filename,
            "GHSA-27f4-p4xq-cxg8: soft links",
        )
        yield (
            f"external storage, {where}",
            lambda wrap=wrap: wrap(Group(members={"kernel": Dataset(data=b"", shape=(4,), outside="/etc/passwd")})),
            filename,
            "CVE-2026-1669: numbers read from any file",
        )
        yield (
            f"shape bomb, {where}",
            lambda wrap=wrap: wrap(Group(members={"kernel": Dataset(data=b"", shape=(1 << 30, 1 << 10))})),
            filename,
            "keras #22975: a shape larger than its data",
        )
    yield "h5 cut", lambda: h5(harmless())[:-100], "model.h5", "half a file"
    yield "h5 with a payload behind", lambda: h5(harmless()) + PAYLOAD, "model.h5", "a polyglot's tail"
    yield (
        "h5 behind a user block",
        lambda: PAYLOAD.ljust(512, b"\x00") + h5(harmless()),
        "model.h5",
        "HDF5 may begin at 512: a pickle in front",
    )
    yield (
        "h5 with training code",
        lambda: h5(
            harmless(),
            training_config=json.dumps({"loss": {"class_name": "__lambda__", "config": {"code": _code()}}}).encode(),
        ),
        "model.h5",
        "the training configuration is deserialised too",
    )
    yield (
        "h5 with a group in itself",
        lambda: h5(harmless()).replace(b"SNOD\x01\x00\x01\x00", b"SNOD\x01\x00\xff\xff", 1),
        "model.h5",
        "a table longer than the file",
    )
    yield "h5 signature alone", lambda: b"\x89HDF\r\n\x1a\n" + b"\xff" * 200, "model.h5", "no HDF5"
    yield (
        "old archive of JSON",
        lambda: json.dumps(sequential(layer("Lambda", {"function": [_code(), None, None]}))).encode(),
        "model.json",
        "model_from_json of a configuration with code",
    )
    yield (
        "old archive of YAML",
        lambda: f"class_name: Sequential\nconfig:\n  layers: !!python/object/apply:os.system ['{COMMAND}']\n".encode(),
        "model.yaml",
        "CVE-2021-37678: model_from_yaml",
    )
