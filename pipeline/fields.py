"""Values of an upload's fields: each reader turns text into JSON, or says in a `ValueError` what is wrong with it. Pure."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any, NoReturn, get_args
from uuid import UUID

from registry import parents
from registry.versions import Bump

Json = Any

_DEPTH = 64
_DIMENSIONS = 16
_SLUG = re.compile(r"[a-z0-9][a-z0-9._+-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def name(text: str) -> str:
    name = unicodedata.normalize("NFC", text)
    if len(name) > 128:
        raise ValueError("has more than 128 characters")
    if not name.isprintable():
        raise ValueError("has characters that cannot be shown")
    if "/" in name or "\\" in name:
        raise ValueError("has a slash")
    if "~" in name:
        raise ValueError("has a tilde, which stands between owner and name in addresses")
    if not name.strip("."):
        raise ValueError("needs more than dots")
    try:
        UUID(name)
    except ValueError:
        return name
    raise ValueError("looks like an id, so that nobody could ask for it by name")


def bump(text: str) -> str:
    if text not in get_args(Bump):
        raise ValueError(f"is none of {', '.join(get_args(Bump))}")
    return text


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is not a number") from None
    if not 0 <= value <= 1:
        raise ValueError("is not a share between 0 and 1")
    return value


def sha256(text: str) -> str:
    digest = text.lower().removeprefix("sha256:")
    if not _SHA256.fullmatch(digest):
        raise ValueError("is not 64 hexadecimal digits")
    return digest


def slug(text: str) -> str:
    if not _SLUG.fullmatch(text.lower()):
        raise ValueError("is not a short word of letters, digits, . _ + and -")
    return text.lower()


def flag(text: str) -> bool:
    try:
        return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
    except KeyError:
        raise ValueError("is neither true nor false") from None


def parent(text: str) -> str:
    parents.parent(text)
    return text


def line(limit: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        if len(text) > limit:
            raise ValueError(f"has more than {limit:,} characters")
        if not text.isprintable():
            raise ValueError("has characters that cannot be shown")
        return text

    return read


def prose(text: str) -> str:
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


def mapping(text: str) -> dict[str, Json]:
    value = _json(text)
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - what is wrong with a text, not with a type
    return value


def words(most: int, longest: int) -> Callable[[str], list[str]]:
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


def classes(text: str) -> list[str]:
    """Class names in the order of the model's outputs: nothing is dropped, because their position is their meaning."""
    value = _json(text)
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise ValueError("is not a JSON list of strings")
    if len(value) > 10_000 or any(len(each) > 256 for each in value):
        raise ValueError("has more than 10,000 entries or one of more than 256 characters")
    return value


def shape(text: str) -> Json:
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
