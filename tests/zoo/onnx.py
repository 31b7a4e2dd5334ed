"""ONNX files: nine topologies that the onnx package brings along with their expected outputs, and one with class names.

The nine have constant weights that stand for the trained ones, at operator set 9, as the first exporters wrote them.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
from pathlib import Path
from typing import Any

from tests.zoo import Sample

NAMES = [
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
]
GIGAFLOPS = {"resnet50": 8.18, "squeezenet": 0.70, "vgg19": 39.26, "densenet121": 5.67}
"""What the papers and everybody's counters say of some of them, a multiplication and addition as two."""

_QUICK = ("squeezenet",)


def fixture(name: str) -> Path:
    """A file among onnx's own test data, found without importing onnx."""
    spec = importlib.util.find_spec("onnx")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("onnx")
    return Path(spec.origin).parent / "backend" / "test" / "data" / "light" / name


def expected(name: str) -> Any:
    """The output that one of the nine has for an input of ones."""
    import onnx
    from onnx import numpy_helper

    tensor = onnx.TensorProto.FromString(fixture(f"light_{name}_output_0.pb").read_bytes())
    return numpy_helper.to_array(tensor)


def _copy(name: str, folder: Path) -> Path:
    return Path(shutil.copyfile(fixture(f"light_{name}.onnx"), folder / f"{name}.onnx"))


def write_digits(folder: Path) -> Path:
    """A perceptron trained on the bundled digits, its class names in the metadata as ultralytics writes them."""
    import onnx

    model = digits_model()
    model.metadata_props.add(key="names", value=str({digit: f"digit {digit}" for digit in range(10)}))
    model.metadata_props.add(key="task", value="classify")
    onnx.save_model(model, folder / "digits.onnx")
    return folder / "digits.onnx"


@functools.cache
def perceptron() -> Any:
    from sklearn.neural_network import MLPClassifier

    images, labels = _digits()
    return MLPClassifier((48,), max_iter=60, random_state=20, early_stopping=True).fit(images, labels)


def digits_model() -> Any:
    """The perceptron as a graph of five nodes."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    (first, last), (bias, other) = perceptron().coefs_, perceptron().intercepts_
    weights = {"w1": first, "b1": bias, "w2": last, "b2": other}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w1", "b1"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "w2", "b2"], ["scores"]),
        ],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="slipway-zoo")


def write_samples(folder: Path) -> Path:
    """Digits and their labels, for calibration and accuracy."""
    import numpy as np

    images, labels = _digits()
    path = folder / "samples.npz"
    np.savez(path, image=images[-256:].reshape(-1, 8, 8), labels=labels[-256:])
    return path


def _digits() -> tuple[Any, Any]:
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.data / 16).astype(np.float32), digits.target


SAMPLES = (
    Sample(name="onnx-digits", format="onnx", filename="digits.onnx", make=write_digits, calibration=write_samples),
    *(
        Sample(
            name=f"onnx-{name.replace('_', '-')}",
            format="onnx",
            filename=f"{name}.onnx",
            make=functools.partial(_copy, name),
            slow=name not in _QUICK,
        )
        for name in NAMES
    ),
)
