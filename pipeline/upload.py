"""What an uploader may say and send: form fields, file names, side files. Pure; knows no HTTP and opens no file.

Every field has one reader that turns its text into JSON or says what is wrong with it, and all that is wrong is said
at once.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from pipeline import fields
from pipeline.errors import Rejected
from registry import parents
from registry.spdx import canonical
from registry.versions import Bump, normalise

Json = Any

MODEL_FILE = "model_file"
ALIASES: Mapping[str, str] = {"file": MODEL_FILE, "license": "licence"}
"""Other names by which clients call a part."""

SHORT = 64 << 10
LONG = 256 << 10
"""Bytes that one field may have: most fields, and those that hold a configuration."""

_HUB = "https://huggingface.co"
LONGEST_CARD = 256 << 10
"""Bytes of a model card that are kept with the model and shown."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

FRAMEWORKS: Mapping[str, frozenset[str]] = {
    "onnx": frozenset({"onnx"}),
    "torchscript": frozenset({"pytorch", "torch", "torchscript"}),
    "pt2": frozenset({"pytorch", "torch"}),
    "checkpoint": frozenset({"pytorch", "torch"}),
    "yolo": frozenset({"ultralytics", "yolo", "pytorch", "torch"}),
    "saved_model": frozenset({"tensorflow", "tf", "keras"}),
    "tensorflow_graph": frozenset({"tensorflow", "tf", "keras"}),
    "tensorrt_engine": frozenset({"tensorrt"}),
    "tflite": frozenset({"tflite", "tensorflow", "tf", "tensorflow-lite", "litert"}),
}
"""Frameworks whose name fits what a format holds; a format that is not listed holds anybody's."""


FORMATS: Mapping[str, frozenset[str]] = {
    "torchscript": frozenset({"pt", "pth", "torch_script"}),
    "pt2": frozenset({"pt2", "exported_program"}),
    "checkpoint": frozenset({"pt", "pth", "ckpt", "state_dict"}),
    "yolo": frozenset({"pt", "yolo11", "yolov8"}),
    "saved_model": frozenset({"tensorflow_saved_model", "tensorflow_savedmodel", "savedmodel", "tf_saved_model"}),
    "tensorflow_graph": frozenset({"pb", "frozen_graph", "tensorflow_frozen_graph"}),
    "keras": frozenset({"h5", "hdf5", "keras_h5", "tensorflow", "tf"}),
    "tensorrt_engine": frozenset({"engine", "plan", "trt", "tensorrt_plan"}),
    "tflite": frozenset({"tf_lite", "litert"}),
    "sklearn": frozenset({"pkl", "pickle", "joblib", "scikit_learn"}),
}
"""Other names of formats, as people and other registries write them."""


class InvalidFields(Rejected):
    """`faults`: field → what is wrong with it, all of them."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        said = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        super().__init__("invalid_field", said)
        self.faults = dict(faults)


@dataclass(frozen=True, kw_only=True)
class SideFile:
    """A file that may come with the model. `role` is its name in `side_files` of a version."""

    role: str
    extensions: tuple[str, ...]
    meaning: str


SIDE_FILES: Mapping[str, SideFile] = {
    "config_file": SideFile(
        role="config", extensions=(".yaml", ".yml", ".json", ".txt"), meaning="the model's configuration"
    ),
    "requirements_file": SideFile(
        role="requirements", extensions=(".txt", ".yaml", ".yml"), meaning="packages that the model was made with"
    ),
    "calibration_file": SideFile(
        role="calibration", extensions=(".npz",), meaning="sample inputs by input name, for calibration"
    ),
    "card_file": SideFile(role="card", extensions=(".md",), meaning="the model card"),
}


@dataclass(frozen=True, kw_only=True)
class Field:
    """A text field: `read` gives its JSON value or raises `ValueError` saying what is wrong."""

    read: Callable[[str], Json]
    meaning: str
    example: str
    limit: int = SHORT


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The form as it is kept. `declared` holds only what was given, as JSON that Postgres takes."""

    name: str
    version: str | None = None
    bump: Bump = "minor"
    sha256: str | None = None
    confirm_name: bool = False
    declared: Mapping[str, Json] = field(default_factory=dict)


def declare(texts: Mapping[str, bytes]) -> Declaration:
    """The declaration that these fields make. Raises `InvalidFields` with all that is wrong."""
    values, faults = judge(texts)
    if "name" not in values and "name" not in faults:
        faults = {"name": "is required", **faults}
    if faults:
        raise InvalidFields(faults)
    return Declaration(
        name=values.pop("name"),
        version=values.pop("version", None),
        bump=values.pop("bump", "minor"),
        sha256=values.pop("sha256", None),
        confirm_name=values.pop("confirm_name", False),
        declared=values,
    )


def judge(texts: Mapping[str, bytes]) -> tuple[dict[str, Json], dict[str, str]]:
    """Values and faults of the fields that have come so far. What is blank counts as not given."""
    values: dict[str, Json] = {}
    faults: dict[str, str] = {}
    for name, raw in texts.items():
        try:
            text = raw.decode("utf-8").strip()
            if text:
                values[name] = FIELDS[name].read(text)
        except UnicodeDecodeError:
            faults[name] = "is not UTF-8"
        except ValueError as error:
            faults[name] = str(error)
    return values, faults


def misnamed(name: str) -> str:
    """What to tell somebody who sent a part that no upload has."""
    known = (*FIELDS, MODEL_FILE, *SIDE_FILES)
    near = difflib.get_close_matches(name[:64], known, n=1)
    return (
        f"is no part of an upload; did you mean {near[0]}?" if near else f"is no part of an upload: {', '.join(known)}"
    )


def check_side_file(part: str, filename: str) -> SideFile:
    """The side file that a part is. Raises `Rejected("unsupported_format")` where its name ends wrongly."""
    kind = SIDE_FILES[part]
    extension = PurePath(filename).suffix.lower()
    if extension not in kind.extensions:
        raise Rejected(
            "unsupported_format",
            f"{part} must end in {', '.join(kind.extensions)}; {filename} does not.",
            field=part,
            extension=extension,
            accepted=list(kind.extensions),
        )
    return kind


def card(text: str) -> str:
    """A model card, Markdown. Raises `ValueError` for one that is too long or has control characters."""
    if len(text.encode()) > LONGEST_CARD:
        raise ValueError(f"has more than {LONGEST_CARD >> 10} KiB")
    if any(unicodedata.category(letter) == "Cc" for letter in text if letter not in "\n\r\t"):
        raise ValueError("has control characters")
    return text


def card_of(content: bytes | bytearray) -> str | None:
    """The card in a file, where it is one that can be shown."""
    try:
        return card(content.decode("utf-8"))
    except ValueError:
        return None


def file_name(given: str) -> str:
    """The last component of a name that a client sent. Raises `ValueError` for one that nobody should have to look at."""
    name = unicodedata.normalize("NFC", re.split(r"[/\\]", given)[-1]).strip()
    if not name.strip("."):
        raise ValueError("has no file name")
    if len(name.encode()) > 255:
        raise ValueError("has a file name of more than 255 bytes")
    if not name.isprintable():
        raise ValueError("has a file name with characters that cannot be shown")
    return name


def key_name(filename: str) -> str:
    """The name in letters that every storage and shell takes as they are; its extension stays."""
    path = PurePath(filename)
    return (_plain(path.stem)[:80] or "file") + _plain(path.suffix)[:16]


def warnings(
    declaration: Declaration,
    *,
    found: str,
    title: str,
    unservable: str | None,
    extra: str | None = None,
    card_unshown: bool = False,
) -> list[str]:
    """What the uploader should know although nothing is wrong. `found` is the format's name, `title` what people call it."""
    declared = declaration.declared
    said: list[str] = []
    framework = declared.get("framework")
    if framework and found in FRAMEWORKS and framework not in FRAMEWORKS[found]:
        said.append(f"framework is declared as {framework}, but the file is {title}.")
    format_ = declared.get("format")
    if format_ and not format_fits(format_, found):
        said.append(f"format is declared as {format_}, but the file is {title}.")
    if found == "torchscript" and "input_shape" not in declared:
        said.append(
            "A TorchScript file does not say what goes in: without input_shape, such as [1, 3, 224, 224], it will be "
            "validated but cannot be converted."
        )
    if unservable:
        said.append(unservable)
    if extra:
        said.append(
            f"Opening this file takes a worker with the extra '{extra}': until there is one, the run waits in its queue."
        )
    if card_unshown:
        said.append(f"The model card is kept but not shown: that takes UTF-8 text of at most {LONGEST_CARD >> 10} KiB.")
    return said


def format_fits(declared: str, found: str) -> bool:
    """Whether a declared format is a name of the format that was found."""
    plain = declared.replace("-", "_").removeprefix(".")
    return plain == found or plain in FORMATS.get(found, ()) or plain in FRAMEWORKS.get(found, ())


def framework_of(declaration: Declaration, found: str) -> str | None:
    """The declared framework, or the one that the format stands for."""
    implied = {
        "onnx": "onnx",
        "torchscript": "pytorch",
        "pt2": "pytorch",
        "checkpoint": "pytorch",
        "yolo": "pytorch",
        "saved_model": "tensorflow",
        "tensorflow_graph": "tensorflow",
        "tensorrt_engine": "tensorrt",
        "tflite": "tflite",
    }.get(found)
    return declaration.declared.get("framework") or implied


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return _UNSAFE.sub("_", letters).strip("_")


FIELDS: Mapping[str, Field] = {
    "name": Field(read=fields.name, meaning="The model's name, unique among yours.", example="digits"),
    "version": Field(
        read=normalise,
        meaning="SemVer, short forms too (`2`, `v1.2`). Without it the version after the highest one is taken.",
        example="1.0.0",
    ),
    "bump": Field(
        read=fields.bump,
        meaning="Which number goes up where no version is given: major, minor or patch.",
        example="minor",
    ),
    "model_type": Field(read=fields.slug, meaning="What the model does.", example="classification"),
    "framework": Field(read=fields.slug, meaning="What the model was made with.", example="pytorch"),
    "description": Field(
        read=fields.prose, meaning="For people, at most 10,000 characters.", example="Handwritten digits"
    ),
    "licence": Field(
        read=canonical, meaning="An SPDX expression; `LicenseRef-…` for one of your own.", example="Apache-2.0"
    ),
    "tags": Field(read=fields.words(50, 64), meaning="A JSON list of at most 50 words.", example='["demo", "edge"]'),
    "classes": Field(
        read=fields.classes, meaning="A JSON list of class names, in output order.", example='["zero", "one"]'
    ),
    "input_shape": Field(
        read=fields.shape,
        meaning="A JSON list of sizes, null or -1 where any will do; or an object of input name → list.",
        example="[null, 1, 8, 8]",
    ),
    "output_shape": Field(
        read=fields.shape,
        meaning="As input_shape, of the outputs; a bare list may mean any one of several.",
        example="[null, 10]",
    ),
    "format": Field(
        read=fields.slug,
        meaning="What the file is; you are told where it is something else.",
        example="tensorflow_saved_model",
    ),
    "accuracy": Field(
        read=fields.share, meaning="Between 0 and 1, on `benchmark_dataset`; the metrics' first.", example="0.95"
    ),
    "precision": Field(read=fields.share, meaning="As accuracy.", example="0.94"),
    "recall": Field(read=fields.share, meaning="As accuracy.", example="0.93"),
    "f1_score": Field(read=fields.share, meaning="As accuracy.", example="0.935"),
    "mAP": Field(read=fields.share, meaning="As accuracy: mean average precision of a detector.", example="0.51"),
    "release_notes": Field(
        read=fields.prose, meaning="What is new, at most 10,000 characters.", example="Trained on the second batch."
    ),
    "config": Field(
        read=fields.mapping,
        limit=LONG,
        meaning="A JSON object with the model's settings.",
        example='{"threshold": 0.5}',
    ),
    "training_config": Field(
        read=fields.mapping, limit=LONG, meaning="A JSON object that says how it was trained.", example='{"epochs": 20}'
    ),
    "benchmark_dataset": Field(
        read=fields.line(512), meaning="The data it was evaluated on.", example="sklearn digits"
    ),
    "parent": Field(
        read=fields.parent,
        meaning="A version here that this one is derived from, yours or `owner/name@…`.",
        example="digits@1.0.0",
    ),
    "model_url": Field(
        read=parents.address,
        meaning="The address of the model that this one is derived from.",
        example=f"{_HUB}/org/base",
    ),
    "dataset_url": Field(
        read=parents.address,
        meaning="The address of the data it was trained on.",
        example=f"{_HUB}/datasets/org/digits",
    ),
    "code_url": Field(
        read=parents.address,
        meaning="The address of the code that it was made with.",
        example="https://github.com/org/training",
    ),
    "confirm_name": Field(
        read=fields.flag,
        meaning="`true`: a new model's name is no mistake for the one that it is near.",
        example="true",
    ),
    "sha256": Field(
        read=fields.sha256,
        meaning="The model file's SHA-256 in hexadecimal; the upload is refused where other bytes arrive.",
        example="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ),
}
