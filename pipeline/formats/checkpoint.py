"""Files of `torch.save`: a whole module, or the weights of one. Opened in a sandbox child, with named classes only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.formats import Format, Glimpse
from pipeline.formats.onnx import EXPORT_OPSET
from pipeline.signature import Inspection, Tensor, in_form
from pipeline.stage import Json
from pipeline.trial import Predictor

if TYPE_CHECKING:
    import torch

READ_AS = ("torch", "tensors")
"""An archive of torch's with or without tensors, or tensors in the files that it wrote before."""

_LISTED = 1000
_MAGIC = re.compile(rb"\x80[\x02-\x05](?:\x95.{8})?\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", re.DOTALL)
_TAR = b"ustar", 257
_MEMBERS = (b"sys_info\0", b"pickle\0", b"storages\0", b"tensors\0")
_LIBRARIES = {"timm": b"ctimm.", "transformers": b"ctransformers."}

UNSERVABLE = (
    "The file holds weights without the network that uses them: it is stored and described, not served. To serve the "
    "model, name the network as architecture in the config (library, name, arguments), or upload the model as .onnx "
    "(torch.onnx.export) or .pt2 (torch.export.save)."
)


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Describe the network and run it on the declared shapes; list the weights where there is no network."""
    from pipeline.checkpoints import open_file

    found = open_file(model)
    if found.module is not None:
        return inspect_module(
            found.module,
            declared,
            holder="A pickled module",
            producer="torch.save",
            classes=found.classes,
            notes=found.notes,
        )
    return inspect_weights(
        found.tensors, declared, producer="torch.save", classes=found.classes, notes=found.notes, warnings=[]
    )


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Build the network for running on arrays."""
    from pipeline.torch_models import named_call, predictor

    names = [Tensor.of(one).name for one in inputs]
    return predictor(named_call(_module(model, declared), names), names)


def export(model: str, destination: str, exporter: str, inputs: Json, outputs: Json, declared: Json) -> Json:
    """Write ONNX with the newer exporter, or trace the network for the older one."""
    return export_module(_module(model, declared), destination, exporter, inputs, outputs)


def inspect_module(module: Any, declared: Json, *, holder: str, **known: Any) -> Json:
    """The inspection of a module in evaluation mode; `known` are fields of `Inspection` found elsewhere."""
    from pipeline.torch_models import explore, input_names, named_call

    names = input_names(module, declared)
    return explore(
        named_call(module, names),
        names,
        declared,
        holder=holder,
        exporters=["dynamo", "torchscript"],
        parameters=module.parameters(),
        **known,
    )


def inspect_weights(tensors: Mapping[str, torch.Tensor], declared: Json, **known: Any) -> Json:
    """The inspection of named tensors: of the network where the config names one, else a list."""
    from pipeline.architectures import declared_architecture, network
    from pipeline.torch_models import class_names, dtypes

    architecture = declared_architecture(declared)
    if architecture is not None:
        module, warnings = network(architecture, tensors)
        notes = {
            **dtypes(tensors.values()),
            **known.pop("notes"),
            "architecture": f"{architecture.library} {architecture.name}",
        }
        known["warnings"] = [*known["warnings"], *warnings]
        known["classes"] = known["classes"] or class_names(architecture.arguments.get("id2label"))
        return inspect_module(module, declared, holder="A file of weights", notes=notes, **known)
    listed = [
        Tensor(name=name[:1000], dtype=str(one.dtype).removeprefix("torch."), shape=list(one.shape))
        for name, one in list(tensors.items())[:_LISTED]
    ]
    if len(tensors) > _LISTED:
        known["warnings"] = [*known["warnings"], f"{len(tensors)} tensors, of which {_LISTED} are listed."]
    return Inspection(
        tensors=listed,
        parameters=sum(one.numel() for one in tensors.values()),
        unservable=UNSERVABLE,
        notes={**dtypes(tensors.values()), **known.pop("notes")},
        **known,
    ).model_dump()


def export_module(module: Any, destination: str, exporter: str, inputs: Json, outputs: Json) -> Json:
    """Write a module as ONNX by one of torch's exporters."""
    from pipeline.torch_models import Network, export_network

    given, wanted = [Tensor.of(one) for one in inputs], [Tensor.of(one) for one in outputs]
    network = Network(module, [one.name for one in given]).eval()
    export_network(network, destination, exporter, given, wanted, opset=EXPORT_OPSET)
    return {}


def names_architecture(declared: Mapping[str, Json]) -> bool:
    """Whether the config names a network, in our form or as the config.json of a library."""
    config = declared.get("config")
    return isinstance(config, Mapping) and ("architecture" in config or {"architectures", "model_type"} <= set(config))


def needs(glimpse: Glimpse, declared: Mapping[str, Json]) -> str | None:
    """The extra whose libraries a file of weights or a whole module takes."""
    config = declared.get("config")
    said = config.get("architecture") if isinstance(config, Mapping) else None
    library = said.get("library") if isinstance(said, Mapping) else None
    if library == "ultralytics":
        return "yolo"
    hub = said is None and names_architecture(
        declared
    )  # what is said in no form of ours is refused without any library
    pickled = any(name in glimpse.head for name in _LIBRARIES.values())
    return "architectures" if library in _LIBRARIES or hub or pickled else None


def is_checkpoint(glimpse: Glimpse) -> bool:
    """Whether the content is what `torch.save` writes now, wrote before 1.6, or wrote before 0.1.10."""
    if glimpse.holds("data.pkl"):
        return not glimpse.holds("code") and not glimpse.holds("models", "model.json")
    magic, at = _TAR
    tar = glimpse.head.startswith(magic, at) and glimpse.head.startswith(_MEMBERS)
    return tar or _MAGIC.match(glimpse.head) is not None


def is_yolo(glimpse: Glimpse) -> bool:
    """Whether the pickle at the head names networks of ultralytics."""
    return is_checkpoint(glimpse) and b"cultralytics.nn." in glimpse.head


def _module(model: str, declared: Json) -> torch.nn.Module:
    from pipeline.architectures import declared_architecture, network
    from pipeline.checkpoints import open_file
    from pipeline.errors import Rejected

    found = open_file(model)
    if found.module is not None:
        return found.module
    architecture = declared_architecture(declared)
    if architecture is None:
        raise Rejected("unservable", UNSERVABLE)
    return network(architecture, found.tensors)[0]


def _recognises(glimpse: Glimpse) -> bool:
    return is_checkpoint(glimpse) and not is_yolo(glimpse)


FORMAT = Format(
    name="checkpoint",
    title="PyTorch checkpoint",
    extensions=(".pt", ".pth"),
    recognises=_recognises,
    extra=needs,
    runtime="torch",
    read_as=READ_AS,
)
