"""Where an ONNX graph leaves the path of what it was made from: the first tensor that is not what it should be.

Runs in a sandbox child. Two graphs are compared tensor by tensor under the same names. Any other source that runs on torch
is watched while it runs, and the graph's tensors are recognised among its own by their values, because exporters keep no
names. A source of another library gives nothing away and nothing is located.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.foreign import blame
from pipeline.formats.onnx import read as read_onnx
from pipeline.measures import ChannelSums, Sums, worst_channel
from pipeline.stage import Json
from pipeline.trial import read
from pipeline.verification import load

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_AT_ONCE = 256 << 20
"""Bytes of inner tensors to ask a session for at a time."""

_UNKNOWN = 4 << 20
_ROWS, _PROJECTIONS = 1024, 16
_SHAPES = ("Shape", "Size")


def locate(
    *, form: str, source: str, model: str, question: str, inputs: Json, declared: Json, tolerance: float, channel: float
) -> Json:
    """The first tensor of the graph `model` off from `source` by more than `tolerance`, or by a channel more than `channel`.

    Answers with `{"diverges": …}` in the form of `verdict.Divergence`, or None where nothing was found.
    """
    graph, feeds = read_onnx(model), read(question)
    if form == "onnx":
        found = _by_name(read_onnx(source), graph, feeds, tolerance, channel)
    else:
        found = _by_value(_watched(load(form, source, inputs, declared), feeds), graph, feeds, tolerance)
    return {"diverges": found}


def _by_name(
    source: ModelProto, graph: ModelProto, feeds: Mapping[str, Any], tolerance: float, channel: float
) -> Json | None:
    """The first tensor beyond `tolerance`; else the first with a channel beyond `channel`; else the worst of all."""
    known = {name for node in source.graph.node for name in node.output if name}
    shared = [(node, name) for node in graph.graph.node for name in node.output if name in known]
    if not shared:
        return None
    silent: Json = None
    worst: tuple[float, Json] = (0.0, None)
    for part in _parts(graph, [name for _, name in shared], feeds):
        pairs = [_ask(one, part, feeds) for one in (source, graph)]
        for node, name in ((node, name) for node, name in shared if name in part):
            error, quiet = _apart(pairs[0].get(name), pairs[1].get(name))
            if error > tolerance:
                return _named(graph, node, name, error)
            if quiet > channel and silent is None:
                silent = _named(graph, node, name, quiet)
            if error > worst[0]:
                worst = error, _named(graph, node, name, error)
    return silent or worst[1]


def _by_value(
    seen: Sequence[tuple[int, Any]], graph: ModelProto, feeds: Mapping[str, Any], tolerance: float
) -> Json | None:
    """The first node whose inputs lead on to values of the source and whose output does not."""
    import numpy as np

    if not seen:
        return None
    sizes: dict[int, list[Any]] = {}
    for size, sketch in seen:
        sizes.setdefault(size, []).append(sketch)
    dynamic = _dynamic(graph)
    apart: dict[str, float] = {}
    for part in _parts(graph, [name for node in graph.graph.node for name in node.output if name in dynamic], feeds):
        for name, value in _ask(graph, part, feeds).items():
            if value.dtype.kind == "f" and value.size > 1:
                mine = _sketch(value)
                known = np.array(sizes.get(value.size, ())).reshape(-1, _PROJECTIONS)
                apart[name] = min((_distance(one, mine) for one in known), default=math.inf)
    sound = {name for name, error in apart.items() if error <= tolerance}
    for node in reversed(graph.graph.node):  # what leads on to a sound value is sound
        if sound.intersection(node.output):
            sound.update(name for name in node.input if name)
    for node in graph.graph.node:
        wrong = next((name for name in node.output if name in apart and name not in sound), None)
        if wrong is not None and all(name in sound or name not in apart for name in node.input):
            return _named(graph, node, wrong, apart[wrong])
    return None


def _watched(predict: Any, feeds: Mapping[str, Any]) -> list[tuple[int, Any]]:
    """Size and sketch of every tensor of floats that torch computes while the model runs, in that order."""
    import torch
    from torch.utils import _pytree
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: list[tuple[int, Any]] = []

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            tensors = (one.detach() for one in _pytree.tree_leaves(found) if isinstance(one, torch.Tensor))
            seen.extend(
                (one.numel(), _sketch(one.to(torch.float64).contiguous().numpy()))
                for one in tensors
                if one.is_floating_point() and one.numel() > 1 and one.layout is torch.strided
            )
            return found

    with Watch():  # type: ignore[no-untyped-call]
        predict(feeds)
    return seen


def _parts(graph: ModelProto, names: Sequence[str], feeds: Mapping[str, Any]) -> Iterator[list[str]]:
    """The names in order, in parts that fit into memory together."""
    import onnx

    batch = max((len(one) for one in feeds.values() if one.ndim), default=1)
    known = {
        one.name: math.prod(dim.dim_value or batch for dim in one.type.tensor_type.shape.dim) * 4
        for one in onnx.shape_inference.infer_shapes(graph).graph.value_info
        if one.type.tensor_type.HasField("shape")
    }
    part: list[str] = []
    size = 0
    for name in dict.fromkeys(names):
        taken = known.get(name, _UNKNOWN)
        if part and size + taken > _AT_ONCE:
            yield part
            part, size = [], 0
        part.append(name)
        size += taken
    if part:
        yield part


def _ask(graph: ModelProto, names: Sequence[str], feeds: Mapping[str, Any]) -> dict[str, Any]:
    """What the graph computes under these names, operator by operator as they are written."""
    import numpy as np
    import onnx
    import onnxruntime

    asked = onnx.ModelProto()
    asked.CopyFrom(graph)
    del asked.graph.output[:]
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with blame("not_located", "Looking into the graph"):
        session = onnxruntime.InferenceSession(asked.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(list(names), {one.name: feeds[one.name] for one in session.get_inputs()})
    return {name: one for name, one in zip(names, found, strict=True) if isinstance(one, np.ndarray)}


def _apart(mine: Any, theirs: Any) -> tuple[float, float]:
    """The error of the whole and of the worst channel, relative to the RMS; infinite where they cannot be compared."""
    import numpy as np

    if mine is None or theirs is None or not mine.size:
        return 0.0, 0.0
    if mine.shape != theirs.shape or mine.dtype.kind != theirs.dtype.kind:
        return math.inf, 0.0
    if mine.dtype.kind != "f":
        return float((mine != theirs).mean()), 0.0
    a, b = mine.astype(np.float64), theirs.astype(np.float64)
    sane = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~sane], b[~sane], equal_nan=True):
        return math.inf, 0.0
    channels = ChannelSums(axis=1)
    if a.ndim > 1 and sane.all():
        channels.add(a, b)
    found = worst_channel([channels])
    return Sums().add(a[sane], b[sane]), 0.0 if found is None else found["error"]


def _dynamic(graph: ModelProto) -> set[str]:
    """Names of tensors that depend on the values of an input, not only on its shape."""
    weights = {one.name for one in graph.graph.initializer}
    found = {one.name for one in graph.graph.input} - weights
    for node in graph.graph.node:
        if node.op_type not in _SHAPES and found.intersection(node.input):
            found.update(name for name in node.output if name)
    return found


def _sketch(value: Any) -> Any:
    """Random projections of all values in their order: their distances are those of the arrays, at a fixed size."""
    import numpy as np

    flat = value.astype(np.float64).reshape(-1)
    rows = -(-flat.size // _ROWS)
    padded = np.zeros(rows * _ROWS)
    padded[: flat.size] = flat
    return ((padded.reshape(rows, _ROWS) @ _signs(_ROWS)) * _signs(rows)).sum(axis=0)


@functools.lru_cache(maxsize=64)
def _signs(rows: int) -> Any:
    import numpy as np

    return np.random.default_rng(rows).choice([-1.0, 1.0], (rows, _PROJECTIONS))


def _distance(reference: Any, other: Any) -> float:
    import numpy as np

    norm, off = float(np.linalg.norm(reference)), float(np.linalg.norm(reference - other))
    if not math.isfinite(off):
        return math.inf
    return off / norm if norm else math.inf if off else 0.0


def _named(graph: ModelProto, node: NodeProto, name: str, error: float) -> Json:
    weights = {one.name for one in graph.graph.initializer}
    return {
        "tensor": name[:1000],
        "node": node.name[:1000],
        "op": node.op_type[:1000],
        "error": error if math.isfinite(error) else None,
        "weights": [one[:1000] for one in node.input if one in weights][:8],
    }
