"""TorchScript archives (`torch.jit.save`). The archive is code: it is opened in a sandbox child and nowhere else."""

from __future__ import annotations

from typing import Any

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats import Format, Glimpse
from pipeline.formats.onnx import EXPORT_OPSET
from pipeline.signature import Tensor, in_form
from pipeline.stage import Json
from pipeline.trial import Predictor


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Open the archive and run it once on inputs of the declared shape, which the archive itself does not know."""
    from pipeline.torch_models import explore, refuse_damage

    refuse_damage(model)
    module = _open(model)
    return explore(
        module,
        _input_names(module),
        declared,
        holder="A TorchScript archive",
        exporters=["torchscript", "dynamo"],
        parameters=module.parameters(),
        producer="torch.jit",
    )


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Open the archive for running on arrays."""
    from pipeline.torch_models import predictor

    return predictor(_open(model), [Tensor.of(one).name for one in inputs])


def export(model: str, destination: str, exporter: str, inputs: Json, outputs: Json, declared: Json) -> Json:
    """Write ONNX with the older exporter, or turn the archive into an exported program for the newer one."""
    import torch

    from pipeline.torch_models import by_dynamo, by_tracing, dynamic_shapes, examples, quiet

    module = _open(model)
    given, wanted = [Tensor.of(one) for one in inputs], [Tensor.of(one) for one in outputs]
    if exporter == "torchscript":
        by_tracing(module, destination, given, wanted, opset=EXPORT_OPSET)
        return {}
    with quiet(), blame("conversion_failed", "Turning TorchScript into an exported program"):
        from torch._export.converter import TS2EPConverter

        loose = TS2EPConverter(module, examples(given), {}).convert()
        # The converter leaves every axis free, which litters the graph with shape arithmetic: pin what is fixed.
        program = torch.export.export(
            loose.module(check_guards=False), examples(given), dynamic_shapes=dynamic_shapes(given)
        )
    by_dynamo(program, destination, given, wanted, opset=EXPORT_OPSET)
    return {}


def _open(model: str) -> Any:
    import torch

    from pipeline.torch_models import quiet

    torch.set_num_threads(1)
    with quiet(), blame("not_loadable", "Opening the TorchScript archive"):
        return torch.jit.load(model, map_location="cpu").eval()  # type: ignore[no-untyped-call]


def _input_names(module: Any) -> list[str]:
    with blame("no_signature", "Reading the signature of forward"):
        arguments = module.forward.schema.arguments[1:]
        required = [one for one in arguments if not one.has_default_value()]
        odd = [f"{one.name}: {one.type}" for one in required if str(one.type) != "Tensor"]
    if odd or not required:
        raise Rejected("unsupported_input", f"forward must take tensors only, not {', '.join(odd) or 'nothing'}.")
    return [one.name for one in required]


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.holds("code") and glimpse.holds("data.pkl") and glimpse.holds("constants.pkl")


FORMAT = Format(
    name="torchscript", title="TorchScript", extensions=(".pt", ".pth"), recognises=_recognises, runtime="torch"
)
