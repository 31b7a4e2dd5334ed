"""Second opinions: other people's scanners, asked in the sandbox after our own readers. They can only add findings.

One is a function `package.module:function` of `path` and `filename` that returns a list of `{severity, message}`; the
module may name in `NEEDS` what must be installed for it. Where a scanner and our readers disagree a person decides, so
an alarm is `unknown`: scanners that go by lists of bad names are wrong too often for a word that nobody can waive.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence


def check(functions: Sequence[str]) -> tuple[str, ...]:
    """The modules of these functions. Raises `ValueError` for one that is not there or lacks what it needs."""
    modules = []
    for function in functions:
        module, _, name = function.partition(":")
        try:
            loaded = importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f"SECOND_OPINIONS names {function}, which cannot be imported: {error}") from error
        if name.startswith("_") or name not in vars(loaded):
            raise ValueError(f"SECOND_OPINIONS names {function}, but {module} has no such public function")
        missing = [need for need in getattr(loaded, "NEEDS", ()) if importlib.util.find_spec(need) is None]
        if missing:
            raise ValueError(f"SECOND_OPINIONS names {function}, which needs {', '.join(missing)}: not installed here")
        modules.append(module)
    return tuple(modules)
