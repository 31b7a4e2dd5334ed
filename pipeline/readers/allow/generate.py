"""Writes the lists of what the frameworks' own pickles may name: one file per framework, beside this script.

    python pipeline/readers/allow/generate.py [framework …]

Run it in an environment that has the frameworks (never in the product's own), then review the diff as you would
review code: every new line is something a stranger's file may make, call or name. A file is only rewritten when its
framework is installed. A line is `module name flag …`:

class      may be made without arguments and filled with attributes
state      may be made without arguments; its own `__setstate__` was reviewed (see `REVIEWED_STATES`)
dict list  takes entries or items as the built-in type does
call       may be called with plain values
maker      may be called with a listed class and plain values; returns an instance of it
name       may only stand there as a value: nothing calls it while unpickling
members:…  an enum, pickled as `getattr(class, name)`

Rules that keep harm out, whatever a framework adds: no class that takes part in its own making or unmaking
(`__new__`, `__setstate__`, `__del__`, `__getattr__` of its own) unless somebody reviewed that function here; nothing
from `FORBIDDEN` (files, processes, eval, imports); functions only from modules that compute on what they are given.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import inspect
import pkgutil
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

Lines = dict[tuple[str, str], set[str]]

FORBIDDEN = re.compile(
    r"(^|\.)_?(tests?|testing|conftest|datasets?|externals|plot|plotting|display|f2py|npyio|io|hub|jit|package|fx"
    r"|distributed|multiprocessing|_dynamo|_inductor|setup|cli|__main__|memmap|parallel|dask|spark|callbacks?)(\.|$)"
)
HARMFUL_NAME = re.compile(r"(?i)memmap|memory$|load|save|fetch|dump|file|path|fetch|download|subprocess|exec|eval_|__")

REVIEWED_STATES = {
    # Update __dict__ and compare versions, or give attributes of older versions their defaults.
    "sklearn.base.BaseEstimator.__setstate__": "class",
    "sklearn.utils._bunch.Bunch.__setstate__": "class",
    "sklearn.isotonic.IsotonicRegression.__setstate__": "class",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor.__setstate__": "class",
    "sklearn.linear_model._stochastic_gradient.BaseSGD.__setstate__": "class",
    "torch.nn.modules.": "class",
    "ultralytics.nn.modules.": "class",
    "timm.layers.ml_decoder.": "class",
    "torch.optim.": "class",
    "torchvision.models.inception.Inception3.__setstate__": "class",
    # Take a tuple apart and pack the weights in it.
    "torch.ao.nn.quantized.modules.": "state",
    "torch.ao.nn.sparse.quantized.": "state",
    # Parse a model from text or bytes of the state, in native code; never a file.
    "lightgbm.basic.Booster.__setstate__": "state",
    "xgboost.core.Booster.__setstate__": "state",
    "catboost.core._CatBoostBase.__setstate__": "state",
    # Arrays, blocks and a dtype.
    "pandas.core.generic.NDFrame.__setstate__": "state",
    "pandas.core.arrays.categorical.Categorical.__setstate__": "state",
    "pandas.core.dtypes.dtypes.PandasExtensionDtype.__setstate__": "state",
}
REVIEWED_MAKING = {
    # Return an empty object of the class.
    "scipy.sparse", "pandas.core", "torch.nn.parameter", "xgboost.core.Booster.__del__", "lightgbm.basic.Booster.__del__",
    "torch.nn.modules.module.Module.__getattr__", "catboost.core", "sklearn.utils._bunch.Bunch.__getattr__",
    "sklearn.utils._metadata_requests.MetadataRequest.__getattr__", "sklearn.linear_model._passive_aggressive",
    "sklearn.frozen._frozen.FrozenEstimator.__getattr__",
}  # fmt: skip


def main(wanted: list[str]) -> None:
    warnings.simplefilter("ignore")
    for name, (distribution, collect) in FRAMEWORKS.items():
        if wanted and name not in wanted:
            continue
        try:
            release = version(distribution)
        except importlib.metadata.PackageNotFoundError:
            sys.stderr.write(f"{name}: not installed, list left as it is\n")
            continue
        lines: Lines = {}
        collect(lines)
        text = f"# {distribution} {release}, written by generate.py: review every line of a diff\n" + "".join(
            f"{module} {what} {' '.join(sorted(flags))}\n" for (module, what), flags in sorted(lines.items())
        )
        Path(__file__).with_name(f"{name}.txt").write_text(text, encoding="ascii")
        sys.stderr.write(f"{name} {release}: {len(lines)} names\n")


# Walking


def imported(module: str) -> Any:
    return importlib.import_module(module)


def modules(*roots: str) -> Iterator[types.ModuleType]:
    """The importable modules of a package that no rule forbids."""
    for root in roots:
        package = importlib.import_module(root)
        yield package
        for found in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{root}.", onerror=lambda _: None):
            if FORBIDDEN.search(found.name.removeprefix(f"{root}.")):
                continue
            with contextlib.suppress(Exception, SystemExit):
                yield importlib.import_module(found.name)


def defined_in(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    for name, value in list(vars(module).items()):
        if isinstance(value, type) and value.__module__ == module.__name__ and value.__qualname__ == name:
            yield name, value


def add(lines: Lines, module: str, name: str, *flags: str) -> None:
    lines.setdefault((module, name), set()).update(flags)


def add_classes(lines: Lines, roots: list[str], wanted: Callable[[type], bool]) -> None:
    for module in modules(*roots):
        for name, kind in defined_in(module):
            if FORBIDDEN.search(module.__name__):
                continue
            if issubclass(kind, enum.Enum):
                if not kind.__members__ or "Weights" in name:
                    continue
                add(lines, module.__name__, name, "call", "members:" + ",".join(kind.__members__))
            elif wanted(kind):
                flags = flags_of(kind)
                if flags:
                    add(lines, module.__name__, name, *flags)


def flags_of(kind: type) -> set[str]:
    """What may be done with a class; nothing when one of its own functions would run and nobody reviewed it."""
    flags = {"class"}
    for special in ("__new__", "__del__", "__getattr__", "__getattribute__", "__setstate__", "__setattr__"):
        owner = next((base for base in kind.__mro__ if special in vars(base)), object)
        if owner.__module__ == "builtins" or _is_generic(owner):
            continue
        full = f"{owner.__module__}.{owner.__qualname__}.{special}"
        if special == "__setattr__":  # attributes go into __dict__ directly
            continue
        reviewed = [word for known, word in REVIEWED_STATES.items() if full.startswith(known)]
        if special == "__setstate__" and reviewed:
            flags = set(reviewed[:1])
        elif special == "__setstate__" or not any(full.startswith(known) for known in REVIEWED_MAKING):
            if "-v" in sys.argv:
                sys.stderr.write(f"  left out {kind.__module__}.{kind.__qualname__}: {full}\n")
            return set()
    for base, flag, setter in ((dict, "dict", "__setitem__"), (list, "list", "append")):
        if issubclass(kind, base) and getattr(kind, setter) is getattr(base, setter):
            flags.add(flag)
    return flags


def _is_generic(owner: type) -> bool:
    return owner.__module__ in ("typing", "abc", "enum", "collections", "collections.abc")


def add_functions(lines: Lines, names: list[str]) -> None:
    """The functions that these modules define or export, as values."""
    for module_name in names:
        module = importlib.import_module(module_name)
        for name, value in vars(module).items():
            callable_value = isinstance(value, types.FunctionType | types.BuiltinFunctionType) or inspect.isbuiltin(
                value
            )
            if not callable_value or HARMFUL_NAME.search(name):
                continue
            home = getattr(value, "__module__", None) or module_name
            tops = (module_name, "torch._C._nn", "torch.nn.functional") if "torch" in module_name else (module_name,)
            if (
                not home.startswith(tops)
                or name.startswith("_")
                or FORBIDDEN.search(home)
                or getattr(value, "__name__", "") != name
            ):
                continue
            if hasattr(value, "__code__") and _reaches_out(value):
                continue
            add(lines, home, name, "name")


def _reaches_out(function: Any) -> bool:
    """Whether a function takes something like a path, or is a generator of test data."""
    with contextlib.suppress(ValueError, TypeError):
        parameters = inspect.signature(inspect.unwrap(function)).parameters
        return any(re.search(r"file|path|fname|url|memory|open", name) for name in parameters)
    return True


def by_hand(lines: Lines, text: str) -> None:
    for line in text.strip().splitlines():
        module, name, *flags = line.split()
        add(lines, module, name, *flags)


# numpy and scipy


def _ufunc_aliases(lines: Lines, roots: tuple[str, ...]) -> None:
    np = imported("numpy")

    for module_name, module in list(sys.modules.items()):
        if module is None or not module_name.startswith(roots) or FORBIDDEN.search(module_name):
            continue
        for name, value in list(vars(module).items()):
            if isinstance(value, np.ufunc) and value.__name__ == name:
                add(lines, module_name, name, "name")
                if "._core" in module_name:
                    add(lines, module_name.replace("._core", ".core"), name, "name")


def numpy(lines: Lines) -> None:
    np = imported("numpy")

    _ufunc_aliases(lines, ("numpy",))
    kinds = {kind.__name__ for kind in np.sctypeDict.values()} | {
        "bool_",
        "bool8",
        "object_",
        "float_",
        "int_",
        "complex_",
    }
    for name in kinds | {"generic", "number", "floating", "integer", "inexact", "unicode_", "string_"}:
        add(lines, "numpy", name, "name")
    for module in ("numpy.core.numerictypes", "numpy._core.numerictypes"):
        add(lines, module, "bool_", "name")
    for name in dir(np.dtypes):
        if name.endswith("DType"):
            add(lines, "numpy.dtypes", name, "name")
    numeric = (
        "mean median std var sum prod min max amin amax argmin argmax cumsum cumprod clip round around nanmean nanmedian "
        "nanstd nanvar nansum nanmin nanmax average percentile quantile ptp sort argsort unique diff ravel squeeze "
        "transpose dot outer inner concatenate hstack vstack where nan_to_num real imag angle count_nonzero linspace "
        "logspace zeros_like ones_like asarray array"
    )
    for name in numeric.split():
        value = getattr(np, name)
        add(lines, "numpy", name, "name")
        add(lines, value.__module__ or "numpy", name, "name")
    by_hand(
        lines,
        """
        numpy.random.bit_generator SeedSequence state
        numpy.random.bit_generator __pyx_unpickle_SeedSequence maker
        numpy.random._bit_generator SeedSequence state
        numpy.random._bit_generator __pyx_unpickle_SeedSequence maker
        numpy.random._mt19937 MT19937 name
        numpy.linalg norm name
        numpy.linalg.linalg norm name
        numpy.linalg._linalg norm name
        numpy.polynomial.polynomial Polynomial class
    """,
    )


def scipy(lines: Lines) -> None:
    sparse = imported("scipy.sparse")
    imported("scipy.special")

    _ufunc_aliases(lines, ("scipy.special",))
    add_functions(lines, ["scipy.special"])
    for name in dir(sparse):
        kind = getattr(sparse, name)
        if isinstance(kind, type) and name.endswith(("_matrix", "_array")):
            add(lines, kind.__module__, name, "class")
            add(lines, kind.__module__.replace("._", "."), name, "class")  # before scipy 1.8
    by_hand(
        lines,
        """
        scipy._lib.array_api_compat.numpy._aliases asarray name
        scipy.interpolate._interpolate interp1d class
        scipy.interpolate.interpolate interp1d class
        scipy.interpolate._bsplines BSpline class
        scipy.interpolate._cubic CubicSpline class
        scipy.interpolate._cubic PchipInterpolator class
        scipy.interpolate._fitpack2 UnivariateSpline name
        scipy.spatial._kdtree KDTree name
    """,
    )


# scikit-learn


def sklearn(lines: Lines) -> None:
    wanted = (
        imported("sklearn.base").BaseEstimator,
        imported("sklearn.gaussian_process.kernels").Kernel,
        imported("sklearn.metrics._scorer")._BaseScorer,
        imported("sklearn.model_selection").BaseCrossValidator,
        imported("sklearn.model_selection").BaseShuffleSplit,
    )
    areas = {
        "sklearn._loss",
        "sklearn.utils._bunch",
        "sklearn.utils._tags",
        "sklearn.utils._metadata_requests",
        "sklearn.calibration",
        "sklearn.ensemble._hist_gradient_boosting",
        "sklearn.ensemble._gb_losses",
        "sklearn.gaussian_process",
        "sklearn.cluster._birch",
        "sklearn.neural_network._stochastic_optimizers",
        "sklearn.metrics._scorer",
        "sklearn.model_selection._split",
        "sklearn.linear_model._glm",
        "sklearn.preprocessing._function_transformer",
    }
    add_classes(
        lines,
        ["sklearn"],
        lambda kind: (
            issubclass(kind, wanted)
            or (
                kind.__module__.startswith(tuple(areas))
                and not hasattr(kind, "__reduce_cython__")
                and not _is_native(kind)
            )
        ),
    )
    for name in NATIVE:
        _add_native(lines, importlib.import_module(name))
    add_functions(
        lines,
        ["sklearn.metrics", "sklearn.metrics.pairwise", "sklearn.feature_selection", "sklearn.preprocessing"],
    )
    by_hand(lines, SKLEARN_OF_OTHER_YEARS)


def _is_native(kind: type) -> bool:
    return not kind.__flags__ & (1 << 9)  # Py_TPFLAGS_HEAPTYPE: written in Python


NATIVE = {
    # How each class of these modules pickles itself: as a call with plain values, or as `newObj(class)` and a state.
    "sklearn._loss._loss": "call",
    "sklearn.linear_model._sgd_fast": "call",
    "sklearn.metrics._dist_metrics": "state",
    "sklearn.neighbors._kd_tree": "state",
    "sklearn.neighbors._ball_tree": "state",
    "sklearn.neighbors._quad_tree": "call state",
    "sklearn.tree._tree": "call state",
}


def _add_native(lines: Lines, module: types.ModuleType) -> None:
    """Classes written in Cython that fitted estimators hold."""
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__ and not HARMFUL_NAME.search(name):
            if "Builder" not in name and "PyFunc" not in name:
                add(lines, module.__name__, name, *NATIVE[module.__name__].split())
                if NATIVE[module.__name__] == "call":
                    add(lines, module.__name__, name, "state")
        elif name.startswith("__pyx_unpickle_") or name == "newObj":
            add(lines, module.__name__, name, "maker")


SKLEARN_OF_OTHER_YEARS = """
    sklearn.neighbors._dist_metrics EuclideanDistance call state
    sklearn.neighbors._dist_metrics newObj maker
    sklearn.metrics._dist_metrics EuclideanDistance call state
    sklearn.ensemble._gb_losses BinomialDeviance class
    sklearn.ensemble._gb_losses MultinomialDeviance class
    sklearn.ensemble._gb_losses LeastSquaresError class
    sklearn.ensemble._gb_losses ExponentialLoss class
    sklearn.ensemble._hist_gradient_boosting.loss BinaryCrossEntropy class
    sklearn.ensemble._hist_gradient_boosting.loss CategoricalCrossEntropy class
    sklearn.ensemble._hist_gradient_boosting.loss LeastSquares class
    sklearn.linear_model._sgd_fast Log call
    sklearn.linear_model._sgd_fast Hinge call
    sklearn.linear_model._sgd_fast ModifiedHuber call
    sklearn.linear_model._sgd_fast SquaredLoss call
    sklearn.linear_model._sgd_fast SquaredHinge call
    sklearn.linear_model._sgd_fast EpsilonInsensitive call
    sklearn.linear_model._sgd_fast Huber call
    sklearn.metrics._scorer _passthrough_scorer name
    sklearn.cluster._kmeans _kmeans_single_lloyd name
    sklearn.cluster._kmeans _kmeans_single_elkan name
    sklearn.cluster._bisect_k_means _BisectingTree class
    sklearn.gaussian_process.kernels Hyperparameter call
    sklearn.metrics._scorer _PredictScorer class
    sklearn.metrics._scorer _ProbaScorer class
    sklearn.metrics._scorer _ThresholdScorer class
    sklearn.preprocessing.label LabelEncoder class
    sklearn.preprocessing.data StandardScaler class
    sklearn.preprocessing.data MinMaxScaler class
    sklearn.linear_model.logistic LogisticRegression class
    sklearn.linear_model.base LinearRegression class
    sklearn.ensemble.forest RandomForestClassifier class
    sklearn.ensemble.forest RandomForestRegressor class
    sklearn.tree.tree DecisionTreeClassifier class
    sklearn.tree.tree DecisionTreeRegressor class
    sklearn.svm.classes SVC class
    sklearn.neighbors.classification KNeighborsClassifier class
    sklearn.cluster.k_means_ KMeans class
    sklearn.decomposition.pca PCA class
    sklearn.utils Bunch class dict
"""


# Boosting


def lightgbm(lines: Lines) -> None:
    by_hand(
        lines,
        """
        lightgbm.basic Booster state
        lightgbm.sklearn LGBMModel class
        lightgbm.sklearn LGBMClassifier class
        lightgbm.sklearn LGBMRegressor class
        lightgbm.sklearn LGBMRanker class
        lightgbm.sklearn _ObjectiveFunctionWrapper class
        lightgbm.sklearn _EvalFunctionWrapper class
        lightgbm.basic _ConfigAliases name
    """,
    )
    _still_reads_from_memory(imported("lightgbm.basic").Booster, "LGBM_BoosterLoadModelFromString")


def _still_reads_from_memory(booster: Any, function: str) -> None:
    """Stops when somebody changed what a state can do."""
    if function not in inspect.getsource(booster.__setstate__):
        raise SystemExit(f"review {booster}.__setstate__: it no longer uses {function}")


def xgboost(lines: Lines) -> None:
    base = imported("xgboost.sklearn").XGBModel
    add_classes(lines, ["xgboost.sklearn"], lambda kind: issubclass(kind, base))
    add(lines, "xgboost.core", "Booster", "state")
    _still_reads_from_memory(imported("xgboost.core").Booster, "XGBoosterUnserializeFromBuffer")


def catboost(lines: Lines) -> None:
    for name in ("CatBoost", "CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker"):
        add(lines, "catboost.core", name, "state")


# pandas


def pandas(lines: Lines) -> None:
    """Tables, columns, indexes and their types; under the names of pandas 1 and 2 (`pandas.core…`) and of 3."""
    for public, private, names, *flags in (
        ("pandas", "pandas.core.frame", "DataFrame", "state"),
        ("pandas", "pandas.core.series", "Series", "state"),
        ("pandas", "pandas.core.flags", "Flags", "class"),
        ("pandas", "pandas.core.indexes.base", "Index", "class"),
        ("pandas", "pandas.core.indexes.range", "RangeIndex", "class"),
        ("pandas", "pandas.core.indexes.multi", "MultiIndex", "class"),
        ("pandas", "pandas.core.indexes.category", "CategoricalIndex", "class"),
        ("pandas", "pandas.core.indexes.datetimes", "DatetimeIndex", "class"),
        ("pandas", "pandas.core.indexes.timedeltas", "TimedeltaIndex", "class"),
        ("pandas", "pandas.core.indexes.period", "PeriodIndex", "class"),
        ("pandas", "pandas.core.indexes.interval", "IntervalIndex", "class"),
        ("pandas", "pandas.core.indexes.numeric", "Int64Index UInt64Index Float64Index", "class"),
        ("pandas.core.indexes.frozen", "pandas.core.indexes.frozen", "FrozenList", "class", "call"),
        ("pandas", "pandas.core.arrays.categorical", "Categorical", "state"),
        ("pandas.arrays", "pandas.core.arrays.datetimes", "DatetimeArray", "state"),
        ("pandas.arrays", "pandas.core.arrays.timedeltas", "TimedeltaArray", "state"),
        ("pandas.arrays", "pandas.core.arrays.string_", "StringArray", "state"),
        ("pandas.arrays", "pandas.core.arrays.string_", "StringArrayNumpySemantics", "state"),
        ("pandas.arrays", "pandas.core.arrays.numpy_", "NumpyExtensionArray", "state"),
        ("pandas.arrays", "pandas.core.arrays.integer", "IntegerArray", "class"),
        ("pandas.arrays", "pandas.core.arrays.floating", "FloatingArray", "class"),
        ("pandas.arrays", "pandas.core.arrays.boolean", "BooleanArray", "class"),
        ("pandas", "pandas.core.arrays.string_", "StringDtype", "class", "call"),
        ("pandas", "pandas.core.arrays.boolean", "BooleanDtype", "class", "call"),
        ("pandas", "pandas.core.arrays.integer", "Int8Dtype Int16Dtype Int32Dtype Int64Dtype", "class", "call"),
        ("pandas", "pandas.core.arrays.integer", "UInt8Dtype UInt16Dtype UInt32Dtype UInt64Dtype", "class", "call"),
        ("pandas", "pandas.core.arrays.floating", "Float32Dtype Float64Dtype", "class", "call"),
        ("pandas", "pandas.core.dtypes.dtypes", "CategoricalDtype DatetimeTZDtype", "class"),
        ("pandas", "pandas._libs.tslibs.timestamps", "Timestamp", "call"),
        ("pandas", "pandas._libs.tslibs.timedeltas", "Timedelta", "call"),
        ("pandas", "pandas._libs.missing", "NAType", "call"),
        ("pandas.api.typing", "pandas._libs.missing", "NAType", "call"),
        ("pandas", "pandas._libs.missing", "NA", "name"),
    ):
        for name in names.split():
            add(lines, public, name, *flags)
            add(lines, private, name, *flags)
    by_hand(
        lines,
        """
        pandas.core.internals.managers BlockManager call state
        pandas.core.internals.managers SingleBlockManager call state
        pandas._libs.internals _unpickle_block call
        pandas._libs.arrays __pyx_unpickle_NDArrayBacked maker
        pandas._libs.tslibs.timestamps _unpickle_timestamp call
        pandas._libs.tslibs.timedeltas _timedelta_unpickle call
        pandas._libs.tslibs.nattype _nat_unpickle call
        pandas._libs.missing C_NAType call
        pandas._libs.tslibs.offsets Day call state
        pandas.tseries.offsets Day call state
    """,
    )


# torch and what is built on it


def torch(lines: Lines) -> None:
    framework = imported("torch")
    nn = framework.nn
    base = framework.optim.Optimizer
    add_classes(
        lines, ["torch.nn.modules", "torch.nn.parameter", "torch.nn.utils"], lambda kind: issubclass(kind, nn.Module)
    )
    add_classes(lines, ["torch.ao.nn", "torch.ao.quantization"], lambda kind: issubclass(kind, nn.Module))
    add_classes(lines, ["torch.optim"], lambda kind: issubclass(kind, base))
    for name in dir(framework.optim.lr_scheduler):
        kind = getattr(framework.optim.lr_scheduler, name)
        if isinstance(kind, type) and issubclass(kind, framework.optim.lr_scheduler.LRScheduler):
            add(lines, kind.__module__, name, "class")
    add_functions(lines, ["torch.nn.functional", "torch._C._nn", "torch.nn.init"])
    for name in dir(framework.nn.functional):
        value = getattr(framework.nn.functional, name)
        if inspect.isbuiltin(value) and getattr(value, "__module__", None) == "torch._C._nn":
            add(lines, "torch._C._nn", name, "name")
    by_hand(
        lines,
        """
        torch._C _VariableFunctionsClass name
        torch._C Generator name
        torch ScriptObject state
        torch.torch_version TorchVersion call
        torch.nn.parameter Parameter name
        torch.nn.parameter Buffer name
        torch.nn Parameter name
        torch.nn.parallel.data_parallel DataParallel class
        torch.nn.utils.weight_norm WeightNorm class
        torch.nn.utils.spectral_norm SpectralNorm class
        torch.nn.utils.spectral_norm SpectralNormLoadStateDictPreHook class
        torch.nn.utils.spectral_norm SpectralNormStateDictHook class
        torch.nn.modules.module _WrappedHook state
        torch.amp.grad_scaler GradScaler class
        torch.cuda.amp.grad_scaler GradScaler class
        torch.nn.modules.linear _LinearWithBias class
    """,
    )


def _define_missing_operators() -> None:
    """The package refuses to be imported where its native part is not there for the installed torch."""
    library = imported("torch.library").Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT.append(library)


KEPT: list[Any] = []


def torchvision(lines: Lines) -> None:
    _define_missing_operators()
    nn = imported("torch.nn")
    add_classes(
        lines,
        ["torchvision.models", "torchvision.ops", "torchvision.transforms"],
        lambda kind: issubclass(kind, nn.Module) or kind.__module__ == "torchvision.transforms.transforms",
    )
    for found in [pair for pair in lines if pair[1].endswith("_Weights") or pair[1] == "Lambda"]:
        del lines[found]
    by_hand(
        lines,
        """
        torchvision.models.detection.image_list ImageList class
        torchvision.models.detection.anchor_utils AnchorGenerator class
        torchvision.models.detection._utils BoxCoder class
        torchvision.models.detection._utils Matcher class
        torchvision.models.detection._utils SSDMatcher class
        torchvision.ops.boxes box_iou name
        torchvision.ops.boxes nms name
        torchvision.models.detection._utils BalancedPositiveNegativeSampler class
    """,
    )


def timm(lines: Lines) -> None:
    nn = imported("torch.nn")
    add_classes(lines, ["timm.models", "timm.layers"], lambda kind: issubclass(kind, nn.Module))


def ultralytics(lines: Lines) -> None:
    nn = imported("torch.nn")
    add_classes(lines, ["ultralytics.nn.tasks", "ultralytics.nn.modules"], lambda kind: issubclass(kind, nn.Module))
    by_hand(
        lines,
        """
        ultralytics.utils IterableSimpleNamespace class
        ultralytics.utils.loss v8DetectionLoss class
        ultralytics.utils.loss v8SegmentationLoss class
        ultralytics.utils.loss v8PoseLoss class
        ultralytics.utils.loss v8ClassificationLoss class
        ultralytics.utils.loss v8OBBLoss class
        ultralytics.utils.loss E2EDetectLoss class
        ultralytics.utils.loss BboxLoss class
        ultralytics.utils.loss DFLoss class
        ultralytics.utils.tal TaskAlignedAssigner class
    """,
    )


FRAMEWORKS: dict[str, tuple[str, Callable[[Lines], None]]] = {
    "numpy": ("numpy", numpy),
    "scipy": ("scipy", scipy),
    "sklearn": ("scikit-learn", sklearn),
    "lightgbm": ("lightgbm", lightgbm),
    "xgboost": ("xgboost-cpu", xgboost),
    "catboost": ("catboost", catboost),
    "pandas": ("pandas", pandas),
    "torch": ("torch", torch),
    "torchvision": ("torchvision", torchvision),
    "timm": ("timm", timm),
    "ultralytics": ("ultralytics", ultralytics),
}

if __name__ == "__main__":
    main([name for name in sys.argv[1:] if not name.startswith("-")])
