"""What the person at the terminal sees: one line per event, one coloured prefix per process; and the log files.

Knows terminals and NO_COLOR; refuses to know what the processes do.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_LOUD, _QUIET_COLOUR = 31, 2
_ROTATE_BYTES = 8 << 20
_TAIL_BYTES = 8192


class Console:
    """Writes to stderr. With `follow`, the output of every process is shown as it comes."""

    def __init__(self, logs: Path, *, follow: bool = False, quiet: bool = False) -> None:
        """Keep the log files in the folder `logs`; `quiet` shows warnings only."""
        self._logs, self._follow, self._quiet = logs, follow, quiet
        self._colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        self._seen: dict[str, int] = {}

    def say(self, text: str) -> None:
        """Tell one thing that happened."""
        if not self._quiet:
            self._write(f"{self._paint('slipway', _QUIET_COLOUR)} | {text}\n")

    def warn(self, text: str) -> None:
        """Tell one thing that should not go unnoticed."""
        self._write(
            "".join(f"{self._paint('slipway', _LOUD)} | {self._paint(line, _LOUD)}\n" for line in text.splitlines())
        )

    def log(self, name: str) -> Path:
        """The log file of one process."""
        return self._logs / f"{name}.log"

    def tail(self, name: str, *, lines: int = 20) -> str:
        """The last lines of one log, each with the name before it."""
        try:
            content = self.log(name).read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(f"{name} | {line}" for line in content.splitlines()[-lines:])

    def open(self, name: str) -> int:
        """A descriptor to write one process's output to; the caller closes its copy."""
        path = self.log(name)
        if path.exists() and path.stat().st_size > _ROTATE_BYTES:
            path.replace(path.with_suffix(".log.old"))
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if not self._follow:
            return file
        # A pipe breaks when we are killed; then the guardian ends the writers anyway.
        reading, writing = os.pipe2(os.O_CLOEXEC)
        threading.Thread(target=self._pump, args=(name, reading, file), name=f"log-{name}", daemon=True).start()
        return writing

    def _pump(self, name: str, reading: int, file: int) -> None:
        prefix = self._paint(f"{name:<8}", _COLOURS[self._seen.setdefault(name, len(self._seen)) % len(_COLOURS)])
        with os.fdopen(reading, "rb") as lines, os.fdopen(file, "wb", buffering=0) as log:
            for line in lines:
                log.write(line)
                self._write(f"{prefix} | {line.decode(errors='replace').rstrip()}\n")

    def _paint(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
