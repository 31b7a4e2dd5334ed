"""torch.export archives (`.pt2`). Loading one evaluates expressions from the file: only a sandbox child does it."""

from __future__ import annotations

from typing import Any

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats import Format, Glimpse
from pipeline.formats.onnx import EXPORT_OPSET
from pipeline.signature import Inspection, Tensor, class_warnings, declared_shape, example_shape, in_form, matched
from pipeline.stage import Json
from pipeline.trial import Predictor, settle


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Open the program, read its signature, compare it with what was declared and run it once."""
    from pipeline.torch_models import dtypes, flops, refuse_damage

    refuse_damage(model)
    program = _open(model)
    inputs = _inputs(program)
    names = [one.name for one in inputs]
    warnings: list[str] = []
    for index, one in enumerate(inputs):
        wanted = declared_shape(declared, one.name, names)
        warnings += matched(one, wanted)
        example = example_shape(one.shape or [], one.dtype, wanted)
        inputs[index] = one.model_copy(update={"example": example})
    inputs, outputs, forward, learned = settle(_predictor(program), inputs, [])
    return Inspection(
        inputs=inputs,
        outputs=outputs,
        parameters=sum(one.numel() for one in program.parameters()),
        flops=flops(_flat_call(program), inputs),
        notes=dtypes(program.parameters()),
        producer="torch.export",
        warnings=[*warnings, *class_warnings(outputs, declared), *learned],
        forward=forward,
        exporters=["dynamo", "torchscript"],
    ).model_dump()


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Open the program for running on arrays."""
    return _predictor(_open(model))


def export(model: str, destination: str, exporter: str, inputs: Json, outputs: Json, declared: Json) -> Json:
    """Write ONNX with the newer exporter, or trace the program for the older one."""
    import torch

    from pipeline.torch_models import by_dynamo, by_tracing, examples, quiet

    program = _open(model)
    given, wanted = [Tensor.of(one) for one in inputs], [Tensor.of(one) for one in outputs]
    if exporter == "dynamo":
        by_dynamo(program, destination, given, wanted, opset=EXPORT_OPSET)
        return {}
    with quiet(), blame("conversion_failed", "Tracing the exported program"):
        traced = torch.jit.trace(_flat_call(program), examples(given), check_trace=False)  # type: ignore[no-untyped-call]
    by_tracing(traced, destination, given, wanted, opset=EXPORT_OPSET)
    return {}


def _open(model: str) -> Any:
    import torch

    from pipeline.torch_models import quiet

    torch.set_num_threads(1)
    with quiet(), blame("not_loadable", "Opening the torch.export archive"):
        return torch.export.load(model)


def _predictor(program: Any) -> Predictor:
    from pipeline.torch_models import predictor

    return predictor(_flat_call(program), [one.name for one in _inputs(program)])


def _flat_call(program: Any) -> Any:
    """The program as a module that takes its tensors in the order of the signature, whatever nesting it was given."""
    import torch
    from torch.utils import _pytree

    shape = program.call_spec.in_spec

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = program.module(check_guards=False)

        def forward(self, *tensors: torch.Tensor) -> Any:
            positional, named = _pytree.tree_unflatten(tensors, shape)
            return self.program(*positional, **named)

    return Flat()


def _inputs(program: Any) -> list[Tensor]:
    import torch

    found: dict[str, Any] = {one.name: one.meta.get("val") for one in program.graph.nodes if one.op == "placeholder"}
    inputs: list[Tensor] = []
    for name in program.graph_signature.user_inputs:
        value = found.get(name) if isinstance(name, str) else name
        if not isinstance(value, torch.Tensor):
            raise Rejected("unsupported_input", f"The program takes {name!r}, which is no tensor.")
        shape: list[int | None] = [one if isinstance(one, int) else None for one in value.shape]
        inputs.append(Tensor(name=str(name), dtype=str(value.dtype).removeprefix("torch."), shape=shape))
    if not inputs:
        raise Rejected("no_signature", "The program takes no tensor.")
    return inputs


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.holds("models", "model.json") and glimpse.holds("archive_version")


FORMAT = Format(name="pt2", title="torch.export", extensions=(".pt2",), recognises=_recognises, runtime="torch")
