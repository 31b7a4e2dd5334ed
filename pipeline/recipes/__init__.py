"""How variants are made from the canonical ONNX file. A recipe is one file beside this one that ends in `RECIPE = Recipe(...)`.

Whether a variant may be used is not decided here: every one is verified against the canonical file afterwards.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from pipeline.errors import Rejected
from pipeline.stage import Json

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"
NO_GAIN = "no_gain"
"""Why a form in another runtime is not kept: on this machine it is no faster than what it was made of."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to a variant.

    `name` is the variant's, `precision` the type of its arithmetic, `budget` the key of what it may cost
    (`verification.BUDGETS`). The recipe's module holds, for sandbox children,
    `make(source, destination, inputs, calibration, keep, **options)`, which writes the variant and answers with facts
    of its own, unless the variant is a file that another recipe made, run in another way: `of` names the candidates,
    the first that was kept is taken.
    `calibrated`: needs samples of the inputs. `repair` names the variant that takes this one's place when it misses its
    budget; the module then has `quantiser` in place of `make` (`pipeline.quantizing`). `package` must be installed for
    the recipe to be offered, and of the CPU's `flags` one must be there where any are named. `session` is how the
    runtime is to be set; where ONNX Runtime runs it, the level of graph optimisation is added by measurement.
    """

    name: str
    precision: str
    budget: str
    options: Mapping[str, Json] = field(default_factory=dict)
    of: tuple[str, ...] = ()
    calibrated: bool = False
    repair: str | None = None
    runtime: str = ONNXRUNTIME
    session: Mapping[str, Json] = field(default_factory=dict)
    package: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def ranged(self) -> bool:
        """Whether ranges of activations were fixed on samples: it is judged by questions from within these only."""
        return self.calibrated or (self.budget == "int8" and bool(self.of))

    def offered(self, toolchain: Mapping[str, str], *, installed: bool) -> bool:
        """Whether the recipe can be carried out here; `installed` says that of its package."""
        able = not self.flags or bool(set(self.flags) & set(toolchain["cpu"].split()))
        return able and (self.package is None or installed)


@functools.cache
def discover() -> tuple[Recipe, ...]:
    """Every recipe that has a file here in alphabetical order, those last that take up what others made."""
    found: list[Recipe] = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda one: one.name):
        recipe = getattr(importlib.import_module(f"{__name__}.{module.name}"), "RECIPE", None)
        if not isinstance(recipe, Recipe) or recipe.name.replace("-", "_") != module.name:
            raise TypeError(f"pipeline/recipes/{module.name}.py must end in RECIPE = Recipe(name=…) of the same name")
        found.append(recipe)
    return tuple(sorted(found, key=lambda one: bool(one.of)))


def find(name: str) -> Recipe:
    """The recipe of that name, or the one whose repair goes by it."""
    for one in discover():
        if name in (one.name, one.repair):
            return one
    known = ", ".join(one.name for one in discover())
    raise Rejected("unknown_recipe", f"No recipe is called {name!r}; there are {known}.", recipes=known.split(", "))


def module(recipe: Recipe) -> str:
    """The name of the recipe's module, whose functions sandbox children are asked for."""
    return f"{__name__}.{recipe.name.replace('-', '_')}"


def fingerprint(recipe: Recipe, toolchain: Mapping[str, str]) -> str:
    """Hex SHA-256 of all that shapes the bytes besides the input: the recipe with its options, and the toolchain.

    Same input, same calibration and same fingerprint give the same bytes.
    """
    document = {"recipe": asdict(recipe), "toolchain": dict(toolchain)}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
