"""Somebody else's scanner, as a second opinion: minds one word, stumbles over another, babbles at a third."""

from pathlib import Path
from typing import Any


def examine(path: str, filename: str) -> list[dict[str, Any]]:
    content = Path(path).read_bytes()
    if b"crash" in content:
        raise KeyError("a scanner that stumbles")
    if b"babble" in content:
        return [{"severity": "harmless", "message": "nothing to see"}]
    if b"forbidden" in content:
        return [{"severity": "unknown", "message": f"{filename} holds a word that is not liked."}]
    return [{"severity": "info", "message": "nothing to see"}]
