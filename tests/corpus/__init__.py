"""Hostile and benign model files, made when asked for: nothing of them is kept in the repository.

Each hostile sample is harmless by construction: whatever runs it creates one empty file, the canary, and no more.
Written from what attackers do, not from how the readers decide.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

CANARY = Path(tempfile.gettempdir()) / f"slipway-corpus-canary-{os.getpid():07}"
"""Of this process alone: what a proof or a benchmark beside it sets off is not taken for ours."""
COMMAND = f"touch {CANARY}"
SOURCE = f"open({str(CANARY)!r}, 'w').close()"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One file. `why` says what it does and where that was published; `loader` names what would set it off, if it runs.

    `attack` is the class of the attack, or for benign ones the framework that wrote the file.
    """

    name: str
    attack: str
    why: str
    make: Callable[[], bytes]
    filename: str = "model.bin"
    loader: str | None = None

    def write(self, folder: Path) -> Path:
        path = folder / self.filename
        path.write_bytes(self.make())
        return path


def hostile() -> list[Sample]:
    """Every malicious or malformed sample: none of them may be called clean."""
    from tests.corpus import archives, arrays, gadgets, graphs, keras_files, pickles, side_files, torch_files

    rooms = (pickles, gadgets, torch_files, arrays, graphs, keras_files, archives, side_files)
    return _named([sample for room in rooms for sample in room.samples()])


def benign() -> list[Sample]:
    """Every file as the frameworks at hand write it: all of them must be clean."""
    from tests.corpus import frameworks, optional

    return _named([*frameworks.samples(), *optional.samples()])


def _named(samples: Iterable[Sample]) -> list[Sample]:
    found = list(samples)
    names = [sample.name for sample in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two samples are named {sorted(twice)}")
    return found
