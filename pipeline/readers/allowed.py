"""Which globals a pickle may name, and which of them it may call with what. Knows no opcodes.

Allow-lists of exact `(module, name)` pairs: a new gadget is unknown until somebody reviews it here. `KNOWN_GADGETS`
only decides whether a refusal says "malicious" or "unknown"; it lets nothing pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.readers.words import words

Pair = tuple[str, str]


@dataclass(frozen=True)
class Global:
    """A name that a pickle looked up."""

    module: str
    name: str

    @property
    def pair(self) -> Pair:
        return self.module, self.name

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Thing:
    """A value whose content does not matter: a list, a number out of range, the result of a vetted call."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what


Check = Callable[[tuple[object, ...]], bool]


def _no_globals(arguments: tuple[object, ...]) -> bool:
    return not any(isinstance(argument, Global) for argument in arguments)


def _encoded_bytes(arguments: tuple[object, ...]) -> bool:
    """How protocol 2 writes bytes: `_codecs.encode(text, "latin1")`."""
    return len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] in ("latin1", "latin-1")


def _given_bytes(arguments: tuple[object, ...]) -> bool:
    """`bytearray(number)` would fill the memory."""
    return all(isinstance(argument, str | Thing) for argument in arguments)


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """`calls` may be called when their check agrees; `names` may stand there as data; `classes` may be made and filled.

    `is_class` adds names that follow a rule instead of a list. `storages` lets persistent ids name tensor storages.
    """

    calls: Mapping[Pair, Check] = field(default_factory=dict)
    names: frozenset[Pair] = frozenset()
    is_class: Callable[[Pair], bool] = frozenset[Pair]().__contains__
    storages: bool = False

    def knows(self, pair: Pair) -> bool:
        return pair in self.calls or pair in self.names or self.is_class(pair)


_BUILTINS = ("builtins", "__builtin__")

PLAIN = Allowed(
    calls={
        ("collections", "OrderedDict"): _no_globals,
        ("_codecs", "encode"): _encoded_bytes,
        **{(module, name): _no_globals for module in _BUILTINS for name in ("set", "frozenset", "complex", "slice")},
        **{(module, "bytearray"): _given_bytes for module in _BUILTINS},
    }
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

TENSORS = Allowed(
    calls={
        **PLAIN.calls,
        ("torch._utils", "_rebuild_tensor"): _no_globals,
        ("torch._utils", "_rebuild_tensor_v2"): _no_globals,
        ("torch._utils", "_rebuild_parameter"): _no_globals,
        ("torch._utils", "_rebuild_qtensor"): _no_globals,  # the scheme it names stands inside a tuple
        ("torch", "Size"): _no_globals,
        ("torch", "device"): _no_globals,
        ("torch.serialization", "_get_layout"): _no_globals,
    },
    names=frozenset(
        {("torch", f"{name}Storage") for name in _STORAGES}
        | {("torch.storage", "UntypedStorage")}
        | {("torch", name) for name in (*_DTYPES, *_SCHEMES)}
    ),
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

SCRIPT = Allowed(
    calls={
        **TENSORS.calls,
        **{("torch.jit._pickle", f"build_{kind}list"): _no_globals for kind in ("int", "double", "bool", "tensor")},
        ("torch.jit._pickle", "restore_type_tag"): _no_globals,
    },
    names=TENSORS.names,
    is_class=_scripted,
    storages=True,
)
"""What `torch.jit.save` writes."""

_GADGET_MODULES = words(
    "os posix nt subprocess sys runpy importlib pty socket shutil ctypes _ctypes code codeop pdb bdb cProfile "
    "profile timeit inspect marshal pickle _pickle cloudpickle dill joblib shelve webbrowser platform asyncio "
    "multiprocessing _thread functools operator _operator builtins __builtin__ commands pkgutil pydoc zipimport "
    "imp http urllib urllib2 httplib ftplib smtplib telnetlib xmlrpc requests aiohttp ssl tempfile glob fileinput "
    "linecache distutils setuptools pip ensurepip venv doctest unittest idlelib lib2to3 gc atexit nturl2path "
    "antigravity this torch.hub torch.utils.cpp_extension torch.utils.collect_env torch.utils.bottleneck "
    "torch.jit torch.serialization torch._inductor torch._dynamo torch.distributed torch.package torch.fx "
    "torch.testing torch.load numpy.testing numpy.f2py numpy.distutils numpy.load scipy.io pandas.io pandas.eval "
    "sympy _pyrepl site sitecustomize"
)


def is_gadget(module: str, name: str) -> bool:
    """Whether the name is a known way to run code, reach files or talk to somebody."""
    full = f"{module}.{name}".split(".")
    return any(".".join(full[:count]) in _GADGET_MODULES for count in range(1, len(full) + 1)) or bool(
        _GADGET_MODULES & set(full[1:])
    )
