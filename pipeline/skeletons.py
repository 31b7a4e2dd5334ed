"""Networks that come as a file without their weights: a `.pt2` or ONNX skeleton, filled from named tensors.

In sandbox children only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from pipeline.architectures import match_all
from pipeline.checkpoints import open_file
from pipeline.foreign import blame
from pipeline.torch_models import quiet


def fill(skeleton: str, tensors: Mapping[str, torch.Tensor], destination: str) -> None:
    """Write to `destination`, in the form of the skeleton, the network with these weights.

    Every weight of the skeleton must be given, by its name and in its shape, and nothing else. Of an ONNX skeleton the
    weights are its initializers of floating point; what else is constant in it may be given or stays.
    """
    with Path(skeleton).open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"
    (_fill_program if zipped else _fill_graph)(skeleton, tensors, destination)


def read_tensors(weights: str) -> Mapping[str, torch.Tensor]:
    """The named tensors of a `.safetensors` file or of a checkpoint that holds no module."""
    if weights.endswith(".safetensors"):
        from safetensors.torch import load_file

        with blame("not_loadable", "Reading the tensors"):
            tensors: Mapping[str, torch.Tensor] = load_file(weights)
        return tensors
    found = open_file(weights)
    return found.tensors if found.module is None else found.module.state_dict()


def _fill_program(skeleton: str, tensors: Mapping[str, torch.Tensor], destination: str) -> None:
    with quiet(), blame("not_loadable", "Opening the skeleton"):
        program = torch.export.load(skeleton)
    match_all(tensors, program.state_dict, what="the skeleton")
    with quiet(), blame("weights_mismatch", "Filling the skeleton"):
        for name, one in program.state_dict.items():
            one.data.copy_(tensors[name])
        torch.export.save(program, destination)


def _fill_graph(skeleton: str, tensors: Mapping[str, torch.Tensor], destination: str) -> None:
    import onnx
    from onnx import numpy_helper

    with blame("not_loadable", "Opening the skeleton"):
        proto = onnx.load_model(skeleton)
        held = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in proto.graph.initializer}
    floats = {name: one for name, one in held.items() if one.is_floating_point()}
    match_all(tensors, {**floats, **{name: one for name, one in held.items() if name in tensors}}, what="the skeleton")
    for one in proto.graph.initializer:
        if one.name in tensors:
            given = tensors[one.name].to(held[one.name].dtype)
            one.CopyFrom(numpy_helper.from_array(given.contiguous().numpy(), one.name))
    onnx.save_model(proto, destination)
