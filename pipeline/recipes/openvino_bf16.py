"""The optimised graph in OpenVINO with products in bfloat16, as it runs by default on CPUs that have them."""

from pipeline.recipes import OPENVINO, Recipe

RECIPE = Recipe(
    name="openvino-bf16",
    precision="bf16",
    budget="fp16",
    of=("onnx-fp32-optimized",),
    runtime=OPENVINO,
    session={"precision": "bf16"},
    package="openvino",
    flags=("amx_bf16", "avx512_bf16"),
)
