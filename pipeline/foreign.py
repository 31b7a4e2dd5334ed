"""Where a library reads foreign bytes or runs foreign code: whatever it raises there is the model's fault."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from pipeline.errors import Rejected

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_MEMORY = re.compile(
    r"bad_?alloc|can't allocate memory|cannot allocate memory|failed to allocate memory|not enough memory|out of memory",
    re.IGNORECASE,
)
"""How torch, ONNX Runtime and the C++ runtime word a refused allocation; they raise errors of all kinds."""


@contextlib.contextmanager
def blame(code: str, doing: str) -> Iterator[None]:
    """Raise as `Rejected` whatever is raised inside. Memory that ran out is told apart by the sandbox."""
    try:
        yield
    except (Rejected, MemoryError):
        raise
    except Exception as error:
        root: BaseException = error
        while root.__cause__ is not None:  # exporters wrap the reason in pages of advice
            root = root.__cause__
        said = _COLOURS.sub("", str(root)).rpartition("RuntimeError: ")[2].strip().partition("\n")[0]
        raise Rejected(code, f"{doing} failed: {type(root).__name__}: {said[:600] or 'no words'}") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, of whatever kind, says that memory ran out."""
    return isinstance(error, MemoryError) or (isinstance(error, Exception) and _MEMORY.search(str(error)) is not None)
