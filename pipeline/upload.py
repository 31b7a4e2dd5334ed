"""What an uploader may say and send: form fields, file names, side files. Pure; knows no HTTP and opens no file.

Every field has one reader that turns its text into JSON or says what is wrong with it, and all that is wrong is said
at once.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NoReturn, get_args
from uuid import UUID

from pipeline.errors import Rejected
from registry.versions import Bump, normalise

Json = Any

MODEL_FILE = "model_file"
ALIASES: Mapping[str, str] = {"file": MODEL_FILE, "license": "licence"}
"""Other names by which clients call a part."""

SHORT = 64 << 10
LONG = 256 << 10
"""Bytes that one field may have: most fields, and those that hold a configuration."""

_DEPTH = 64
_DIMENSIONS = 16
_SLUG = re.compile(r"[a-z0-9][a-z0-9._+-]{0,63}")
_LICENCE = re.compile(r"[A-Za-z0-9(][A-Za-z0-9 .+:()-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
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
    declaration: Declaration, *, found: str, title: str, unservable: str | None, extra: str | None = None
) -> list[str]:
    """What the uploader should know although nothing is wrong. `found` is the format's name, `title` what people call it."""
    declared = declaration.declared
    said: list[str] = []
    framework = declared.get("framework")
    if framework and found in FRAMEWORKS and framework not in FRAMEWORKS[found]:
        said.append(f"framework is declared as {framework}, but the file is {title}.")
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
    return said


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


def _name(text: str) -> str:
    name = unicodedata.normalize("NFC", text)
    if len(name) > 128:
        raise ValueError("has more than 128 characters")
    if not name.isprintable():
        raise ValueError("has characters that cannot be shown")
    if "/" in name or "\\" in name:
        raise ValueError("has a slash")
    if not name.strip("."):
        raise ValueError("needs more than dots")
    try:
        UUID(name)
    except ValueError:
        return name
    raise ValueError("looks like an id, so that nobody could ask for it by name")


def _bump(text: str) -> str:
    if text not in get_args(Bump):
        raise ValueError(f"is none of {', '.join(get_args(Bump))}")
    return text


def _sha256(text: str) -> str:
    digest = text.lower().removeprefix("sha256:")
    if not _SHA256.fullmatch(digest):
        raise ValueError("is not 64 hexadecimal digits")
    return digest


def _slug(text: str) -> str:
    if not _SLUG.fullmatch(text.lower()):
        raise ValueError("is not a short word of letters, digits, . _ + and -")
    return text.lower()


def _licence(text: str) -> str:
    if not _LICENCE.fullmatch(text):
        raise ValueError("is not an SPDX licence expression such as Apache-2.0")
    return text


def _line(limit: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        if len(text) > limit:
            raise ValueError(f"has more than {limit:,} characters")
        if not text.isprintable():
            raise ValueError("has characters that cannot be shown")
        return text

    return read


def _prose(text: str) -> str:
    if len(text) > 10_000:
        raise ValueError("has more than 10,000 characters")
    if any(unicodedata.category(letter) == "Cc" for letter in text if letter not in "\n\r\t"):
        raise ValueError("has control characters")
    return text


def _json(text: str) -> Json:
    """JSON as Postgres takes it: no NUL, no half surrogates, no infinity, not endlessly deep, no key twice."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"holds {constant}, which is no JSON")

    try:
        value = json.loads(text, parse_constant=refuse, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError(f"is nested deeper than {_DEPTH}") from None
    _check_storable(value, _DEPTH)
    return value


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("has an object in which a key comes twice")
    return made


def _check_storable(value: Json, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"is nested deeper than {_DEPTH}")
    match value:
        case str() if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("holds text that is not Unicode, or a NUL")
        case float() if not math.isfinite(value):
            raise ValueError("holds a number that is too large")
        case list():
            for each in value:
                _check_storable(each, depth - 1)
        case dict():
            for key, each in value.items():
                _check_storable(key, depth - 1)
                _check_storable(each, depth - 1)


def _mapping(text: str) -> dict[str, Json]:
    value = _json(text)
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - what is wrong with a text, not with a type
    return value


def _words(most: int, longest: int) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        value = _json(text)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ValueError("is not a JSON list of strings")
        words = list(dict.fromkeys(each.strip() for each in value))
        if len(words) > most:
            raise ValueError(f"has more than {most:,} entries")
        if any(not word or len(word) > longest or not word.isprintable() for word in words):
            raise ValueError(f"has an entry that is blank, longer than {longest} characters or cannot be shown")
        return words

    return read


def _classes(text: str) -> list[str]:
    """Class names in the order of the model's outputs: nothing is dropped, because their position is their meaning."""
    value = _json(text)
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise ValueError("is not a JSON list of strings")
    if len(value) > 10_000 or any(len(each) > 256 for each in value):
        raise ValueError("has more than 10,000 entries or one of more than 256 characters")
    return value


def _shape(text: str) -> Json:
    value = _json(text)
    if isinstance(value, dict):
        if not value or len(value) > 64 or not all(_is_shape(each) for each in value.values()):
            raise ValueError("is not an object of input name → list of sizes (null or -1 where any size will do)")
        return value
    if not _is_shape(value):
        raise ValueError("is not a JSON list of sizes such as [1, 3, 224, 224] (null or -1 where any size will do)")
    return value


def _is_shape(value: Json) -> bool:
    return isinstance(value, list) and len(value) <= _DIMENSIONS and all(_is_dimension(each) for each in value)


def _is_dimension(value: Json) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value is None or (whole and (value == -1 or 0 < value < 1 << 31))


FIELDS: Mapping[str, Field] = {
    "name": Field(read=_name, meaning="The model's name, unique among yours.", example="digits"),
    "version": Field(
        read=normalise,
        meaning="SemVer, short forms too (`2`, `v1.2`). Without it the version after the highest one is taken.",
        example="1.0.0",
    ),
    "bump": Field(
        read=_bump, meaning="Which number goes up where no version is given: major, minor or patch.", example="minor"
    ),
    "model_type": Field(read=_slug, meaning="What the model does.", example="classification"),
    "framework": Field(read=_slug, meaning="What the model was made with.", example="pytorch"),
    "description": Field(read=_prose, meaning="For people, at most 10,000 characters.", example="Handwritten digits"),
    "licence": Field(read=_licence, meaning="An SPDX expression.", example="Apache-2.0"),
    "tags": Field(read=_words(50, 64), meaning="A JSON list of at most 50 words.", example='["demo", "edge"]'),
    "classes": Field(read=_classes, meaning="A JSON list of class names, in output order.", example='["zero", "one"]'),
    "input_shape": Field(
        read=_shape,
        meaning="A JSON list of sizes, null or -1 where any will do; or an object of input name → list.",
        example="[null, 1, 8, 8]",
    ),
    "config": Field(
        read=_mapping, limit=LONG, meaning="A JSON object with the model's settings.", example='{"threshold": 0.5}'
    ),
    "training_config": Field(
        read=_mapping, limit=LONG, meaning="A JSON object that says how it was trained.", example='{"epochs": 20}'
    ),
    "benchmark_dataset": Field(read=_line(512), meaning="The data it was evaluated on.", example="sklearn digits"),
    "sha256": Field(
        read=_sha256,
        meaning="The model file's SHA-256 in hexadecimal; the upload is refused where other bytes arrive.",
        example="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ),
}
