"""The optimised graph in OpenVINO, in full precision."""

from pipeline.recipes import OPENVINO, Recipe

RECIPE = Recipe(
    name="openvino-fp32",
    precision="fp32",
    budget="fp32",
    of=("onnx-fp32-optimized",),
    runtime=OPENVINO,
    session={"precision": "f32"},
    package="openvino",
)
