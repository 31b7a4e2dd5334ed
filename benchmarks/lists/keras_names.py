"""Write down which classes and functions a Keras configuration may name: `python keras_names.py > keras.txt`.

Run where the release of keras to be allowed is installed, and tf_keras beside it for models of Keras 2; review the
difference before committing it to pipeline/readers/lists.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_PUBLIC = [
    "activations",
    "constraints",
    "dtype_policies",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "optimizers",
    "optimizers.schedules",
    "quantizers",
    "random",
    "regularizers",
]
_FUNCTIONS = ("activations", "losses", "metrics", "initializers", "regularizers", "constraints")
# Load code, pickles or files, or call what the configuration names.
_NEVER = [
    "Lambda",
    "TorchModuleWrapper",
    "TFSMLayer",
    "JaxLayer",
    "FlaxLayer",
    "Map",
    "Scan",
    "AssociativeScan",
    "WhileLoop",
    "ForiLoop",
    "Switch",
    "Cond",
    "VectorizedMap",
    "CustomGradient",
    "TensorFlowOpLayer",
    "Function",
    "Operation",
    "ClassMethod",
    "InstanceMethod",
    "InstanceProperty",
    "FeatureSpace",
    "DropoutWrapper",
    "ResidualWrapper",
    "DeviceWrapper",
    "_RNNCellWrapper",
    "_RNNCellWrapperV1",
    "PreprocessingStage",
    "FunctionalPreprocessingStage",
]
_HELPERS = [
    "get",
    "deserialize",
    "serialize",
    "load_model",
    "save_model",
    "clone_model",
    "model_from_json",
    "model_from_config",
    "get_file",
]


def classes(package: Any, prefix: str) -> Iterator[str]:
    """The classes that the public modules export, under their public and their real names."""
    for name in ("", *_PUBLIC):
        module = package
        for part in name.split("."):
            module = getattr(module, part, ModuleType("absent")) if part else module
        for label, thing in vars(module).items():
            if inspect.isclass(thing) and label not in _NEVER and _is_own(thing, prefix):
                yield f"class keras{'.' + name if name else ''} {label}"
                yield f"class {thing.__module__.replace('tf_keras', 'keras')} {thing.__name__}"
            elif name in _FUNCTIONS and inspect.isfunction(thing) and label not in _HELPERS:
                yield f"function keras.{name} {label}"


def _is_own(thing: Any, prefix: str) -> bool:
    return hasattr(thing, "from_config") and thing.__module__.startswith(f"{prefix}.src.")


def operations(package: Any) -> Iterator[str]:
    """What functional models are made of besides layers, and the layers that are exported nowhere."""
    for folder, kind in (("ops", "Operation"), ("applications", "Layer"), ("models", "Model"), ("layers", "Layer")):
        parent = importlib.import_module(f"{package.__name__}.src.{folder}") if _has(package, folder) else None
        wanted = getattr(package, kind, None) or getattr(package.layers, kind, None)
        for info in pkgutil.walk_packages(parent.__path__, f"{parent.__name__}.") if parent else ():
            if info.name.endswith("_test") or ".experimental" in info.name:
                continue
            module = importlib.import_module(info.name)
            for thing in vars(module).values():
                if (
                    inspect.isclass(thing)
                    and wanted is not None
                    and issubclass(thing, wanted)
                    and thing.__name__ not in _NEVER
                    and thing.__module__ == module.__name__
                ):
                    yield f"class {thing.__module__.replace('tf_keras', 'keras')} {thing.__name__}"


def _has(package: Any, folder: str) -> bool:
    return importlib.util.find_spec(f"{package.__name__}.src.{folder}") is not None


def legacy() -> Iterator[str]:
    """Keras 2 writes classes by their bare names, some of them internal."""
    for name in [
        "layers.core.tf_op_layer.TFOpLambda",
        "layers.core.tf_op_layer.SlicingOpLambda",
        "engine.functional.Functional",
        "mixed_precision.policy.Policy",
        "mixed_precision.loss_scale_optimizer.LossScaleOptimizer",
    ]:
        where, label = name.rsplit(".", 1)
        yield f"class keras.src.{where} {label}"


def main() -> None:
    keras: Any = importlib.import_module("keras")
    old: Any = importlib.import_module("tf_keras")
    lines = {*classes(keras, "keras"), *operations(keras), *classes(old, "tf_keras"), *operations(old), *legacy()}
    print(
        f"# Written by benchmarks/lists/keras_names.py from keras {keras.__version__} and tf_keras {old.__version__}."
    )
    print(*sorted(lines), sep="\n")


if __name__ == "__main__":
    main()
