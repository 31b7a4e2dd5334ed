"""Small real models of every format, made when a test asks for one; nothing here is committed as bytes.

A file beside this one is a family: functions that write a model into a folder within seconds, and `SAMPLES`, a tuple
that lists them. Importing a family imports no model library.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline import extras


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One model file and what its owner would say of it.

    `make` writes `filename` into the folder it is given and returns the path. `declared` is what goes with the upload.
    `calibration` writes an .npz with an array per input, and `labels` where accuracy can be told. `extra` names the
    optional dependency without which the format cannot be opened, `module` a package that carries the file itself;
    `slow` ones run in `make test-all` only. Not `served` is what is stored and described on purpose: weights alone, engines.
    """

    name: str
    format: str
    filename: str
    make: Callable[[Path], Path]
    declared: Mapping[str, Any] = field(default_factory=dict)
    calibration: Callable[[Path], Path] | None = None
    extra: str | None = None
    module: str | None = None
    slow: bool = False
    served: bool = True

    @property
    def missing(self) -> list[str]:
        """The optional modules that this sample takes and this machine lacks."""
        lacking = extras.missing(self.extra) if self.extra else []
        return [*lacking, self.module] if self.module and find_spec(self.module) is None else lacking


def _discover() -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    for family in sorted(one.name for one in pkgutil.iter_modules(__path__)):
        for sample in importlib.import_module(f"{__name__}.{family}").SAMPLES:
            if sample.name in found:
                raise TypeError(f"two families have a sample called {sample.name!r}")
            found[sample.name] = sample
    return found


SAMPLES: Mapping[str, Sample] = _discover()
"""Every sample by its name."""
