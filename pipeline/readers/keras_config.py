"""Configurations of Keras models (JSON): every class and function they name must be one of Keras' own, and only compute.

The lists come from keras and tf_keras. Whatever carries code, names a file or an address, or is not on the list, stops.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from pipeline.readers import lists, strict_json
from pipeline.readers.inspection import Inspection, Malformed, Severity
from pipeline.readers.words import words

_MARKS = frozenset(
    {
        "__tuple__",
        "__keras_tensor__",
        "__tensor__",
        "__numpy__",
        "__bytes__",
        "__ellipsis__",
        "__slice__",
        "TensorShape",
    }
)
_CODE = words("Lambda __lambda__ TensorFlowOpLayer CustomGradient")
_OPERATOR_LAYERS = words("TFOpLambda SlicingOpLambda")
_LOADERS = words(
    "TorchModuleWrapper TFSMLayer JaxLayer FlaxLayer __typespec__ __class__ Map Scan AssociativeScan WhileLoop ForiLoop Switch"
    " Cond VectorizedMap Function Operation"
)
_OWN = re.compile(r"(?:tensorflow\.(?:python\.)?|tf\.|tf_)?keras(?=\.|$)")
# Modules of Keras that hold helpers, not parts of models: what is called there reads files, loads models or runs code.
_HELPERS = re.compile(
    r"keras(?:\.src|\.api)?(?:\._legacy|\._tf_keras\.keras)?\.(?:utils|saving|models|legacy|config|export|backend|trainers|callbacks|datasets|"
    r"testing|wrappers|tree|distribution|preprocessing)(?:\.|$)"
)
_BACKEND_OPTIMIZER = re.compile(r"keras\.src\.backend\.(?:torch|tensorflow|jax)\.optimizers\.[a-z_]+")
_PARTS = re.compile(
    r"keras\.(?:src\.)?(?:layers|ops|engine|models|optimizers|losses|metrics|initializers|regularizers|constraints|"
    r"activations|applications|dtype_policies|quantizers|random|mixed_precision)(?:\.[a-z0-9_]+)+"
)
_PATHS = words(
    "vocabulary idf_weights filepath file file_path path filename url origin saved_model call_endpoint asset_path"
)
_ADDRESS = re.compile(r"(?:[/~\\]|\.\.[/\\]|[A-Za-z]:[\\/]|[A-Za-z][A-Za-z0-9+.-]*://|file:)")
_MARSHALLED = re.compile(r"\s*(?:4w[A-P]|Y[w-z])[A-Za-z0-9+/\s]{40,}={0,2}\s*")
_OPERATOR = re.compile(
    r"(?:math|nn|linalg|signal|bitwise|__operators__|compat\.v1\.(?:math|nn|linalg))\.[a-z_0-9]+(?:_v2)?"
)
_PLAIN_OPERATORS = words(
    "abs add add_n argmax argmin argsort broadcast_to cast clip_by_value concat convert_to_tensor cos cumsum divide einsum equal exp "
    "expand_dims eye fill floor gather gather_nd greater greater_equal identity less less_equal logical_and logical_not "
    "logical_or matmul maximum meshgrid minimum multiply negative norm not_equal one_hot ones ones_like pad pow range "
    "reduce_all reduce_any reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod reduce_sum repeat reshape reverse "
    "roll round rsqrt shape sigmoid sign sin size slice sort split sqrt square squeeze stack stop_gradient strided_slice "
    "subtract tan tanh tensordot tile transpose truediv unstack where zeros zeros_like image.resize image.resize_nearest_neighbor"
)
_PLAIN_NAME = re.compile(r"(?:\w+>)?\w+")
_LONGEST = 16 << 20
_DEEPEST = 150


@cache
def _allowed() -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]], frozenset[str]]:
    """Classes and functions by (module, name), and the names of classes alone, as Keras 2 writes them."""
    entries = [line.split(" ") for line in lists.read("keras")]
    classes = frozenset((module, name) for kind, module, name in entries if kind == "class")
    functions = frozenset((module, name) for kind, module, name in entries if kind == "function")
    return classes, functions, frozenset(name for _, name in classes)


def parse(content: bytes) -> Any:
    """The document, which must be strict JSON and no longer than a configuration may be."""
    if len(content) > _LONGEST:
        raise Malformed("text.oversized", f"{len(content):,} bytes are more than any configuration needs.", 0)
    return strict_json.parse(content)


def check(document: Any, path: str, inspection: Inspection, *, described: bool = False) -> None:
    """Judge a whole configuration; `path` names it in findings.

    Where the model is only `described`, and its graph stands elsewhere, classes that nobody knows are named and let pass:
    nothing of them is in the file.
    """
    _Walk(path, inspection, described=described).value(document, "", 0, listed=False)


class _Walk:
    def __init__(self, path: str, inspection: Inspection, *, described: bool) -> None:
        self.path = path
        self.described = described
        self.inspection = inspection
        self.count = 0

    def value(self, value: Any, key: str, depth: int, *, listed: bool) -> None:
        self.count += 1
        if self.count % 4096 == 0:
            self.inspection.tick()
        if depth > _DEEPEST:
            raise Malformed("limit.nesting", "The configuration is nested deeper than any real one.")
        if isinstance(value, dict):
            self.entry(value)
            for name, part in value.items():
                self.value(part, name, depth + 1, listed=False)
        elif isinstance(value, list):
            for part in value:
                self.value(part, key, depth + 1, listed=True)
        elif isinstance(value, str):
            self.text(value, key, listed=listed)

    def text(self, value: str, key: str, *, listed: bool) -> None:
        if _MARSHALLED.fullmatch(value):
            self.inspection.malicious("keras.code", self.path, None, f"{key[:60]!r} holds compiled Python code.")
        elif (key in _PATHS and not listed and value) or (_ADDRESS.match(value) and not listed):
            self.inspection.unknown(
                "keras.file",
                self.path,
                None,
                f"{key[:60]!r} names a file or an address: {value[:120]!r}. Loading the model would read it.",
                "Put the values themselves into the model (for a vocabulary: a list) and save it again.",
            )

    def entry(self, entry: Mapping[str, Any]) -> None:
        """One object of the configuration; only those that name a class are built."""
        if entry.get("function_type") == "lambda" or entry.get("output_shape_type") == "lambda":
            self.inspection.malicious("keras.lambda", self.path, None, "A layer carries compiled Python code.")
        if not entry.keys() & {"class_name", "registered_name"}:
            return
        name, module, registered = (entry.get(part) for part in ("class_name", "module", "registered_name"))
        if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
            raise Malformed("keras.config", "A class or a module is not named by a text.")
        config = entry.get("config")
        if name == "function":
            self.function(config, module, registered)
        else:
            self.named(name, module, registered, config)

    def named(self, name: str, module: str | None, registered: str | None, config: Any) -> None:
        shown = f"{module}.{name}" if module else name
        _, _, bare = _allowed()
        own = _normal(module)
        # Keras 2 marks its own optimizers like this; what is registered under the name is not in the file.
        name = name.removeprefix("Custom>") if own is None and name.removeprefix("Custom>") in bare else name
        if {name, registered} & _CODE or name.rsplit(">", 1)[-1] in _CODE or name.rsplit(".", 1)[-1] in _CODE:
            carried = isinstance(config, dict) and _carries_code(config.get("function", config.get("value")))
            note = self.inspection.malicious if carried or name == "__lambda__" else self.inspection.unknown
            note("keras.lambda", self.path, None, f"{shown[:120]!r} runs code that the file brings along.")
        elif name in _LOADERS or registered in _LOADERS:
            self.inspection.malicious(
                "keras.loader", self.path, None, f"{shown[:120]!r} loads pickles, files or code that the file names."
            )
        elif module is None and (name in _MARKS or (name == "TypeSpec" and config is None)):
            return
        elif name in _OPERATOR_LAYERS and own in (None, "keras.layers", "keras.src.layers.core.tf_op_layer"):
            self.operator(config)
        elif name in bare and _is_part(own, name) and registered in (None, name, f"keras>{name}"):
            return
        else:
            self.stranger("keras.class", shown, own, name)

    def function(self, config: Any, module: str | None, registered: str | None) -> None:
        if not isinstance(config, str):
            raise Malformed("keras.config", "A function is not named by a text.")
        _, functions, _ = _allowed()
        own = _normal(module)
        known = any(label == config for _, label in functions) if own is None else (own, config) in functions
        if not known or registered not in (None, "function", config):
            self.stranger("keras.function", f"{module}.{config}" if module else config, own, config)

    def operator(self, config: Any) -> None:
        """Keras 2 calls functions of TensorFlow by their public names."""
        function = config.get("function") if isinstance(config, dict) else None
        if not isinstance(function, str) or not (_OPERATOR.fullmatch(function) or function in _PLAIN_OPERATORS):
            self.stranger("keras.function", f"tf.{function}", None, str(function))

    def stranger(self, rule: str, shown: str, module: str | None, name: str) -> None:
        """Something that is not on the lists. Modules of Python and helpers of Keras have no business in a model."""
        outside = module or "keras"
        dangerous = name in _GADGETS or _HELPERS.match(outside) is not None or outside.split(".")[0] in _STANDARD
        severity = Severity.MALICIOUS if dangerous else Severity.UNKNOWN
        if self.described and module is None and not dangerous and _PLAIN_NAME.fullmatch(name):
            severity = Severity.INFO
        self.inspection.note(
            severity,
            rule,
            self.path,
            None,
            f"The configuration names {shown[:160]!r}, which is no part of a Keras model.",
            advice="Build the model of Keras' own layers and functions, or have a reviewer look at it."
            if severity is Severity.UNKNOWN
            else None,
        )


_STANDARD = words(
    "os posix nt sys subprocess shutil importlib runpy ctypes pickle cPickle _pickle marshal socket urllib http ftplib "
    "webbrowser code codeop pty commands tempfile pathlib io _io multiprocessing threading asyncio signal platform pip "
    "timeit pdb profile cProfile bdb trace pkgutil zipimport operator _operator functools types inspect ast dill joblib "
    "cloudpickle torch requests"
)
_GADGETS = words(
    "eval exec compile system popen getattr setattr delattr __import__ import_module open input globals locals vars breakpoint "
    "spawn execv execve run call check_output check_call Popen get_file load_model load_weights save_model save_weights "
    "enable_unsafe_deserialization disable_safe_mode attrgetter methodcaller loads load apply partial remove rmtree unlink rename "
    "read_file write_file py_function numpy_function py_func io.read_file io.write_file io.gfile"
)


def _is_part(module: str | None, name: str) -> bool:
    """Whether a class on the list stands in a module of its own; releases of Keras move it about in packages of parts."""
    classes, _, _ = _allowed()
    if module is not None and _BACKEND_OPTIMIZER.fullmatch(module):  # Keras writes them by where they really are
        return ("keras.optimizers", name) in classes
    return module is None or (module, name) in classes or _PARTS.match(module) is not None


def _normal(module: str | None) -> str | None:
    """`keras.…` for every name under which TensorFlow has shipped Keras."""
    return None if module is None else _OWN.sub("keras", module, count=1)


def _carries_code(function: Any) -> bool:
    """Whether a Lambda's function is code and not the name of a function."""
    if isinstance(function, list):
        return bool(function) and isinstance(function[0], str)
    if isinstance(function, dict):
        return function.get("class_name") == "__lambda__"
    return isinstance(function, str) and _MARSHALLED.fullmatch(function) is not None
