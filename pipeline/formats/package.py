"""Packages: a `.zip` with exactly one model of another format, and what belongs to it. Opened only in a sandbox child.

Content decides which file is the model, not a listing: there is one, or a skeleton and the weights for it.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline import extras
from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats import Format, Glimpse, discover, find, glimpse_of
from pipeline.formats.onnx import stored_tensors
from pipeline.formats.saved_model import MODEL as SAVED_MODEL
from pipeline.formats.saved_model import belongs
from pipeline.signature import in_form
from pipeline.stage import Json, with_packed
from pipeline.trial import Predictor
from pipeline.unpacking import unpack, within

CONFIG = "config.json"

_SKELETONS, _WEIGHTS = ("onnx", "pt2"), ("checkpoint", "safetensors")
_LONGEST_CONFIG = 256 << 10
_LARGEST_ONNX = (2 << 30) - (1 << 20)
"""Bytes: protobuf holds no message of 2 GiB, and what is made here is one message."""

_SIDES = {
    "requirements": ("requirements.txt", "requirements.yaml", "requirements.yml"),
    "calibration": ("calibration.npz",),
    "card": ("readme.md",),
}
_LICENCES = ("license", "licence", "copying")
_LEFT = {"requirements": "requirements", "calibration": "calibration.npz", "card": "card.md"}
"""How side files are called in the working folder, by role."""

_FOLDER = Glimpse(head=b"", tail=b"", size=0)


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Find the model, have its own format inspect it, and leave the package's side files in the working folder."""
    package = _open(model, declared)
    found: dict[str, Any] = package.call("inspect")
    for role, path in package.sides.items():
        shutil.copyfile(path, _LEFT[role])
    return {
        **found,
        "unservable": found["unservable"] or package.form.why_unservable(package.declared),
        "config": package.config,
        "packed": {role: _LEFT[role] for role in package.sides},
        "notes": {**found["notes"], **package.notes},
        "warnings": [*found["warnings"], *package.warnings],
    }


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Open the model in the package as its own format does."""
    predict: Predictor = _open(model, declared).call("load", inputs=inputs)
    return predict


def export(model: str, destination: str, exporter: str, inputs: Json, outputs: Json, declared: Json) -> Json:
    """Write the model in the package as ONNX as its own format does."""
    package = _open(model, declared)
    return package.call("export", destination=destination, exporter=exporter, inputs=inputs, outputs=outputs)


@dataclass(frozen=True, kw_only=True)
class _Package:
    """One model, as the path that its format's functions take, and what lies beside it.

    `declared` is what the uploader said filled up with `config`, the package's own. `sides` go by role.
    """

    form: Format
    model: Path
    declared: dict[str, Json]
    config: str | None
    sides: Mapping[str, Path]
    notes: Mapping[str, str]
    warnings: Sequence[str]

    def call(self, function: str, **arguments: Json) -> Any:
        """What the function of that name of the model's own format answers."""
        module = importlib.import_module(self.form.function("").rstrip(":"))
        return getattr(module, function)(model=str(self.model), declared=self.declared, **arguments)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A file or folder that is a model."""

    form: Format
    path: Path


def _open(archive: str, declared: Mapping[str, Json]) -> _Package:
    """Unpack the archive, find the model and make one file of it. Raises `Rejected`."""
    root = unpack(archive)
    top = _top(root)
    config = next((path for path in top.glob("*") if path.name.lower() == CONFIG), None)
    text = None if config is None else _text(config)
    said = with_packed(declared, _settings(text))
    model, weights = _chosen(top, list(_candidates(root)), said)
    taken = {model.path, *([weights.path] if weights else []), *([config] if config else [])}
    notes = {"package": f"{model.form.title} ({_shown(top, model.path)})"}
    path = model.path
    if model.form.name == "onnx":
        path, parts = _one_file(root, path)
        taken |= parts
    if weights is not None:
        notes["package"] += f", filled from {_shown(top, weights.path)}"
        path = _filled(path, weights.path)
    _require(model.form, path, said)
    rest = [one for one in sorted(root.rglob("*")) if one.is_file() and not _is_part(one, taken)]
    sides = {
        role: one for role, names in _SIDES.items() for one in rest if one.parent == top and one.name.lower() in names
    }
    licence = next((one for one in rest if one.stem.lower() in _LICENCES), None)
    beside = [_shown(top, one) for one in rest if one not in sides.values() and one != licence]
    if licence is not None:
        notes["licence file"] = _shown(top, licence)
    if beside:
        notes["beside the model"] = f"{len(beside)} files: {', '.join(beside)}"[:1000]
    unread = [one.name for one in rest if one.parent == top and one.stem.lower() == "config"]
    return _Package(
        form=model.form,
        model=path,
        declared=said,
        config=text,
        sides=sides,
        notes=notes,
        warnings=[f"{name} is kept and not read: settings of a package are read from {CONFIG}." for name in unread],
    )


def _candidates(root: Path) -> Iterator[_Candidate]:
    """Everything that some format knows by its name and its content."""
    saved = {path.parent for path in root.rglob(SAVED_MODEL)}
    for folder in sorted(saved):
        yield _Candidate(form=find("saved_model"), path=folder)
    for path in sorted(root.rglob("*")):
        if not path.is_file() or _is_part(path, saved):
            continue
        fitting = [one for one in discover() if path.suffix.lower() in one.extensions and one.name != "package"]
        glimpse = glimpse_of(path) if fitting else _FOLDER
        yield from [_Candidate(form=one, path=path) for one in fitting if one.recognises(glimpse)][:1]


def _chosen(top: Path, found: Sequence[_Candidate], declared: Json) -> tuple[_Candidate, _Candidate | None]:
    """The model, and the weights where it is a skeleton without its own. Of several the config may name one."""
    if len(found) == 1:
        return found[0], None
    wanted = (declared.get("config") or {}).get("model")
    named = [one for one in found if wanted is None or _shown(top, one.path) == str(wanted).rstrip("/")]
    skeletons = [one for one in named if one.form.name in _SKELETONS]
    weights = [one for one in named if one.form.name in _WEIGHTS]
    if len(named) == 1:
        return named[0], None
    if len(named) == 2 and len(skeletons) == len(weights) == 1:
        return skeletons[0], weights[0]
    if not named:
        what = f"the config names {wanted!r}, which is none" if wanted is not None else "there is none"
        raise Rejected("no_model", f"A package needs a model of a format that is known here: {what}.")
    listed = [f"{_shown(top, one.path)} ({one.form.title})" for one in named]
    raise Rejected(
        "several_models",
        f"The package holds {len(listed)} models: {', '.join(listed[:10])}. Pack one, or name the one to take as "
        "`model` in the config.",
        found=listed[:100],
    )


def _one_file(root: Path, model: Path) -> tuple[Path, set[Path]]:
    """The ONNX model with all its weights inside, and the files from which these came."""
    import onnx
    from onnx import external_data_helper

    with blame("not_loadable", f"Reading {model.name} as ONNX"):
        proto = onnx.load_model(str(model), load_external_data=False)
    outside = [one for one in stored_tensors(proto) if one.data_location == onnx.TensorProto.EXTERNAL]
    if not outside:
        return model, set()
    parts = {within(root, model.parent, external_data_helper.ExternalDataInfo(one).location) for one in outside}
    size = model.stat().st_size + sum(part.stat().st_size for part in parts)
    if size > _LARGEST_ONNX:
        raise Rejected("too_large", f"The model and its external data are {size:,} bytes; {_LARGEST_ONNX:,} may be.")
    for one in outside:
        _check_range(external_data_helper.ExternalDataInfo(one), one.name, model.parent)
    with blame("not_loadable", "Reading the external data"):
        for one in outside:
            external_data_helper.load_external_data_for_tensor(one, str(model.parent))
            one.data_location = onnx.TensorProto.DEFAULT
            del one.external_data[:]
        whole = root.with_name(f"{root.name}-whole.onnx")
        onnx.save_model(proto, str(whole))
    return whole, parts


def _check_range(info: Any, name: str, base: Path) -> None:
    size, start = (base / info.location).stat().st_size, info.offset or 0
    length = size - start if info.length is None else info.length
    if start < 0 or length < 0 or start + length > size:
        raise Rejected("external_data", f"Weight {name[:200]} lies outside its data file {info.location[:200]!r}.")


def _filled(skeleton: Path, weights: Path) -> Path:
    from pipeline.skeletons import fill, read_tensors

    whole = skeleton.with_name(f"filled-{skeleton.name}")
    fill(str(skeleton), read_tensors(str(weights)), str(whole))
    return whole


def _require(form: Format, model: Path, declared: Json) -> None:
    """Raises `Rejected`: that this worker has it should have been known from the names in the package."""
    needed = form.needs(glimpse_of(model) if model.is_file() else _FOLDER, declared)
    if needed is not None and extras.missing(needed):
        raise Rejected(
            "converter_missing",
            f"The package holds a {form.title} file, which takes the extra '{needed}'. Upload that file by itself: its "
            "run then waits for a worker that has it.",
            extra=needed,
        )


def _settings(text: str | None) -> dict[str, Json]:
    """What a config says that an uploader could have declared."""
    if text is None:
        return {}
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected("invalid_config", f"{CONFIG} in the package is no JSON: {error}.") from error
    if not isinstance(config, dict):
        raise Rejected("invalid_config", f"{CONFIG} in the package is no JSON object.")
    return {"config": config, **{name: config[name] for name in ("input_shape", "classes") if name in config}}


def _text(path: Path) -> str:
    content = path.read_bytes()
    if len(content) > _LONGEST_CONFIG:
        raise Rejected(
            "invalid_config", f"{CONFIG} in the package has {len(content):,} bytes; {_LONGEST_CONFIG:,} may be."
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Rejected("invalid_config", f"{CONFIG} in the package is no UTF-8 text.") from error


def _top(root: Path) -> Path:
    """The folder that holds everything, or the one in it where that is all there is."""
    inside = list(root.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else root


def _is_part(path: Path, models: Collection[Path]) -> bool:
    """Whether the file is one of these, or belongs to a SavedModel among them."""
    inside = (str(path.relative_to(one)) for one in models if path != one and path.is_relative_to(one))
    return path in models or any(belongs(name) for name in inside)


def _shown(top: Path, path: Path) -> str:
    return str(path.relative_to(top)) if path.is_relative_to(top) else path.name


def _needs(glimpse: Glimpse, declared: Mapping[str, Json]) -> str | None:
    """The extra of the one format that the names in the package speak for; None where they leave that open."""
    if any(PurePosixPath(name).name == SAVED_MODEL for name in glimpse.members):
        return "tensorflow"
    suffixes = {PurePosixPath(name).suffix.lower() for name in glimpse.members} - {".zip"}
    needed = {one.needs(glimpse, declared) for one in discover() if suffixes & set(one.extensions)}
    return needed.pop() if len(needed) == 1 else None


def _recognises(glimpse: Glimpse) -> bool:
    """A zip archive that is not a model itself, in which some name is that of a model."""
    others = [one for one in discover() if one.name != "package"]
    if any(one.recognises(glimpse) for one in others):
        return False
    known = {extension for one in others for extension in one.extensions} - {".zip"}
    names = [PurePosixPath(name) for name in glimpse.members]
    return any(name.suffix.lower() in known or name.name == SAVED_MODEL for name in names)


FORMAT = Format(
    name="package",
    title="package of a model and its side files",
    extensions=(".zip",),
    recognises=_recognises,
    extra=_needs,
)
