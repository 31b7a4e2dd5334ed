"""Builds TensorRT engines from ONNX, asks them and times them. Runs in a sandbox child that has a GPU, and nowhere else.

Precision is in the graph (16-bit types, explicit QDQ) and the network strongly typed: TensorRT 11 knows no other way, and
10 knows this one too. Every call into the library is native code at work on a stranger's graph, hence the child.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.signature import Answer, Tensor
from pipeline.stage import Json
from pipeline.trial import Arrays, Predictor, draw, read, write

PROVIDER = "CUDAExecutionProvider"
WORKSPACE = 1 << 30
"""Bytes of GPU memory that a kernel may use as scratch space while it runs."""
LARGEST_BATCH = 32
_USUAL_BATCH = 8
_SEED = 7

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9 .,_+:()/-]{1,100}$")]


class Described(Answer):
    """The GPU and the libraries that an engine is good for."""

    sm: Annotated[str, Field(pattern=r"^sm[0-9]{2,3}$")]
    gpu: Word
    tensorrt: Word
    cuda: Word


class Built(Answer):
    """An engine that was written, in bytes, and the seconds it took."""

    size: Annotated[int, Field(ge=1)]
    seconds: float
    layers: Annotated[int, Field(ge=0)]


class Timed(Answer):
    """Nanoseconds of each run by turns: the engine, and the ONNX file twice, so that it also competes with itself.

    `provider` is where ONNX Runtime really ran it.
    """

    provider: Word
    engine: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    onnx: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    control: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


Span = tuple[list[int], list[int], list[int]]
"""Shapes of one input: the smallest, the one to be fastest at, and the largest."""


def profile(inputs: Sequence[Tensor], *, largest_batch: int = LARGEST_BATCH) -> dict[str, Span]:
    """The optimisation profile: between which shapes an engine works. Only a free first axis may vary.

    Other free axes are held to the size that the model was tried with: an engine that must serve every length is slow at
    each, and a length that is not declared cannot be planned for.
    """
    return {
        one.name: (one.sized(1), one.sized(min(_USUAL_BATCH, largest_batch)), one.sized(largest_batch))
        for one in inputs
    }


def variant_name(precision: str, sm: str) -> str:
    return f"tensorrt-{precision}@{sm}"


def engine_key(found: Described, *, precision: str, spans: Mapping[str, Span], source: str) -> str:
    """Hex SHA-256 of all that decides whether an engine is the one that is wanted; `source` is the ONNX file's digest."""
    parts = [
        found.sm,
        found.tensorrt,
        found.cuda,
        precision,
        {name: list(span) for name, span in spans.items()},
        source,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def timing_cache_name(found: Described) -> str:
    """What measured kernels are kept under: they hold for one kind of GPU and one version of the library."""
    gpu = "-".join(found.gpu.lower().split())
    return f"tensorrt-timing-{gpu.replace('/', '-')}-{found.sm}-{found.tensorrt}.cache"


def describe() -> Json:
    """In the child: the GPU that it was given, and the libraries."""
    import tensorrt
    import torch

    if not torch.cuda.is_available():
        return {"sm": "sm00", "gpu": "none", "tensorrt": tensorrt.__version__, "cuda": "none"}
    major, minor = torch.cuda.get_device_capability(0)
    return {
        "sm": f"sm{major}{minor}",
        "gpu": torch.cuda.get_device_name(0),
        "tensorrt": tensorrt.__version__,
        "cuda": torch.version.cuda,
    }


def halve(source: str, destination: str) -> Json:
    """In the child: the same graph with 16-bit weights and activations; inputs and outputs stay as they are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with blame("optimization_failed", "Halving the precision"):
        onnx.save_model(convert_float_to_float16(onnx.load_model(source), keep_io_types=True), destination)
    return {}


def quantised(source: str) -> bool:
    """In the child: whether a graph says itself how its activations are quantised (explicit QDQ)."""
    import onnx

    with blame("optimization_failed", "Reading the graph"):
        return any(node.op_type == "QuantizeLinear" for node in onnx.load_model(source).graph.node)


def build(source: str, destination: str, spans: Json, timing: str, known: str | None = None) -> Json:
    """In the child: write the engine for an ONNX file whose graph holds the precision.

    `spans` as in `profile`; `known` is a timing cache of before, and `timing` where the new one goes.
    """
    import tensorrt

    started = time.perf_counter()
    builder, network, parser = _parsed(tensorrt, source)
    config = _configured(tensorrt, builder, network, spans)
    cache = config.create_timing_cache(b"" if known is None else Path(known).read_bytes())
    # One that does not fit this GPU or version is refused by the library; then measuring starts anew.
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise Rejected("engine_not_built", f"TensorRT cannot build this graph.{_complaints(parser)}")
    content = bytes(engine)
    Path(destination).write_bytes(content)
    Path(timing).write_bytes(bytes(config.get_timing_cache().serialize()))
    return {"size": len(content), "seconds": time.perf_counter() - started, "layers": network.num_layers}


def answer(engine: str, questions: str, answers: str, largest: int) -> Json:
    """In the child: run an engine of ours on every question and write its answers under the same names.

    Questions of more than `largest` samples, which the engine was not built for, are asked in parts.
    """
    predict = loaded(engine)
    for path in sorted(Path(questions).glob("*.npz")):
        write(str(Path(answers) / path.name), in_parts(predict, read(str(path)), largest))
    return {}


def in_parts(predict: Predictor, arrays: Arrays, largest: int) -> dict[str, Any]:
    """The answer to a batch of any size by a model that takes at most `largest` samples at once."""
    import numpy as np

    sizes = {array.shape[0] if array.ndim else 1 for array in arrays.values()}
    (size,) = sizes if len(sizes) == 1 else (1,)
    if size <= largest:
        return predict(arrays)
    parts = [
        predict({name: array[start : start + largest] for name, array in arrays.items()})
        for start in range(0, size, largest)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def race(engine: str, onnx: str, inputs: Json, batch: int, rounds: int) -> Json:
    """In the child: the engine and ONNX Runtime on the same GPU, in a new random order each round. See `Timed`."""
    import onnxruntime

    described = [Tensor.of(one) for one in inputs]
    session = onnxruntime.InferenceSession(onnx, providers=[PROVIDER, "CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}
    arrays = draw(described, batch=batch, kind="normal")
    feed = {name: array for name, array in arrays.items() if name in wanted}
    on_engine = loaded(engine)
    runs: dict[str, Callable[[], Any]] = {
        "engine": lambda: on_engine(feed),
        "onnx": lambda: session.run(None, feed),
        "control": lambda: session.run(None, feed),
    }
    for run in runs.values():
        for _ in range(10):
            run()
    rng = random.Random(_SEED)  # noqa: S311 - an order, not a secret
    taken: dict[str, list[int]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name in rng.sample(list(runs), len(runs)):
            begun = time.perf_counter_ns()
            runs[name]()
            taken[name].append(max(1, time.perf_counter_ns() - begun))
    return {"provider": session.get_providers()[0], **taken}


def _parsed(tensorrt: Any, source: str) -> tuple[Any, Any, Any]:
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(network_flags(tensorrt))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(Path(source).read_bytes()):
        raise Rejected("engine_not_built", f"TensorRT does not take this graph.{_complaints(parser)}")
    return builder, network, parser


def network_flags(tensorrt: Any) -> int:
    """Strongly typed: said by a flag up to TensorRT 10, the only way, without a flag, from 11 on."""
    kinds = tensorrt.NetworkDefinitionCreationFlag
    return 1 << int(kinds.STRONGLY_TYPED) if hasattr(kinds, "STRONGLY_TYPED") else 0


def _configured(tensorrt: Any, builder: Any, network: Any, spans: Mapping[str, Span]) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, WORKSPACE)
    shapes = builder.create_optimization_profile()
    for place in range(network.num_inputs):
        name = network.get_input(place).name
        shapes.set_shape(name, *(tuple(shape) for shape in spans[name]))
    config.add_optimization_profile(shapes)
    return config


def _complaints(parser: Any) -> str:
    said = [str(parser.get_error(place)) for place in range(parser.num_errors)]
    return f" It says: {'; '.join(said)[:600]}" if said else ""


def loaded(engine: str) -> Predictor:
    """An engine that we built, ready to be asked. torch holds its memory on the device."""
    import tensorrt
    import torch

    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    opened = runtime.deserialize_cuda_engine(Path(engine).read_bytes())
    if opened is None:
        raise Rejected("engine_not_loadable", "TensorRT does not open the engine that it has just built.")
    context = opened.create_execution_context()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    names = [opened.get_tensor_name(place) for place in range(opened.num_io_tensors)]
    asked = [name for name in names if opened.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
    told = [name for name in names if name not in asked]

    def predict(arrays: Any) -> dict[str, Any]:
        with blame("forward_failed", "Running the engine"), torch.cuda.stream(stream):
            given = {name: torch.from_numpy(arrays[name]).contiguous().cuda(non_blocking=True) for name in asked}
            for name, array in given.items():
                context.set_input_shape(name, tuple(array.shape))
            found = {
                name: torch.empty(
                    tuple(context.get_tensor_shape(name)),
                    dtype=getattr(torch, tensorrt.nptype(opened.get_tensor_dtype(name)).__name__),
                    device="cuda",
                )
                for name in told
            }
            for name, array in {**given, **found}.items():
                context.set_tensor_address(name, array.data_ptr())
            if not context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError("TensorRT did not run the engine")
            stream.synchronize()
            return {name: array.cpu().numpy() for name, array in found.items()}

    return predict
