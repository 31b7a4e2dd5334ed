"""Read a Procfile: one `name: command` a line. Knows that format and nothing of what the commands do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stack.home import StackError

if TYPE_CHECKING:
    from pathlib import Path

_LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(\S.*)")


def read(path: Path) -> dict[str, str]:
    """The commands by name, in the order of the file. Raises StackError for a line that is neither that nor a comment."""
    commands: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None or match[1] in commands:
            raise StackError(f"{path.name}, line {number}: expected `name: command`, each name once, not {text!r}.")
        commands[match[1]] = match[2]
    return commands
