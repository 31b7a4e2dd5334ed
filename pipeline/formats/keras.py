"""Keras models (`.keras` archives, `.h5` files of whole models), opened by Keras 3 on torch in a sandbox child."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats import Format, Glimpse
from pipeline.formats.onnx import EXPORT_OPSET
from pipeline.signature import Inspection, Tensor, class_warnings, declared_shape, example_shape, in_form, matched
from pipeline.stage import Json
from pipeline.trial import Predictor, settle

_HDF5 = b"\x89HDF\r\n\x1a\n"
_OWN = ("keras", "builtins")
_MODELS = ("Functional", "Model", "Sequential")
_NO_NETWORK = (
    "The file holds weights without the network that uses them: it is stored and described, not served. To serve the "
    "model, save all of it: model.save('model.keras')."
)


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Open the model, read its signature, compare it with what was declared and run it once."""
    config, version = _config(model)
    if config is None:
        return _weights(model)
    _refuse_foreign(config)
    network = _open(model)
    with blame("no_signature", "Reading what the model takes"):
        inputs, warnings = _inputs(network, declared), list[str]()
    names = [one.name for one in inputs]
    for one in inputs:
        warnings += matched(one, declared_shape(declared, one.name, names))
    inputs, outputs, forward, learned = settle(_predictor(network, names), inputs, [])
    with blame("forward_failed", "Counting what the model computes"):
        flops, layers = _flops(network, inputs), list(network._flatten_layers(include_self=False))  # noqa: SLF001 - nested ones flattened, as its summary does
    return Inspection(
        inputs=inputs,
        outputs=outputs,
        parameters=network.count_params(),
        flops=flops,
        notes={"layers": str(len(layers)), **({"keras": version} if version else {})},
        producer=f"Keras {version}" if version else "Keras",
        warnings=[*warnings, *class_warnings(outputs, declared), *learned],
        forward=forward,
        exporters=["dynamo", "torchscript"],
    ).model_dump()


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Open the model for running on arrays."""
    return _predictor(_open(model), [Tensor.of(one).name for one in inputs])


def export(model: str, destination: str, exporter: str, inputs: Json, outputs: Json, declared: Json) -> Json:
    """Write ONNX with torch's newer exporter, or with its older one."""
    import torch

    from pipeline.torch_models import by_dynamo, by_tracing, dynamic_shapes, examples, quiet

    given, wanted = [Tensor.of(one) for one in inputs], [Tensor.of(one) for one in outputs]
    module = _module(_open(model), [one.name for one in given])
    if exporter == "torchscript":
        by_tracing(module, destination, given, wanted, opset=EXPORT_OPSET)
        return {}
    with quiet(), blame("conversion_failed", "Turning the network into an exported program"):
        shapes = (dynamic_shapes(given),)  # one for the module's starred argument, which holds all
        program = torch.export.export(module, examples(given), dynamic_shapes=shapes)
    by_dynamo(program, destination, given, wanted, opset=EXPORT_OPSET)
    return {}


def _open(model: str) -> Any:
    """The network, without its optimiser. Never with custom objects and never out of safe mode."""
    import h5py

    keras = _keras()
    from pipeline.torch_models import quiet

    with quiet(), blame("not_loadable", "Opening the model in Keras"):
        if _is_hdf5(model):  # Keras goes by the name of the file, which says nothing here
            from keras.src.legacy.saving import legacy_h5_format

            with h5py.File(model, "r") as file:
                network = legacy_h5_format.load_model_from_hdf5(file, compile=False, safe_mode=True)
        else:
            from keras.src.saving import saving_lib

            network = saving_lib.load_model(model, compile=False, safe_mode=True)
    if not isinstance(network, keras.Model):
        raise Rejected("not_loadable", f"The file holds a {type(network).__name__}, not a model.")
    network.trainable = False
    return network


def _keras() -> Any:
    """Keras on torch. It is not to find TensorFlow while it is imported; some layers still ask for it later."""
    import os
    import sys

    os.environ["KERAS_BACKEND"] = "torch"
    hidden = "keras" not in sys.modules and "tensorflow" not in sys.modules
    if hidden:
        sys.modules["tensorflow"] = None  # type: ignore[assignment] # Python's own way to say that there is none
    import keras
    import torch

    if hidden:
        del sys.modules["tensorflow"]  # Keras asks later whether the name is there, and takes it for the real thing
    torch.set_num_threads(1)
    if keras.backend.backend() != "torch":
        raise RuntimeError("Keras was imported before its backend could be chosen")
    return keras


def _module(network: Any, names: list[str]) -> Any:
    """The network as a module that takes its tensors in the order of `names`."""
    import torch

    wanted = [one.name for one in network.inputs]

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *tensors: torch.Tensor) -> Any:
            given = dict(zip(names, tensors, strict=True))
            ordered = [given[name] for name in wanted]
            return self.network(ordered if len(ordered) > 1 else ordered[0], training=False)

    return Flat().eval()


def _predictor(network: Any, names: list[str]) -> Predictor:
    from pipeline.torch_models import predictor

    return predictor(_module(network, names), names)


def _inputs(network: Any, declared: Mapping[str, Json]) -> list[Tensor]:
    found = getattr(network, "inputs", None)
    if not found or not getattr(network, "built", False):
        raise Rejected(
            "no_signature",
            "The model was saved without knowing what it takes. Give it an Input layer, or call it once before saving.",
        )
    names = [one.name for one in found]
    inputs = []
    for one in found:
        shape = [None if size is None else int(size) for size in one.shape]
        wanted = declared_shape(declared, one.name, names)
        dtype = str(one.dtype)
        inputs.append(Tensor(name=one.name, dtype=dtype, shape=shape, example=example_shape(shape, dtype, wanted)))
    return inputs


def _flops(network: Any, inputs: list[Tensor]) -> int:
    """Two for each multiplication and addition in products and convolutions, for a batch of one."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pipeline.torch_models import examples, quiet

    with quiet(), FlopCounterMode(display=False) as counter, torch.no_grad():
        _module(network, [one.name for one in inputs])(*examples(inputs, batch=1))
    return int(counter.get_total_flops())


def _weights(model: str) -> Json:
    """What a file of weights alone holds."""
    import h5py

    tensors: list[Tensor] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            tensors.append(Tensor(name=name[:1000], dtype=str(item.dtype), shape=list(item.shape)))

    with blame("not_loadable", "Reading the HDF5 file"), h5py.File(model, "r") as file:
        file.visititems(note)
    warnings = [f"{len(tensors)} tensors, of which 1000 are listed."] if len(tensors) > 1000 else []
    return Inspection(
        tensors=tensors[:1000],
        parameters=sum(_size(one) for one in tensors),
        producer="Keras",
        warnings=warnings,
        unservable=_NO_NETWORK,
    ).model_dump()


def _size(tensor: Tensor) -> int:
    import math

    return math.prod(one or 0 for one in tensor.shape or ())


def _config(model: str) -> tuple[Any, str | None]:
    """The network's description and the version of Keras that wrote it; None where a file holds weights only."""
    import json
    import zipfile

    import h5py

    with blame("not_loadable", "Reading the model's description"):
        if _is_hdf5(model):
            with h5py.File(model, "r") as file:
                text, version = file.attrs.get("model_config"), file.attrs.get("keras_version")
                return None if text is None else json.loads(text), None if version is None else str(version)[:100]
        with zipfile.ZipFile(model) as archive:
            about = json.loads(archive.read("metadata.json"))
            return json.loads(archive.read("config.json")), str(about.get("keras_version", ""))[:100] or None


def _refuse_foreign(config: Any) -> None:
    """Name what is not Keras' own: such objects are code that is not in the file."""
    keras = _keras()
    for entry in _entries(config):
        name, module = str(entry["class_name"])[:200], entry.get("module", "")
        if module:
            own = str(module).partition(".")[0] in _OWN
        else:  # None stands for "registered by somebody", nothing for the older form, whose layers were all Keras'
            own = module is not None and (hasattr(keras.layers, name) or name in _MODELS)
        if name == "Lambda":
            raise Rejected(
                "custom_objects",
                "The model has a Lambda layer, which holds Python code and is never run. Replace it by built-in layers or "
                "operations of keras.ops.",
            )
        if not own:
            raise Rejected(
                "custom_objects",
                f"The model uses {name}, which is not part of Keras: its code is not in the file. Build the model of "
                "Keras' own layers, or upload it as .onnx.",
                custom=name,
            )


def _entries(config: Any) -> Iterator[dict[str, Any]]:
    """Every description of an object in a config: those with a module, and layers in the older form without one."""
    waiting = [config]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "class_name" in one and "module" in one:
                yield one
            if isinstance(one.get("layers"), list):
                yield from (
                    entry
                    for entry in one["layers"]
                    if isinstance(entry, dict) and "class_name" in entry and "module" not in entry
                )
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _is_hdf5(model: str) -> bool:
    with open(model, "rb") as stream:  # noqa: PTH123 - a path that travelled as text
        return stream.read(len(_HDF5)) == _HDF5


def _recognises(glimpse: Glimpse) -> bool:
    archive = all(one in glimpse.members for one in ("config.json", "metadata.json", "model.weights.h5"))
    return archive or glimpse.head.startswith(_HDF5)


FORMAT = Format(name="keras", title="Keras", extensions=(".keras", ".h5", ".hdf5"), recognises=_recognises)
