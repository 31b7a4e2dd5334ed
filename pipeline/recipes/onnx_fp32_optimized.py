"""The same arithmetic with a smaller graph."""

from __future__ import annotations

from pathlib import Path

from pipeline.formats.onnx import opset_of
from pipeline.graphs import optimise
from pipeline.recipes import Recipe
from pipeline.stage import Json


def make(source: str, destination: str, inputs: Json, calibration: str | None, keep: list[str], level: str) -> Json:
    after = optimise(source, destination, level)
    return {"size": Path(destination).stat().st_size, "opset": opset_of(after)}


RECIPE = Recipe(name="onnx-fp32-optimized", precision="fp32", budget="fp32", options={"level": "basic"})
