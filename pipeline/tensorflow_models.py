"""What TensorFlow's formats have in common: opening the library without its noise, running graphs, writing ONNX.

Imported by format files at their functions' call time, in sandbox children only.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.signature import Inspection, Tensor, class_warnings, declared_shape, example_shape, matched
from pipeline.stage import Json
from pipeline.trial import Arrays, Predictor, settle

_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
"""No look for devices, no banner, and the plain kernels: oneDNN's round otherwise from one machine to the next."""


def tensorflow() -> Any:
    """The library, on one thread."""
    os.environ.update(_ENVIRONMENT)
    warnings.simplefilter("ignore")
    import tensorflow as tf

    tf.get_logger().setLevel(logging.CRITICAL)
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def described(
    predict: Predictor,
    inputs: Sequence[Tensor],
    declared: Json,
    *,
    producer: str | None,
    parameters: int | None,
    warnings: Sequence[str] = (),
    notes: Mapping[str, str] | None = None,
) -> Json:
    """The inspection of a model whose signature is known: compared with what was declared, and run once."""
    if not inputs:
        raise Rejected("no_signature", "The model takes no tensor.")
    names, said, ready = [one.name for one in inputs], [*warnings], []
    for one in inputs:
        wanted = declared_shape(declared, one.name, names)
        said += matched(one, wanted)
        shape = one.shape if one.shape is not None else wanted
        if shape is None:
            raise Rejected("input_shape_required", f"Input {one.name} has no shape in the file: declare input_shape.")
        ready.append(one.model_copy(update={"shape": shape, "example": example_shape(shape, one.dtype, wanted)}))
    settled, outputs, forward, learned = settle(predict, ready, [])
    return Inspection(
        inputs=settled,
        outputs=outputs,
        parameters=parameters,
        producer=producer,
        warnings=[*said, *class_warnings(outputs, declared), *learned],
        notes=dict(notes or {}),
        forward=forward,
        exporters=["tf2onnx"],
    ).model_dump()


def tensor(name: str, spec: Any) -> Tensor:
    """An input or output from anything of TensorFlow's that has a shape and a dtype."""
    shape = None if spec.shape.rank is None else list(spec.shape.as_list())
    dtype = "str" if spec.dtype.name == "string" else spec.dtype.name
    return Tensor(name=name, dtype=dtype, shape=shape)


def plain(name: str) -> str:
    """The name of a tensor without the number of the output that it is, where that is the first."""
    return name.removesuffix(":0")


def runner(call: Callable[..., Any], inputs: Sequence[str], outputs: Sequence[str]) -> Predictor:
    """Run `call`, which takes tensors in the order of `inputs` and gives them in that of `outputs`, on arrays."""
    tf = tensorflow()

    def predict(arrays: Arrays) -> dict[str, Any]:
        with blame("forward_failed", "Running the model"):
            found = call(*(tf.constant(arrays[name]) for name in inputs))
            return {name: one.numpy() for name, one in zip(outputs, found, strict=True)}

    return predict


def write_onnx(destination: str, *, names: Mapping[str, str], opset: int, graph: Any = None, **more: Any) -> None:
    """Convert a frozen graph, or the TFLite file that `more` names. `names` says how its tensors are to be called."""
    import onnx
    from tf2onnx import convert

    with blame("conversion_failed", "Conversion by tf2onnx"):
        proto, _ = convert._convert_common(  # noqa: SLF001 - its public functions take no frozen graph with tables
            graph, name="model", opset=opset, tensors_to_rename=dict(names), **more
        )
        onnx.save_model(proto, destination)
