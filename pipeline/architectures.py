"""Networks by name: which library builds one, with which arguments, and how weights of a file are put into it.

A name is looked up in the library's own list of models; it is never a path to import from. Nothing is downloaded.
In sandbox children only.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import nn

from pipeline.checkpoints import ready
from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.signature import Answer, Text, shown
from pipeline.stage import Json
from pipeline.torch_models import quiet, widened

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What wrappers put before the names of weights: DataParallel, torch.compile, Lightning."""

_OUTSIDE = frozenset(
    {"weights", "pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
)
"""Arguments by which a builder would load files or fetch them."""

_LISTED = 5


class Architecture(Answer):
    """What a config says of the network: the `library`, the `name` in the library's own list, `arguments` of its builder.

    For transformers the name is that of a model class, and the arguments are its configuration.
    """

    library: Literal["torchvision", "timm", "transformers", "ultralytics"]
    name: Text
    arguments: dict[str, Any] = Field(default_factory=dict)


def declared_architecture(declared: Json) -> Architecture | None:
    """The network that the config names, None where it names none.

    The `config.json` of a model on the Hugging Face Hub, of transformers or timm, is taken as it is.
    """
    config = declared.get("config")
    if not isinstance(config, Mapping):
        return None
    said = config.get("architecture")
    match config:
        case {"architectures": [str(name), *_], "model_type": str()} if said is None:
            said = {"library": "transformers", "name": name, "arguments": dict(config)}
        case {"architecture": str(name), "pretrained_cfg": _}:
            arguments = {key: config[key] for key in ("num_classes", "global_pool") if key in config}
            said = {"library": "timm", "name": name, "arguments": arguments}
    if said is None:
        return None
    try:
        found = Architecture.model_validate(said)
    except ValidationError as error:
        flaws = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise Rejected(
            "invalid_architecture",
            "architecture in the config must give library (torchvision, timm, transformers or ultralytics), name and "
            f"arguments: {flaws}.",
        ) from error
    outside = sorted(_OUTSIDE.intersection(found.arguments))
    if outside:
        raise Rejected(
            "invalid_architecture", f"architecture may not give {', '.join(outside)}: weights come from the file."
        )
    return found


def network(architecture: Architecture, tensors: Mapping[str, torch.Tensor]) -> tuple[nn.Module, list[str]]:
    """The network with these weights, in evaluation mode, and warnings."""
    module = build(architecture)
    tensors, warnings = _without_prefix(tensors, module.state_dict())
    tensors = _with_tied(module, _without_positions(tensors, module.state_dict()))
    match_all(tensors, module.state_dict(), what=f"{architecture.library}'s {architecture.name}")
    with blame("weights_mismatch", "Putting the weights into the network"):
        module.load_state_dict(tensors, strict=True)
    return widened(module), warnings


def build(architecture: Architecture) -> nn.Module:
    """The network with weights that mean nothing yet."""
    ready(architecture.library)
    makers = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers, "ultralytics": _ultralytics}
    with quiet(), blame("invalid_architecture", f"Building {architecture.library}'s {architecture.name}"):
        return makers[architecture.library](architecture)


def decode_answers(module: nn.Module) -> nn.Module:
    """Have the heads of ultralytics answer with decoded predictions alone, as its own exporters do."""
    for head in module.modules():
        if type(head).__module__.startswith("ultralytics.") and hasattr(head, "export"):
            vars(head).update(export=True, format="onnx", dynamic=True)
    return module


def match_all(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], *, what: str) -> None:
    """Raise `Rejected` (`weights_mismatch`) unless both have the same names with the same shapes."""
    missing, unexpected = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    other = [
        f"{name} is {shown(list(tensors[name].shape))}, not {shown(list(one.shape))}"
        for name, one in wanted.items()
        if name in tensors and tensors[name].shape != one.shape
    ]
    said = [
        f"{len(names)} {verb}: {', '.join(names[:_LISTED])}{', …' if len(names) > _LISTED else ''}"
        for verb, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", other))
        if names
    ]
    if said:
        raise Rejected("weights_mismatch", f"The file's weights are not those of {what}: {'; '.join(said)}.")


def _without_prefix(
    tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> tuple[Mapping[str, torch.Tensor], list[str]]:
    for prefix in _PREFIXES:
        bare = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
        if len(bare) == len(tensors) and len(set(bare) & set(wanted)) > len(set(tensors) & set(wanted)):
            return bare, [f"All names of weights begin with {prefix!r}, which was taken off."]
    return tensors, []


def _without_positions(
    tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Older releases of transformers saved the numbers 0, 1, 2, … with the weights; later ones count by themselves."""
    return {
        name: one
        for name, one in tensors.items()
        if name in wanted
        or not name.endswith("position_ids")
        or not torch.equal(one.flatten(), torch.arange(one.numel(), dtype=one.dtype))
    }


def _with_tied(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """A safetensors file keeps one copy of weights that two names share: give the other name its own."""
    groups: dict[int, list[str]] = {}
    for name, one in module.state_dict(keep_vars=True).items():
        groups.setdefault(id(one), []).append(name)
    found = dict(tensors)
    for names in groups.values():
        given = next((name for name in names if name in tensors), None)
        found.update({name: tensors[given] for name in names if given is not None and name not in tensors})
    return found


def _unknown(architecture: Architecture, known: Any) -> Rejected:
    import difflib

    close = difflib.get_close_matches(architecture.name, list(known), n=3)
    hint = f" Close to it: {', '.join(close)}." if close else ""
    return Rejected(
        "invalid_architecture", f"{architecture.library} has no model called {architecture.name[:100]!r}.{hint}"
    )


def _torchvision(architecture: Architecture) -> nn.Module:
    from torchvision import models

    if architecture.name not in models.list_models():
        raise _unknown(architecture, models.list_models())
    builder = models.get_model_builder(architecture.name)
    without = {name: None for name in ("weights", "weights_backbone") if name in inspect.signature(builder).parameters}
    module: nn.Module = builder(**{**without, **architecture.arguments})
    return module


def _timm(architecture: Architecture) -> nn.Module:
    import timm

    if not timm.is_model(architecture.name):
        raise _unknown(architecture, timm.list_models())
    module: nn.Module = timm.create_model(architecture.name, pretrained=False, **architecture.arguments)
    return module


def _transformers(architecture: Architecture) -> nn.Module:
    import transformers
    from transformers.models.auto import modeling_auto

    listed = [value for name, value in vars(modeling_auto).items() if name.endswith("_MAPPING_NAMES")]
    known = {
        name for table in listed for value in table.values() for name in ([value] if isinstance(value, str) else value)
    }
    if architecture.name not in known:
        raise _unknown(architecture, known)
    kind = getattr(transformers, architecture.name)
    config = kind.config_class(**architecture.arguments)
    config.use_cache = False  # a cache of keys is no answer
    module: nn.Module = kind._from_config(config, attn_implementation="eager")  # noqa: SLF001 - AutoModel's own way
    return module


def _ultralytics(architecture: Architecture) -> nn.Module:
    from pathlib import Path

    import ultralytics
    from ultralytics.nn import tasks

    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    known = {path.stem for path in folder.rglob("*.yaml")}
    if re.sub(r"(\d+)([nslmx])(-.+)?$", r"\1\3", architecture.name) not in known:
        raise _unknown(architecture, known)
    layout = tasks.yaml_model_load(f"{architecture.name}.yaml")
    kinds = {
        "detect": tasks.DetectionModel,
        "classify": tasks.ClassificationModel,
        "segment": tasks.SegmentationModel,
        "pose": tasks.PoseModel,
        "obb": tasks.OBBModel,
    }
    kind = kinds[tasks.guess_model_task(layout)]
    module: nn.Module = kind(layout, verbose=False, **architecture.arguments)
    return decode_answers(module)
