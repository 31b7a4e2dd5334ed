"""The statically quantised graph in OpenVINO."""

from pipeline.recipes import OPENVINO, Recipe

RECIPE = Recipe(
    name="openvino-int8",
    precision="int8",
    budget="int8",
    of=("onnx-int8-static", "onnx-mixed-static"),
    runtime=OPENVINO,
    session={"precision": "f32"},
    package="openvino",
)
