"""Opens files of `torch.save` of every age: tensors, plain data and whole modules, never a class of anybody else's.

Archives are loaded by torch's own `weights_only`, told exactly which classes of known frameworks the file may name. It
refuses whole modules saved before 1.6 and all tar files: those are read by an unpickler that finds the same names and no
other. Imported by format files at their functions' call time, in sandbox children only.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import os
import pickle
import sys
import tempfile
import types
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch._weights_only_unpickler import _get_allowed_globals

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.torch_models import class_names, dtypes, quiet, refuse_damage, widened

PACKAGES = (
    "torch.nn",
    "torchvision.models",
    "torchvision.ops",
    "torchvision.transforms",
    "timm.models",
    "timm.layers",
    "transformers",
    "ultralytics.nn",
)
"""Where classes may come from."""

LIBRARIES = {"torchvision": "convert", "timm": "architectures", "transformers": "architectures", "ultralytics": "yolo"}
"""Libraries of networks, and the extra that each is installed with."""

_FUNCTIONS = "relu gelu silu elu selu mish leaky_relu hardswish hardsigmoid softplus softmax tanh sigmoid"
_BESIDE = frozenset(
    {
        ("functools", "partial"),
        *(("torch.nn.functional", name) for name in _FUNCTIONS.split()),
        *(("torch._C._nn", name) for name in ("gelu", "silu")),
        *(("torchvision.ops.boxes", name) for name in ("box_iou", "nms")),
        *(("torchvision.models.detection._utils", name) for name in ("BoxCoder", "Matcher", "SSDMatcher")),
        ("torchvision.models.detection._utils", "BalancedPositiveNegativeSampler"),
        ("torchvision.models.detection.image_list", "ImageList"),
        ("ultralytics.utils", "IterableSimpleNamespace"),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
        *(("numpy", name) for name in ("dtype", "ndarray")),
        *(("pathlib", name) for name in ("PosixPath", "PurePosixPath", "Path")),
    }
)
"""What checkpoints hold of other kinds: activations by name, numbers of numpy, a trainer's settings."""

_WEIGHTS = ("state_dict", "model_state_dict", "ema_state_dict", "model", "ema", "net", "network", "weights", "params")
"""Under which keys training loops keep the weights, likeliest first."""

_NAMES = ("names", "classes", "class_names")
_SAID = ("version", "epoch", "date", "license", "pytorch-lightning_version", "torch_version", "arch")
_WAYS_OUT = (
    "Three ways out: save the model with torch.export.save (.pt2) or torch.onnx.export (.onnx); save it with "
    "torch.jit.script(model).save (.pt); or save model.state_dict() and name the network as architecture in the config."
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds: a whole `module`, or `tensors` by name; class names and short remarks it has besides."""

    module: nn.Module | None = None
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


def open_file(model: str) -> Checkpoint:
    """Load the file, of whatever age, and find the weights in it."""
    found = _load(model)
    if isinstance(found, nn.Module):
        return Checkpoint(notes=dtypes(found.parameters()), module=widened(found))
    if not isinstance(found, Mapping):
        raise Rejected("no_weights", f"The file holds {_kind(found)}, neither a network nor named tensors.")
    classes = next((names for key in _NAMES if (names := class_names(found.get(key)))), [])
    notes = {key: str(found[key])[:200] for key in _SAID if isinstance(found.get(key), str | int | float)}
    held = found if _is_state(found) else _weights_in(found)
    if isinstance(held, nn.Module):
        return Checkpoint(notes={**notes, **dtypes(held.parameters())}, module=widened(held), classes=classes)
    return Checkpoint(tensors=dict(held), classes=classes, notes=notes)


def define_missing_operators() -> None:
    """Make torchvision importable beside a torch that its native part was not built for: it asks for two operators.

    They are declared without code; where the native part does load, nothing is changed.
    """
    if "torchvision" in sys.modules or _KEPT:
        return
    spec = importlib.util.find_spec("torchvision")
    for folder in () if spec is None else spec.submodule_search_locations or ():
        try:
            torch.ops.load_library(f"{folder}/_C.so")  # type: ignore[no-untyped-call]
        except OSError:
            library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
            _KEPT.append(library)


_KEPT: list[Any] = []
"""A library of operators lives as long as the object that declared it."""


def _load(model: str) -> Any:
    torch.set_num_threads(1)
    if not zipfile.is_zipfile(model):
        with quiet(), blame("not_loadable", "Loading the checkpoint"):
            return torch.load(model, map_location="cpu", weights_only=False, pickle_module=_NAMED_ONLY)
    refuse_damage(model)
    with blame("not_loadable", "Reading the names in the checkpoint"):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(model)
    safe: list[Any] = [(_find(*name.rpartition(".")[::2]), name) for name in sorted(names)]
    with quiet(), torch.serialization.safe_globals(safe), blame("not_loadable", "Loading the checkpoint"):
        return torch.load(model, map_location="cpu", weights_only=True)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What torch's `weights_only` knows by itself, else what a file may name besides."""
        known, module = _get_allowed_globals(), "builtins" if module == "__builtin__" else module
        return known[f"{module}.{name}"] if f"{module}.{name}" in known else _find(module, name)


_NAMED_ONLY = types.SimpleNamespace(
    __name__="pickle", Unpickler=_Unpickler, load=lambda stream, **options: _Unpickler(stream, **options).load()
)
"""What `torch.load` takes for a pickle module."""


def _find(module: str, name: str) -> Any:
    """The class or function that a file names; `Rejected` (`foreign_class`) unless it is one of a known framework."""
    package = next((one for one in PACKAGES if module == one or module.startswith(f"{one}.")), None)
    if package is None and (module, name) not in _BESIDE and module != "numpy.dtypes":
        raise Rejected(
            "foreign_class", f"The file needs {module}.{name}, which is no class of a known framework. {_WAYS_OUT}"
        )
    library = module.partition(".")[0]
    if library in LIBRARIES:
        ready(library)
    with quiet(), blame("foreign_class", f"Importing {module}.{name}, which the file needs,"):
        found = getattr(importlib.import_module(module), name)
    if (module, name) not in _BESIDE and not (isinstance(found, type) and _belongs_to_a_network(found)):
        raise Rejected("foreign_class", f"The file needs {module}.{name}, which is no class of a network. {_WAYS_OUT}")
    return found


def _belongs_to_a_network(kind: type) -> bool:
    plain = issubclass(kind, nn.Module | nn.Parameter | enum.Enum) or kind.__module__ == "numpy.dtypes"
    return plain or any(one.__name__ in ("PreTrainedConfig", "PretrainedConfig") for one in kind.__mro__)


def ready(library: str) -> None:
    """Prepare the environment for importing a library of networks; `Rejected` (`library_missing`) where it is absent."""
    if importlib.util.find_spec(library) is None:
        raise Rejected(
            "library_missing",
            f"The model needs {library}, which is not installed on the workers (extra '{LIBRARIES[library]}'). {_WAYS_OUT}",
        )
    place = tempfile.gettempdir()
    for name, value in {
        **dict.fromkeys(("HF_HOME", "MPLCONFIGDIR", "YOLO_CONFIG_DIR"), place),
        **dict.fromkeys(("HF_HUB_OFFLINE", "YOLO_OFFLINE"), "1"),
        **dict.fromkeys(("YOLO_AUTOINSTALL", "YOLO_VERBOSE"), "false"),
    }.items():
        os.environ.setdefault(name, value)
    define_missing_operators()


def _is_state(found: Mapping[Any, Any]) -> bool:
    return bool(found) and all(isinstance(key, str) for key in found) and all(_is_tensor(one) for one in found.values())


def _is_tensor(found: Any) -> bool:
    return isinstance(found, torch.Tensor)


def _weights_in(found: Mapping[Any, Any]) -> Any:
    candidates = {
        key: one
        for key, one in found.items()
        if isinstance(one, nn.Module) or (isinstance(one, Mapping) and _is_state(one))
    }
    for key in (*_WEIGHTS, *candidates):
        if key in candidates:
            return candidates[key]
    keys = ", ".join(str(key)[:50] for key in list(found)[:10])
    raise Rejected("no_weights", f"The file holds a table of {keys or 'nothing'}, in which no weights are found.")


def _kind(found: Any) -> str:
    return f"a {type(found).__name__}" if not isinstance(found, torch.Tensor) else "one tensor without a name"
