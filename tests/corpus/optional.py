"""Files of frameworks that the development environment does not have: made where they can be imported.

Run `python -m tests.corpus --judge` in an environment that has them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.corpus import Sample
from tests.corpus.frameworks import Later, joblib, np, quietly, torch, written

os.environ.setdefault("KERAS_BACKEND", "torch")

_Rows = Iterator[tuple[str, str, Callable[[], bytes]]]

keras = Later("keras")
tf = Later("tensorflow")
lightgbm = Later("lightgbm")
xgboost = Later("xgboost")
pd = Later("pandas")
skops_io = Later("skops.io")
ultralytics = Later("ultralytics")
torchvision = Later("torchvision")


def samples() -> Iterator[Sample]:
    for framework, rows in (
        ("lightgbm", _lightgbm()),
        ("xgboost", _xgboost()),
        ("pandas", _pandas()),
        ("skops", _skops()),
        ("lz4", _lz4()),
        ("keras", _keras()),
        ("tensorflow", _tensorflow()),
        ("ultralytics", _ultralytics()),
        ("torchvision", _torchvision()),
    ):
        if importlib.util.find_spec(framework) is None:
            continue
        for name, filename, make in rows:
            yield Sample(
                name=f"{framework}: {name}",
                attack=framework,
                why="as its framework writes it",
                make=quietly(make),
                filename=filename,
            )


def _xy() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    return random.random((80, 4)), random.integers(0, 2, 80)


def _dumped(thing: Any, **more: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(thing, buffer, **more)
    return buffer.getvalue()


def _lightgbm() -> _Rows:
    def fitted() -> Any:
        return lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(*_xy())

    yield "classifier, pickle", "model.pkl", lambda: pickle.dumps(fitted())
    yield "classifier, joblib", "model.joblib", lambda: _dumped(fitted())
    yield "booster, text", "model.txt", lambda: written(lambda path: fitted().booster_.save_model(str(path)), "m.txt")
    yield "booster, pickle", "model.pkl", lambda: pickle.dumps(fitted().booster_)


def _xgboost() -> _Rows:
    def fitted() -> Any:
        return xgboost.XGBClassifier(n_estimators=3).fit(*_xy())

    yield "classifier, pickle", "model.pkl", lambda: pickle.dumps(fitted())
    yield "classifier, joblib", "model.joblib", lambda: _dumped(fitted())
    yield "json", "model.json", lambda: written(lambda path: fitted().save_model(path), "m.json")


def _pandas() -> _Rows:
    def frame() -> Any:
        return pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": pd.to_datetime(["2026-01-01", "2026-01-02"])})

    for protocol in (2, 4, 5):
        yield f"frame, protocol {protocol}", "x.pkl", lambda protocol=protocol: pickle.dumps(frame(), protocol)
    yield "series", "x.pkl", lambda: pickle.dumps(frame()["a"])
    yield "categorical", "x.pkl", lambda: pickle.dumps(frame()["b"].astype("category"))
    yield "frame, joblib", "x.joblib", lambda: _dumped(frame())


def _skops() -> _Rows:
    def fitted() -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression().fit(*_xy())

    yield "model", "model.skops", lambda: skops_io.dumps(fitted())
    yield "model, deflated", "model.skops", lambda: skops_io.dumps(fitted(), compression=zipfile.ZIP_DEFLATED)


def _lz4() -> _Rows:
    def fitted() -> Any:
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(n_estimators=3).fit(*_xy())

    def compressed() -> bytes:
        return written(lambda path: joblib.dump(fitted(), path, compress=("lz4", 3)), "m.joblib.lz4")

    yield "forest, joblib", "model.joblib", compressed


def _keras_models() -> Iterator[tuple[str, Callable[[], Any]]]:
    def functional() -> Any:
        layers = keras.layers
        one, two = keras.Input((8, 8, 1)), keras.Input((4,))
        found = layers.Conv2D(4, 3, activation="relu")(one)
        found = layers.Flatten()(layers.MaxPooling2D()(layers.BatchNormalization()(found)))
        joined = layers.Concatenate()([found, layers.Dense(4, activation="gelu")(two)])
        return keras.Model([one, two], layers.Dense(2, activation="softmax")(layers.Dropout(0.1)(joined)))

    def sequential() -> Any:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(1)])
        model.compile("adam", "mse", metrics=["mae"])
        return model

    def recurrent() -> Any:
        layers = keras.layers
        inside = layers.Bidirectional(layers.LSTM(4, return_sequences=True))
        return keras.Sequential([keras.Input((5,)), layers.Embedding(9, 4), inside, layers.GRU(3), layers.Dense(1)])

    def attention() -> Any:
        one = keras.Input((5, 4))
        found = keras.layers.LayerNormalization()(keras.layers.MultiHeadAttention(2, 2)(one, one))
        return keras.Model(one, keras.layers.GlobalAveragePooling1D()(found))

    yield "functional", functional
    yield "sequential, compiled", sequential
    yield "recurrent", recurrent
    yield "attention", attention


def _keras() -> _Rows:
    for name, make in _keras_models():
        yield name, "model.keras", lambda make=make: written(lambda path: make().save(path), "m.keras")
        yield f"{name}, h5", "model.h5", lambda make=make: written(lambda path: make().save(path), "m.h5")
        yield f"{name}, weights", "m.weights.h5", lambda make=make: written(lambda path: make().save_weights(path), "m.weights.h5")  # fmt: skip
        yield f"{name}, configuration", "model.json", lambda make=make: make().to_json().encode()


def _tensorflow() -> _Rows:
    def module() -> Any:
        class Net(tf.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.w = tf.Variable(tf.ones((4, 2)))

            @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)])  # type: ignore[misc]
            def __call__(self, x: Any) -> Any:
                return tf.nn.softmax(tf.nn.relu(x @ self.w))

        return Net()

    def saved() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(module(), folder)
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for path in sorted(Path(folder).rglob("*")):
                    archive.write(path, f"net/{path.relative_to(folder)}")
            return buffer.getvalue()

    def frozen() -> bytes:
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        net = module()
        graph = convert_variables_to_constants_v2(net.__call__.get_concrete_function()).graph
        content: bytes = graph.as_graph_def().SerializeToString()
        return content

    def lite(*, small: bool) -> bytes:
        net = module()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([net.__call__.get_concrete_function()], net)
        if small:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        content: bytes = converter.convert()
        return content

    yield "SavedModel", "model.zip", saved
    yield "frozen graph", "model.pb", frozen
    yield "lite", "model.tflite", lambda: lite(small=False)
    yield "lite, quantised", "model.tflite", lambda: lite(small=True)


def _ultralytics() -> _Rows:
    def untrained(kind: str) -> bytes:
        model = ultralytics.YOLO(f"{kind}.yaml")
        return written(lambda path: model.save(path), "m.pt")

    for kind in ("yolo11n", "yolov8n", "yolov8n-seg", "yolov8n-cls", "yolo11n-pose", "yolo11n-obb"):
        yield kind, "model.pt", lambda kind=kind: untrained(kind)


def _torchvision() -> _Rows:
    for name in ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "vit_b_16", "densenet121", "convnext_tiny", "squeezenet1_1"):  # fmt: skip

        def saved(name: str = name) -> bytes:
            _operators()
            model = getattr(torchvision.models, name)(weights=None).eval()
            return written(lambda path: torch.save(model, path), "m.pt")

        yield f"{name}, whole module", "model.pt", saved


@functools.cache
def _operators() -> Any:
    """torchvision cannot be imported where its native part does not fit torch: what it asks for then, as long as kept."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # the native part is there and has it
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
