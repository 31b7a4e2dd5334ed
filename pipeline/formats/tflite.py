"""TensorFlow Lite models (`.tflite`), quantised ones too: run by the Lite interpreter as they are, only in a sandbox child."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pipeline.foreign import blame
from pipeline.formats import Format, Glimpse
from pipeline.formats.onnx import EXPORT_OPSET
from pipeline.signature import Tensor, in_form
from pipeline.stage import Json
from pipeline.trial import Arrays, Predictor

_MAGIC = b"TFL3"


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Open the model, read its signature and quantisation, compare it with what was declared and run it once."""
    from pipeline.tensorflow_models import described

    interpreter = _open(model)
    given, wanted = _ends(interpreter)
    quantised = [
        f"{name} = {one['quantization'][0]:.6g} × (value − {one['quantization'][1]})"
        for name, one in (*given.items(), *wanted.items())
        if one["quantization"][0]
    ]
    return described(
        _predictor(interpreter),
        [_tensor(name, one) for name, one in given.items()],
        declared,
        producer="TensorFlow Lite",
        parameters=_parameters(model),
        notes={"quantisation": "; ".join(quantised)[:1000]} if quantised else {},
    )


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Open the model in the Lite interpreter, on one thread."""
    return _predictor(_open(model))


def export(model: str, destination: str, exporter: str, inputs: Json, outputs: Json, declared: Json) -> Json:
    """Write the model with tf2onnx; what is quantised stays so, as explicit quantise and dequantise operators."""
    from pipeline.tensorflow_models import write_onnx

    given, wanted = _ends(_open(model))
    names = {one["name"]: name for name, one in (*given.items(), *wanted.items())}
    write_onnx(
        destination,
        names=names,
        opset=EXPORT_OPSET,
        input_names=[one["name"] for one in given.values()],
        output_names=[one["name"] for one in wanted.values()],
        tflite_path=model,
    )
    return {}


def _open(model: str) -> Any:
    from pipeline.tensorflow_models import tensorflow

    tf = tensorflow()
    with blame("not_loadable", "Opening the model in the Lite interpreter"):
        interpreter = tf.lite.Interpreter(model_path=model, num_threads=1)
        interpreter.allocate_tensors()
    return interpreter


def _ends(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs as the interpreter describes them, by the signature's names, or their own without one."""
    given, wanted = interpreter.get_input_details(), interpreter.get_output_details()
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        return tuple({one["name"].removesuffix(":0"): one for one in ends} for ends in (given, wanted))  # type: ignore[return-value]
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    called = {
        one["name"]: name for name, one in (*runner.get_input_details().items(), *runner.get_output_details().items())
    }
    return tuple({called.get(one["name"], one["name"]): one for one in ends} for ends in (given, wanted))  # type: ignore[return-value]


def _predictor(interpreter: Any) -> Predictor:
    given, wanted = _ends(interpreter)

    def predict(arrays: Arrays) -> dict[str, Any]:
        with blame("forward_failed", "Running the model"):
            ready = {one["index"]: tuple(one["shape"]) for one in interpreter.get_input_details()}
            feeds = {one["index"]: arrays[name] for name, one in given.items()}
            if any(array.shape != ready[index] for index, array in feeds.items()):
                for index, array in feeds.items():
                    interpreter.resize_tensor_input(index, array.shape, strict=True)
                interpreter.allocate_tensors()
            for index, array in feeds.items():
                interpreter.set_tensor(index, array)
            interpreter.invoke()
            return {name: interpreter.get_tensor(one["index"]) for name, one in wanted.items()}

    return predict


def _tensor(name: str, detail: Any) -> Tensor:
    signature = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    dtype = detail["dtype"].__name__.removesuffix("_")
    return Tensor(name=name, dtype=dtype, shape=[int(size) if size >= 0 else None for size in signature])


def _parameters(model: str) -> int:
    """Number of values in the constants, what is folded into them included."""
    from tensorflow.lite.python import schema_py_generated as schema

    with blame("not_loadable", "Counting the weights"):
        root = schema.Model.GetRootAs(Path(model).read_bytes(), 0)
        graphs = [root.Subgraphs(index) for index in range(root.SubgraphsLength())]
        tensors = [graph.Tensors(index) for graph in graphs for index in range(graph.TensorsLength())]
        stored = [one for one in tensors if root.Buffers(one.Buffer()).DataLength()]
        return sum(math.prod(int(one.Shape(axis)) for axis in range(one.ShapeLength())) for one in stored)


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.head[4:8] == _MAGIC


FORMAT = Format(
    name="tflite",
    title="TensorFlow Lite",
    extensions=(".tflite",),
    recognises=_recognises,
    extra="tensorflow",
)
