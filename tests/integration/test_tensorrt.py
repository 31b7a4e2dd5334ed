"""Engines, all but the last inch: this machine has neither a GPU nor TensorRT.

What is real: names, keys, profiles, the graphs that are handed over, the reading of answers, the stage's refusals. What
stands in is `Library`, a peer of TensorRT's documented Python API with only the calls that the builder makes; it records
them. No engine was built or run by these tests.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import tensorrt_build as trt
from pipeline.errors import Rejected, Unavailable
from pipeline.signature import Tensor
from pipeline.stages import tensorrt as stage
from pipeline.tensorrt_build import Described, Timed

IMAGE = Tensor(name="image", dtype="float32", shape=[None, 1, 8, 8], example=[2, 1, 8, 8])
FIXED = Tensor(name="mask", dtype="int64", shape=[1, 16], example=[1, 16])
TEXT = Tensor(name="ids", dtype="int64", shape=[None, None], example=[2, 16])
H100 = Described(sm="sm90", gpu="NVIDIA H100 80GB HBM3", tensorrt="10.16.0", cuda="12.8")


@dataclass
class Library:
    """`import tensorrt`, as far as it goes. `typed_by_flag`: as in TensorRT 10."""

    typed_by_flag: bool = True
    parses: bool = True
    builds: bool = True
    takes_cache: bool = True
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    __version__: str = "10.16.0"

    def __post_init__(self) -> None:
        flags = {"STRONGLY_TYPED": 1} if self.typed_by_flag else {}
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**flags)
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})

    def Builder(self, logger: Any) -> Any:  # noqa: N802 - the library's name
        def create_network(flags: int) -> Any:
            self.calls.append(("create_network", flags))
            return SimpleNamespace(num_inputs=1, num_layers=7, get_input=lambda place: SimpleNamespace(name="image"))

        def set_shape(*shapes: Any) -> None:
            self.calls.append(("set_shape", *shapes))

        return SimpleNamespace(
            create_network=create_network,
            create_builder_config=lambda: self.config,
            create_optimization_profile=lambda: SimpleNamespace(set_shape=set_shape),
            build_serialized_network=lambda network, config: memoryview(b"engine") if self.builds else None,
        )

    @property
    def config(self) -> Any:
        def set_timing_cache(cache: bytes, ignore_mismatch: bool) -> bool:
            self.calls.append(("set_timing_cache", cache, ignore_mismatch))
            return self.takes_cache or cache == b""

        return SimpleNamespace(
            set_memory_pool_limit=lambda kind, size: self.calls.append(("workspace", kind, size)),
            add_optimization_profile=lambda profile: self.calls.append(("profile",)),
            create_timing_cache=lambda content: content,
            set_timing_cache=set_timing_cache,
            get_timing_cache=lambda: SimpleNamespace(serialize=lambda: memoryview(b"measured")),
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802 - the library's name
        return SimpleNamespace(
            parse=lambda content: self.parses,
            num_errors=0 if self.parses else 1,
            get_error=lambda place: "In node 3 (importNonZero): UNSUPPORTED_NODE",
        )


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    return made


def build(folder: Path, known: Path | None = None) -> Any:
    source = folder / "model.onnx"
    source.write_bytes(b"graph")
    return trt.build(
        str(source),
        str(folder / "model.engine"),
        trt.profile([IMAGE]),
        str(folder / "timing"),
        None if known is None else str(known),
    )


def graph(folder: Path, *nodes: Any, name: str = "model.onnx") -> Path:
    weights = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    x, y = (helper.make_tensor_value_info(one, TensorProto.FLOAT, ["n", 4]) for one in "xy")
    made = helper.make_graph(list(nodes) or [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    path = folder / name
    onnx.save_model(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_a_profile_spans_the_batches_and_holds_everything_else() -> None:
    found = trt.profile([IMAGE, FIXED, TEXT])
    assert found["image"] == ([1, 1, 8, 8], [8, 1, 8, 8], [32, 1, 8, 8])
    assert found["mask"] == ([1, 16], [1, 16], [1, 16])
    assert found["ids"] == ([1, 16], [8, 16], [32, 16])
    assert trt.profile([IMAGE], largest_batch=4)["image"] == ([1, 1, 8, 8], [4, 1, 8, 8], [4, 1, 8, 8])


def test_an_engine_is_named_by_its_architecture_and_keyed_by_all_that_decides_it() -> None:
    assert trt.variant_name("fp16", "sm90") == "tensorrt-fp16@sm90"
    said: dict[str, Any] = {"precision": "fp16", "spans": trt.profile([IMAGE]), "source": "a" * 64}
    key = trt.engine_key(H100, **said)
    assert key == trt.engine_key(H100, **said)
    others = [
        trt.engine_key(H100.model_copy(update=change), **said)
        for change in ({"sm": "sm80"}, {"tensorrt": "11.0.0"}, {"cuda": "13.0"})
    ]
    others += [
        trt.engine_key(H100, **said | change)
        for change in ({"precision": "int8"}, {"spans": trt.profile([IMAGE], largest_batch=4)}, {"source": "b" * 64})
    ]
    assert len({key, *others}) == 7
    assert trt.engine_key(H100.model_copy(update={"gpu": "NVIDIA H200"}), **said) == key, "the name is not the chip"
    assert trt.timing_cache_name(H100) == "tensorrt-timing-nvidia-h100-80gb-hbm3-sm90-10.16.0.cache"
    assert "/" not in trt.timing_cache_name(H100.model_copy(update={"gpu": "Tesla T4/x"}))


def test_a_child_cannot_choose_the_names() -> None:
    for field_, value in (("sm", "sm90/../x"), ("sm", "90"), ("gpu", "a\nb"), ("tensorrt", "")):
        with pytest.raises(Rejected, match="out of form"):
            Described.of(H100.model_dump() | {field_: value})


@pytest.mark.parametrize(("typed_by_flag", "flags"), [(True, 2), (False, 0)])
def test_networks_are_strongly_typed_in_either_version_of_the_library(typed_by_flag: bool, flags: int) -> None:
    assert trt.network_flags(Library(typed_by_flag=typed_by_flag)) == flags


def test_an_engine_is_built_for_the_profile_and_its_timings_are_kept(library: Library, tmp_path: Path) -> None:
    answer = build(tmp_path)
    assert (answer["size"], answer["layers"]) == (6, 7)
    assert trt.Built.of(answer).seconds >= 0
    assert ("set_shape", "image", (1, 1, 8, 8), (8, 1, 8, 8), (32, 1, 8, 8)) in library.calls
    assert ("workspace", "workspace", trt.WORKSPACE) in library.calls
    assert (tmp_path / "model.engine").read_bytes() == b"engine"
    assert (tmp_path / "timing").read_bytes() == b"measured"


def test_timings_of_another_gpu_or_version_are_not_forced_upon_the_library(library: Library, tmp_path: Path) -> None:
    library.takes_cache = False
    known = tmp_path / "known"
    known.write_bytes(b"of a T4")
    build(tmp_path, known)
    assert [call[1:] for call in library.calls if call[0] == "set_timing_cache"] == [(b"of a T4", False), (b"", False)]


@pytest.mark.parametrize("fails", ["parses", "builds"])
def test_a_graph_that_cannot_be_built_is_refused_with_what_the_library_says(
    library: Library, tmp_path: Path, fails: str
) -> None:
    setattr(library, fails, False)
    with pytest.raises(Rejected) as caught:
        build(tmp_path)
    assert caught.value.code == "engine_not_built"
    assert ("UNSUPPORTED_NODE" in caught.value.message) == (fails == "parses")
    assert not (tmp_path / "model.engine").exists()


def test_sixteen_bits_are_put_into_the_graph_and_its_border_stays_as_it_is(tmp_path: Path) -> None:
    halved = tmp_path / "half.onnx"
    trt.halve(str(graph(tmp_path)), str(halved))
    proto = onnx.load_model(halved)
    assert {one.data_type for one in proto.graph.initializer} == {TensorProto.FLOAT16}
    border = (*proto.graph.input, *proto.graph.output)
    assert {one.type.tensor_type.elem_type for one in border} == {TensorProto.FLOAT}


def test_a_graph_tells_whether_it_is_calibrated(tmp_path: Path) -> None:
    assert trt.quantised(str(graph(tmp_path))) is False
    scale = helper.make_node("Constant", [], ["s"], value_float=0.1)
    nodes = (
        scale,
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    )
    assert trt.quantised(str(graph(tmp_path, *nodes, name="qdq.onnx"))) is True


def test_a_batch_beyond_the_profile_is_asked_in_parts() -> None:
    seen = []

    def double(arrays: Any) -> dict[str, Any]:
        seen.append(len(arrays["x"]))
        return {"y": arrays["x"] * 2}

    x = np.arange(10.0)
    assert np.array_equal(trt.in_parts(double, {"x": x}, 4)["y"], x * 2)
    assert seen == [4, 4, 2]
    assert np.array_equal(trt.in_parts(double, {"x": x}, 10)["y"], x * 2)
    assert seen == [4, 4, 2, 10]


def timed(provider: str = trt.PROVIDER, *, engine: int = 100_000) -> Timed:
    return Timed(provider=provider, engine=[engine] * 60, onnx=[300_000] * 60, control=[300_000] * 60)


def test_an_engine_is_measured_against_onnx_runtime_on_the_same_gpu() -> None:
    row = stage.row("tensorrt-fp16@sm90", timed(), device="sm90", size=10, memory=20)
    assert (row["speedup"], row["verdict"], row["device"], row["p50_ms"]) == (3.0, "faster", "sm90", 0.1)
    assert stage.row("t", timed(engine=300_000), device="sm90", size=1, memory=1)["verdict"] == "same"


def test_a_silent_fall_back_to_the_cpu_is_no_measurement() -> None:
    with pytest.raises(Unavailable) as caught:
        stage.row("t", timed("CPUExecutionProvider"), device="sm90", size=1, memory=1)
    assert caught.value.code == "gpu_fallback"


def test_a_worker_without_a_gpu_breaks_the_step_and_blames_nobody_else() -> None:
    with pytest.raises(Unavailable) as caught:
        stage.run(SimpleNamespace(options={"gpu": None}))  # type: ignore[arg-type]
    assert caught.value.code == "no_gpu"


@pytest.mark.parametrize(
    ("options", "config", "precisions"),
    [
        ({}, None, ["fp16"]),
        ({}, {"targets": ["tensorrt-int8", "tensorrt-fp16"]}, ["fp16", "int8"]),
        ({}, {"targets": "tensorrt-int8"}, ["int8"]),
        ({"variants": ["tensorrt-int8"]}, {"targets": ["tensorrt-fp16"]}, ["int8"]),
        ({"variants": ["onnx-int8-dynamic"]}, None, ["fp16"]),
    ],
)
def test_the_precisions_are_those_that_were_asked_for(options: Any, config: Any, precisions: list[str]) -> None:
    ctx = SimpleNamespace(options=options, upload=SimpleNamespace(declared={"config": config}))
    assert stage.wanted(ctx) == precisions  # type: ignore[arg-type]
