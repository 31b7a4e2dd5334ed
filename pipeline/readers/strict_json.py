"""JSON read strictly: no duplicate keys, no NaN, no bytes behind it. Knows nothing of what the document means."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pipeline.readers.inspection import Malformed


def parse(content: bytes) -> Any:
    """The document; `Malformed("json.invalid")` when two JSON parsers could read it differently."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed("json.invalid", f"This is not strict JSON: {error}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Malformed("json.duplicate", f"The key {twice[:80]!r} occurs twice.")
    return found


def _refuse(name: str) -> NoReturn:
    raise Malformed("json.invalid", f"{name} is not JSON.")
