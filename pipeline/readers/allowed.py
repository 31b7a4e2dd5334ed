"""Which globals a pickle may name, and which of them it may call with what. Knows no opcodes.

Allow-lists of exact `(module, name)` pairs: a new gadget is unknown until somebody reviews it. The lists of whole
frameworks are generated, reviewed as a diff and lie beside this file (`allow/`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from pipeline.readers import arrays, checks
from pipeline.readers.checks import BUILTINS, Check, StateCheck
from pipeline.readers.symbols import Pair
from pipeline.readers.words import words

_LISTS = Path(__file__).parent / "allow"


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """`calls` may be called when their check agrees; `names` may stand there as data.

    `classes` may be made without arguments (or with those that `calls` accepts); `states` says what may be set as the
    state of an instance, or of what a call returned. What is in `tables` takes entries as a dict does, what is in
    `lists` takes items as a list does. `makers` return an instance of the class that is their first argument.
    `members` has the names that `getattr` may fetch from a class.

    `tools` may be called but never stand as a value that somebody else might call later.

    `is_class` adds classes that follow a rule instead of a list. `storages` lets persistent ids name tensor storages, `tensors` lets them name the tensors of the oldest torch files.
    """

    calls: Mapping[Pair, Check] = field(default_factory=dict)
    names: frozenset[Pair] = frozenset()
    classes: frozenset[Pair] = frozenset()
    states: Mapping[Pair, StateCheck] = field(default_factory=dict)
    tables: frozenset[Pair] = frozenset()
    lists: frozenset[Pair] = frozenset()
    makers: frozenset[Pair] = frozenset()
    members: Mapping[Pair, frozenset[str]] = field(default_factory=dict)
    tools: frozenset[Pair] = frozenset()
    is_class: Callable[[Pair], bool] = frozenset[Pair]().__contains__
    storages: bool = False
    tensors: bool = False

    def knows(self, pair: Pair) -> bool:
        return pair in self.calls or pair in self.names or pair in self.classes or self.is_class(pair)


def _in_builtins(names: str) -> frozenset[Pair]:
    return frozenset((module, name) for module in BUILTINS for name in words(names))


_COPYREG = ("copyreg", "copy_reg")

PLAIN = Allowed(
    calls={
        ("collections", "OrderedDict"): checks.data,
        ("collections", "Counter"): checks.data,
        ("collections", "deque"): checks.data,
        ("collections", "defaultdict"): checks.default_factory,
        ("_codecs", "encode"): checks.encoded,
        **dict.fromkeys(_in_builtins("set frozenset list tuple dict"), checks.data),
        **dict.fromkeys(_in_builtins("complex slice range xrange"), checks.plain),
        **dict.fromkeys(_in_builtins("bytearray"), checks.given_bytes),
        **dict.fromkeys(_in_builtins("bytes object"), checks.nothing),
        **dict.fromkeys(_in_builtins("type"), checks.kind_of_nothing),
        **dict.fromkeys((("datetime", name) for name in words("datetime date time timedelta timezone")), checks.moment),
        **dict.fromkeys(
            (("pathlib", f"{kind}Path") for kind in words("Pure Posix Windows PurePosix PureWindows")),
            checks.texts_and_numbers,
        ),
        **dict.fromkeys(
            (("pathlib._local", f"{kind}Path") for kind in words("Pure Posix Windows PurePosix PureWindows")),
            checks.texts_and_numbers,
        ),
        ("decimal", "Decimal"): checks.texts_and_numbers,
        ("fractions", "Fraction"): checks.fraction,
        **{(module, "__newobj__"): checks.instance for module in _COPYREG},
        **{(module, "_reconstructor"): checks.reconstructed for module in _COPYREG},
    },
    classes=frozenset(
        {("uuid", "UUID"), ("argparse", "Namespace"), ("types", "SimpleNamespace"), ("collections", "OrderedDict")}
    ),
    states={
        ("collections", "OrderedDict"): checks.attributes,
        ("uuid", "UUID"): checks.attributes,
        ("argparse", "Namespace"): checks.attributes,
        ("types", "SimpleNamespace"): checks.attributes,
    },
    names=_in_builtins("int float str unicode long bool bytes object NoneType Ellipsis NotImplemented"),
    tables=frozenset(
        {("collections", name) for name in words("OrderedDict Counter defaultdict")} | _in_builtins("dict")
    ),
    lists=frozenset({("collections", "deque")} | _in_builtins("list")),
    makers=frozenset((module, name) for module in _COPYREG for name in ("__newobj__", "_reconstructor")),
)
"""Pickles of plain Python data."""

_STORAGES = (
    "Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "Float", "Double", "BFloat16", "ComplexFloat",
    "ComplexDouble", "QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4", "Untyped",
)  # fmt: skip
_DTYPES = (
    "float32", "float", "float64", "double", "float16", "half", "bfloat16", "uint8", "int8", "int16", "short", "int32",
    "int", "int64", "long", "bool", "complex64", "complex128", "uint16", "uint32", "uint64", "float8_e4m3fn",
    "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "qint8", "quint8", "qint32",
)  # fmt: skip
_SCHEMES = ("per_tensor_affine", "per_channel_affine", "per_channel_affine_float_qparams", "strided")

TENSORS = replace(
    PLAIN,
    calls={
        **PLAIN.calls,
        ("torch._utils", "_rebuild_tensor"): checks.tensor,
        ("torch._utils", "_rebuild_tensor_v2"): checks.tensor,
        ("torch._utils", "_rebuild_tensor_v3"): checks.tensor,
        ("torch._utils", "_rebuild_parameter"): checks.plain,
        ("torch._utils", "_rebuild_parameter_with_state"): checks.parameter_with_state,
        ("torch._utils", "_rebuild_qtensor"): checks.quantised_tensor,
        ("torch._utils", "_rebuild_sparse_tensor"): checks.plain,
        ("torch._utils", "_rebuild_meta_tensor_no_storage"): checks.named_tensor,
        ("torch._tensor", "_rebuild_from_type_v2"): checks.typed_tensor,
        ("torch", "Size"): checks.plain,
        ("torch", "device"): checks.texts_and_numbers,
        ("torch.serialization", "_get_layout"): checks.texts_and_numbers,
    },
    names=PLAIN.names
    | {
        (module, f"{name}{kind}")
        for module in ("torch", "torch.cuda")
        for name in _STORAGES
        for kind in ("Storage", "Tensor")
    }
    | {("torch.storage", "UntypedStorage"), ("torch", "Tensor"), ("torch._tensor", "Tensor")}
    | {("torch", name) for name in (*_DTYPES, *_SCHEMES)},
    storages=True,
)
"""Checkpoints that hold tensors and plain data, and nothing that belongs to a class of their own."""


def _scripted(pair: Pair) -> bool:
    """Names of classes that a TorchScript archive defines in its own code; they are looked up there, not in Python."""
    module, name = pair
    native = module == "__torch__.torch.classes" or module.startswith("__torch__.torch.classes.")
    if native:
        return pair in NATIVE_CLASSES
    return module.split(".", 1)[0] == "__torch__" and all(part.isidentifier() for part in (*module.split("."), name))


NATIVE_CLASSES = frozenset(
    {
        ("__torch__.torch.classes.quantized", f"{kind}PackedParamsBase")
        for kind in ("Linear", "Conv2d", "Conv3d", "Embedding")
    }
    | {("__torch__.torch.classes.sparse", "LinearPackedParamsBase"), ("__torch__.torch.classes.rnn", "CellParamsBase")}
)
"""Classes of torch itself, written in C++, that an archive may hold: packed weights."""

SCRIPT = replace(
    TENSORS,
    calls={
        **TENSORS.calls,
        **{("torch.jit._pickle", f"build_{kind}list"): checks.plain for kind in ("int", "double", "bool", "tensor")},
        ("torch.jit._pickle", "restore_type_tag"): checks.plain,
    },
    is_class=_scripted,
)
"""What `torch.jit.save` writes."""


@cache
def frameworks() -> Allowed:
    """What the frameworks' own pickles hold: whole estimators and modules, arrays, tables, and all of the above."""
    flags = _read_lists()

    def having(flag: str) -> frozenset[Pair]:
        return frozenset(pair for pair, found in flags.items() if flag in found)

    classes = having("class") | having("state")
    calls: dict[Pair, Check] = {
        **dict.fromkeys(having("call"), checks.plain),
        **dict.fromkeys(having("maker"), checks.instance),
        **dict.fromkeys(_in_builtins("getattr"), checks.member),
        **TENSORS.calls,
        **arrays.CALLS,
        ("functools", "partial"): checks.layer,
        ("pandas.core.indexes.base", "_new_Index"): checks.new_index,
        ("pandas.core.indexes.datetimes", "_new_DatetimeIndex"): checks.new_index,
        ("pandas", "StringDtype"): checks.string_type,
        ("pandas.core.arrays.string_", "StringDtype"): checks.string_type,
        ("torch.storage", "_load_from_bytes"): checks.torch_inside,
    }
    states: dict[Pair, StateCheck] = {
        **dict.fromkeys(having("class"), checks.attributes),
        **dict.fromkeys(having("state"), checks.any_state),
        **TENSORS.states,
        **arrays.STATES,
        ("functools", "partial"): checks.layer_options,
    }
    return replace(
        TENSORS,
        calls=calls,
        names=TENSORS.names | arrays.NAMES | having("name") | _in_builtins("set frozenset list tuple dict complex"),
        classes=TENSORS.classes | classes | arrays.JOBLIB_WRAPPERS,
        states=states,
        tables=TENSORS.tables | having("dict"),
        lists=TENSORS.lists | having("list"),
        makers=TENSORS.makers | having("maker"),
        members={pair: frozenset(_members(found)) for pair, found in flags.items() if _members(found)},
        tools=_in_builtins("getattr") | {("functools", "partial"), ("torch.storage", "_load_from_bytes")},
        storages=False,
    )


@cache
def full_modules(*, tensors: bool = False) -> Allowed:
    """What `torch.save` writes: all of that, with tensors whose numbers stand beside the pickle.

    Without joblib's wrapper: torch reads on behind it where joblib would read numbers.
    """
    every = frameworks()
    return replace(every, classes=every.classes - arrays.JOBLIB_WRAPPERS, storages=not tensors, tensors=tensors)


def _read_lists() -> dict[Pair, frozenset[str]]:
    """All lines of all lists: `module name flag …`."""
    flags: dict[Pair, frozenset[str]] = {}
    for path in sorted(_LISTS.glob("*.txt")):
        for line in path.read_text(encoding="ascii").splitlines():
            if line and not line.startswith("#"):
                module, name, *found = line.split()
                flags[module, name] = flags.get((module, name), frozenset()) | frozenset(found)
    return flags


def _members(flags: frozenset[str]) -> list[str]:
    """`members:A,B` names what an enum has."""
    return [name for flag in flags if flag.startswith("members:") for name in flag.removeprefix("members:").split(",")]
