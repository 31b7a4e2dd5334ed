"""What torch's archive formats have in common once loaded: running them on arrays, and both of torch's exporters.

Imported by format files at their functions' call time, in sandbox children only.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.signature import Tensor
from pipeline.trial import Arrays, Predictor, draw


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch from warning about what is done on purpose here: deprecated loaders and exporters, traced constants."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning, UserWarning, torch.jit.TracerWarning):  # type: ignore[attr-defined]
            warnings.simplefilter("ignore", kind)
        try:
            yield
        finally:
            logger.setLevel(level)


def refuse_damage(model: str) -> None:
    """Check every member against its checksum, which torch does not: it would load flipped weights as they are."""
    with blame("not_loadable", "Reading the archive"), zipfile.ZipFile(model) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise Rejected("not_loadable", f"The file is damaged: {damaged} does not match its checksum.")


def predictor(call: Callable[..., Any], names: Sequence[str]) -> Predictor:
    """Run `call` on tensors in the order of `names`, on one thread and without gradients."""
    torch.set_num_threads(1)

    def predict(arrays: Arrays) -> dict[str, Any]:
        with blame("forward_failed", "Running the model"), torch.inference_mode():
            found = call(*(torch.from_numpy(arrays[name]) for name in names))
            return {name: one.detach().contiguous().numpy() for name, one in flat(found)}

    return predict


def flat(found: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors in a model's answer, named by their place in it, or by their key where that is a plain mapping."""
    if isinstance(found, torch.Tensor):
        return [("output", found)]
    if isinstance(found, Mapping) and all(isinstance(one, torch.Tensor) for one in found.values()):
        return [(str(name), one) for name, one in found.items()]
    leaves, _ = torch.utils._pytree.tree_flatten(found)  # noqa: SLF001 - torch.export's own idea of a flat answer
    tensors = [one for one in leaves if isinstance(one, torch.Tensor)]
    if not tensors:
        raise Rejected("no_signature", "The model answers with no tensor.")
    return [(f"output_{index}", one) for index, one in enumerate(tensors)]


def examples(inputs: Sequence[Tensor], batch: int = 2) -> tuple[torch.Tensor, ...]:
    """Ordinary inputs to export with; never a batch of one, which exporters take for a constant."""
    drawn = draw(inputs, batch=batch, kind="normal")
    return tuple(torch.from_numpy(drawn[one.name]) for one in inputs)


def by_tracing(
    module: Any, destination: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], *, opset: int
) -> None:
    """Export with torch's older, TorchScript-based exporter."""
    axes = {
        one.name: {axis: "batch" if axis == 0 else f"{one.name}_{axis}" for axis in _free(one)}
        for one in (*inputs, *outputs)
    }
    with quiet(), blame("conversion_failed", "Export by TorchScript"):
        torch.onnx.export(
            module,
            examples(inputs),
            destination,
            dynamo=False,
            opset_version=opset,
            input_names=[one.name for one in inputs],
            output_names=[one.name for one in outputs],
            dynamic_axes=axes,
        )


def by_dynamo(
    program: torch.export.ExportedProgram,
    destination: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    *,
    opset: int,
) -> None:
    """Export with torch's newer exporter, into one file."""
    with quiet(), blame("conversion_failed", "Export by dynamo"):
        exported = torch.onnx.export(
            program,
            dynamo=True,
            external_data=False,
            opset_version=opset,
            verbose=False,
            input_names=[one.name for one in inputs],
            output_names=[one.name for one in outputs],
        )
        if exported is None:
            raise Rejected("conversion_failed", "The exporter gave nothing back.")
        exported.save(destination)


def dynamic_shapes(inputs: Sequence[Tensor]) -> tuple[dict[int, Any], ...]:
    """The free axes of each input as torch.export wants them; a first axis is one batch for all."""
    batch = torch.export.Dim("batch")
    return tuple({axis: batch if axis == 0 else torch.export.Dim.AUTO for axis in _free(one)} for one in inputs)


def _free(tensor: Tensor) -> list[int]:
    return [axis for axis, size in enumerate(tensor.shape or ()) if size is None]
