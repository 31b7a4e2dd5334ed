"""What a rebuild says of artifacts that it did not make again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pipeline.stage import File, Passage
from pipeline.stages import compare


def rebuilt(*variants: dict[str, Any]) -> Any:
    """The facts of `compare` for a version of a canonical file and one variant in another runtime."""
    file = File(name="onnx-fp32.onnx", role="canonical", key="k", sha256="a", size=1, meta={"variant": "onnx-fp32"})
    earlier = {
        "convert": Passage(facts={}, files=[file]),
        "optimize": Passage(facts={"variants": variants}, files=[]),
    }
    recorded = [
        {"name": "onnx-fp32", "sha256": "a", "toolchain": {}},
        {"name": "openvino-fp32", "sha256": "b", "toolchain": {}},
    ]
    ctx: Any = SimpleNamespace(earlier=earlier, options={"recorded": recorded}, log=lambda text: None)
    return compare.run(ctx).facts


def test_a_form_that_is_not_faster_this_time_says_nothing_about_bytes() -> None:
    facts = rebuilt({"name": "openvino-fp32", "withheld": True, "reason": "no_gain: 0.9 times as fast"})
    assert facts["same"] is True
    assert [each["name"] for each in facts["artifacts"]] == ["onnx-fp32"]


def test_a_form_that_could_not_be_made_again_is_a_difference() -> None:
    assert rebuilt()["same"] is False
    assert rebuilt({"name": "openvino-fp32", "withheld": True, "reason": "optimization_failed: …"})["same"] is False
