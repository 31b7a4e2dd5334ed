"""What a child sent, judged: JSON of one of our three shapes, bounded in depth, or `Rejected("answer_invalid")`."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from pipeline.errors import Rejected

MAX_DEPTH = 64
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MESSAGE_CHARACTERS = 2000


class ChildFailed(RuntimeError):
    """Our function raised something that is nobody's fault but ours; the text is the child's traceback."""


def value_of(body: bytes) -> Any:
    """The value that the function returned. Raises what it raised: `Rejected`, or `ChildFailed` for the rest."""
    answer = parse(body)
    match answer:
        case {"value": value, **more} if not more:
            return value
        case {"rejected": {"code": str(code), "message": str(message), **extra}, **more} if not extra and not more:
            if _CODE.fullmatch(code) is None:
                raise _invalid("its error code is none")
            raise Rejected(code, printable(message, _MESSAGE_CHARACTERS))
        case {"failed": str(text), **more} if not more:
            raise ChildFailed(printable(text, 20_000, keep="\n"))
        case _:
            raise _invalid("it has an unknown shape")


def parse(body: bytes) -> Any:
    """Strict JSON: UTF-8, finite numbers, no lone surrogates or NUL in strings, at most `MAX_DEPTH` levels."""
    try:
        parsed = json.loads(body.decode(), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as fault:
        raise _invalid("it is no JSON") from fault
    level = [parsed]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                deeper += node.keys()
                deeper += node.values()
            elif isinstance(node, list):
                deeper += node
            elif isinstance(node, str) and not _is_text(node):
                raise _invalid("a text in it is none")
        if not deeper:
            return parsed
        level = deeper
    raise _invalid("it is nested too deeply")


def printable(text: str, limit: int, *, keep: str = "") -> str:
    """The text with control characters replaced and cut to `limit` characters."""
    return "".join(letter if letter.isprintable() or letter in keep else " " for letter in text[:limit])


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return "\0" not in text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is beyond all numbers")
    return number


def _invalid(why: str) -> Rejected:
    return Rejected("answer_invalid", f"The process that read the model gave an answer that cannot be used: {why}.")
