"""What torch's formats have in common once loaded: running them on arrays, describing them, and both of torch's exporters.

Imported by format files at their functions' call time, in sandbox children only.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.signature import Inspection, Tensor, class_warnings, declared_shape, example_shape
from pipeline.stage import Json
from pipeline.trial import Arrays, Predictor, draw, settle

DTYPES = ("float32", "int64", "float64")
"""What an input may be where only a trial run can tell, likeliest first."""

_CLASSES = 100_000


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
        with blame("forward_failed", "Running the model"), quiet(), torch.inference_mode():
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


class Network(nn.Module):
    """A module that takes its tensors by position, in the order of `names`, and answers with a tuple of tensors."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(names)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(one for _, one in flat(self.module(**dict(zip(self.names, tensors, strict=True)))))


def widened(module: nn.Module) -> nn.Module:
    """The module with half-precision weights as float32, which changes none of them: CPUs hardly compute in halves."""
    for one in (*module.parameters(), *module.buffers()):
        if one.dtype in (torch.float16, torch.bfloat16):
            one.data = one.data.float()
    return module.eval()


def named_call(module: nn.Module, names: Sequence[str]) -> Callable[..., Any]:
    """The module as a function of tensors in the order of `names`; its answer is left as it is."""
    return lambda *tensors: module(**dict(zip(names, tensors, strict=True)))


def input_names(module: nn.Module, declared: Json) -> list[str]:
    """The arguments of `forward` that are fed: those without default, or those that `input_shape` names."""
    with blame("no_signature", "Reading the signature of forward"):
        known = inspect.signature(module.forward).parameters.values()
    fillable = [one for one in known if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    required = [one.name for one in fillable if one.default is one.empty]
    said = declared.get("input_shape")
    if isinstance(said, Mapping):
        return [one.name for one in fillable if one.name in said or one.name in required]
    if not fillable:
        raise Rejected("no_signature", "forward of the model names none of its inputs.")
    return required or [fillable[0].name]


def explore(
    call: Callable[..., Any],
    names: Sequence[str],
    declared: Json,
    *,
    holder: str,
    exporters: Sequence[str],
    parameters: Iterable[torch.Tensor],
    **known: Any,
) -> Json:
    """The inspection of a model that does not know its input shapes: they must be declared and are tried out.

    `holder` is what the error calls the file; `known` are fields of `Inspection` found elsewhere.
    """
    shapes = {name: declared_shape(declared, name, names) for name in names}
    missing = [name for name, shape in shapes.items() if shape is None]
    if missing:
        form = "[-1, 3, 224, 224]" if len(names) == 1 else '{"' + '": […], "'.join(names) + '": […]}'
        raise Rejected(
            "input_shape_required",
            f"{holder} carries no input shapes. Declare input_shape for {', '.join(missing)}, for example "
            f"{form} (-1 where a size is free), or upload the model as .pt2 or .onnx.",
            inputs=list(names),
        )
    predict = predictor(call, names)
    failures: list[Rejected] = []
    for inputs in _guesses({name: shape or [] for name, shape in shapes.items()}):
        try:
            settled, outputs, forward, learned = settle(predict, inputs, [])
        except Rejected as error:
            if error.code != "forward_failed":
                raise
            failures.append(error)
            continue
        weights = list(parameters)
        return Inspection(
            inputs=settled,
            outputs=outputs,
            parameters=sum(one.numel() for one in weights),
            flops=flops(call, settled),
            warnings=[*known.pop("warnings", ()), *class_warnings(outputs, declared), *learned],
            notes={**dtypes(weights), **known.pop("notes", {})},
            forward=forward,
            exporters=list(exporters),
            **known,
        ).model_dump()
    raise Rejected(
        "shape_mismatch", f"The model does not run on the declared input_shape. {failures[0].message}", declared=shapes
    )


def flops(call: Callable[..., Any], inputs: Sequence[Tensor]) -> int:
    """Operations of matrix products, convolutions and attention in one run on a batch of one; two per multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    with blame("forward_failed", "Counting the model's operations"), quiet(), torch.no_grad():
        counter = FlopCounterMode(display=False)
        with counter:
            call(*examples(inputs, batch=1))
        return int(counter.get_total_flops())


def dtypes(weights: Iterable[torch.Tensor]) -> dict[str, str]:
    """A note on the types of the weights, by number of values: `float32: 74,250, int64: 3`."""
    counted: Counter[str] = Counter()
    for one in weights:
        counted[str(one.dtype).removeprefix("torch.")] += one.numel()
    return {"dtypes": ", ".join(f"{name}: {count:,}" for name, count in counted.most_common())} if counted else {}


def class_names(found: Any) -> list[str]:
    """Class names in the order of the scores, from a list of texts or a table index → name; empty for anything else."""
    if isinstance(found, Mapping) and found and all(str(key).isdecimal() for key in found):
        found = [name for _, name in sorted(found.items(), key=lambda pair: int(pair[0]))]
    if isinstance(found, list | tuple) and len(found) <= _CLASSES and all(isinstance(one, str) for one in found):
        return [one[:1000] for one in found]
    return []


def examples(inputs: Sequence[Tensor], batch: int = 2) -> tuple[torch.Tensor, ...]:
    """Ordinary inputs to export with; never a batch of one, which exporters take for a constant."""
    drawn = draw(inputs, batch=batch, kind="normal")
    return tuple(torch.from_numpy(drawn[one.name]) for one in inputs)


def export_network(
    network: Network,
    destination: str,
    exporter: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    *,
    opset: int,
) -> None:
    """Write a module as ONNX: exported as a program for the newer exporter, or traced for the older one."""
    if exporter == "torchscript":
        by_tracing(network, destination, inputs, outputs, opset=opset)
        return
    with quiet(), blame("conversion_failed", "Exporting the module as a program"):
        program = torch.export.export(network, examples(inputs), dynamic_shapes=(dynamic_shapes(inputs),))
    by_dynamo(program, destination, inputs, outputs, opset=opset)


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


def _guesses(shapes: Mapping[str, list[int | None]]) -> list[list[Tensor]]:
    """What the inputs may be: a first axis of any size before one that was fixed, floats before integers."""
    with_batch = {name: [None, *shape] for name, shape in shapes.items()}
    as_batch = {name: [None, *shape[1:]] for name, shape in shapes.items()}
    flat_ones = any(len(shape) == 1 for shape in shapes.values())
    return [
        [
            Tensor(name=name, dtype=dtype, shape=shape, example=example_shape(shape, dtype, shapes[name]))
            for name, shape in found.items()
        ]
        for dtype in DTYPES
        for found in ([with_batch, as_batch] if flat_ones else [as_batch, with_batch])
    ]
