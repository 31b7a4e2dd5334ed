"""What kinds of model file there are and how to tell them apart by name and content; never opens a model.

A format is one file beside this one that ends in `FORMAT = Format(...)`. Here everything is standard library and
bounded, because the API asks while the bytes are still arriving. The functions that do open a model are imported and
run by name in a sandbox child.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from pipeline import extras
from pipeline.errors import Rejected
from pipeline.stage import Json

HEAD = 64 << 10
TAIL = 1 << 20

PRELOAD = (
    "joblib",
    "numpy",
    "onnx",
    "onnx.inliner",
    "onnx.version_converter",
    "onnxruntime",
    "onnxruntime.quantization",
    "onnxruntime.transformers.float16",
    "onnxscript",
    "onnxslim",
    "skl2onnx",
    "torch",
    "torch._dynamo",
    "torch._export.converter",
    "torch._export.non_strict_utils",
    "torch._export.serde.serialize",
    "torch._functorch.aot_autograd",
    "torch.export.pt2_archive",
    "torch.onnx._internal.exporter._core",
    "torch.onnx._internal.exporter._registration",
    "torch.onnx._internal.torchscript_exporter.utils",
    "pipeline.canonical",
    "pipeline.divergence",
    "pipeline.estimator_graphs",
    "pipeline.quantizing",
    "pipeline.torch_models",
    "pipeline.verification",
)
"""What a sandbox zygote does well to import before it forks: everything that the children of all stages would."""

_LISTED_MEMBERS = 20_000
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_ENTRY = b"PK\x01\x02"
_IN_ZIP64 = 0xFFFFFFFF

_SIGNATURES = (
    (b"\x89HDF\r\n\x1a\n", 0, "an HDF5 file"),
    (b"\x1f\x8b", 0, "gzip-compressed data"),
    (b"7z\xbc\xaf\x27\x1c", 0, "a 7z archive"),
    (b"\x7fELF", 0, "a native program"),
    (b"MZ", 0, "a native program"),
    (b"\x80", 0, "a pickle"),
    (b"<", 0, "markup text"),
    (b"version https://git-lfs", 0, "a Git LFS pointer, not the file it points to"),
)


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """What may be known of a file without keeping it: its first `HEAD` bytes, its last `TAIL` bytes and its size.

    Both overlap, and are the whole file, where it is smaller.
    """

    head: bytes
    tail: bytes
    size: int

    @functools.cached_property
    def members(self) -> tuple[str, ...]:
        """Names in the zip directory at the end, empty if this is no zip archive. Nothing is decompressed."""
        return tuple(_zip_names(self)) if self.head[:4] == b"PK\x03\x04" else ()

    def holds(self, *path: str) -> bool:
        """Whether a zip member lies at `path`, seen from the root or from the archive's only top folder."""
        wanted = "/".join(path)
        return any(name == wanted or name.startswith(f"{wanted}/") or _below_top(name, wanted) for name in self.members)


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of model file. `recognises` looks at content only; `extensions` carry their dot, in lower case.

    The module of the same name holds, for sandbox children, `inspect(model, declared)`, which answers in the form of
    `signature.Inspection`, and, where files of the format can be served, `load(model, inputs, declared)`, which gives a
    `trial.Predictor`, and `export(model, destination, exporter, inputs, outputs, declared)`, which writes ONNX.
    `declared` is what the uploader said of the version (`stage.Upload.declared`). `unservable` tells the uploader what
    to do where no file of the format can be served, or none that was declared so; what only the file itself tells is
    in `Inspection.unservable`. `extra` is what opening a file takes on top of the core, or how to tell from the file's
    glimpse and what was declared. `runtime` is what `load` runs a file in, where that is not called like the format.
    `read_as` names what the scan's readers understand in every file of the format, where no reader is called like it:
    one of these must have been found, or a loader would see something else in the file than was judged.
    """

    name: str
    title: str
    extensions: tuple[str, ...]
    recognises: Callable[[Glimpse], bool]
    unservable: str | Callable[[Mapping[str, Json]], str | None] | None = None
    extra: str | Callable[[Glimpse, Mapping[str, Json]], str | None] | None = None
    runtime: str | None = None
    read_as: tuple[str, ...] = ()

    def why_unservable(self, declared: Mapping[str, Json]) -> str | None:
        """What to tell the uploader of a file that, declared so, cannot be served; None where it may be."""
        return self.unservable(declared) if callable(self.unservable) else self.unservable

    def needs(self, glimpse: Glimpse, declared: Mapping[str, Json]) -> str | None:
        """The extra, a key of `extras.EXTRAS`, that a worker must have to open the file."""
        return self.extra(glimpse, declared) if callable(self.extra) else self.extra

    def require(self, model: Path, declared: Mapping[str, Json]) -> None:
        """Raises `Unavailable` (`converter_missing`) where this machine lacks what opens the file."""
        if self.extra is not None:
            extras.require(self.needs(glimpse_of(model), declared), self.title)

    def function(self, name: str) -> str:
        """The address of one of the format's functions, as a sandbox child is asked for it."""
        return f"{__name__}.{self.name}:{name}"


@functools.cache
def discover() -> tuple[Format, ...]:
    """Every format that has a file here, in alphabetical order."""
    found: list[Format] = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda one: one.name):
        declared = getattr(importlib.import_module(f"{__name__}.{module.name}"), "FORMAT", None)
        if not isinstance(declared, Format) or declared.name != module.name:
            raise TypeError(f"pipeline/formats/{module.name}.py must end in FORMAT = Format(name={module.name!r}, …)")
        found.append(declared)
    return tuple(found)


def find(name: str) -> Format:
    """The format of that name."""
    for candidate in discover():
        if candidate.name == name:
            return candidate
    raise Rejected("unsupported_format", f"No format is called {name!r}. {accepted()}", accepted=_extensions())


def identify(filename: str, glimpse: Glimpse) -> Format:
    """The format that both the name and the content of an upload speak for, or `Rejected` saying which does not."""
    extension = PurePath(filename).suffix.lower()
    by_name = [candidate for candidate in discover() if extension in candidate.extensions]
    if not by_name:
        raise Rejected(
            "unsupported_format", f"{_unknown(extension)}. {accepted()}", extension=extension, accepted=_extensions()
        )
    for candidate in by_name:
        if candidate.recognises(glimpse):
            return candidate
    found = describe(glimpse)
    hint = next((f" Name it {one.extensions[0]}." for one in discover() if one.recognises(glimpse)), "")
    raise Rejected(
        "content_mismatch",
        f"The file is named {extension} but holds {found}.{hint}",
        extension=extension,
        expected=[candidate.title for candidate in by_name],
        found=found,
    )


def accepted() -> str:
    """One sentence that lists what may be uploaded."""
    return "Accepted are " + ", ".join(f"{' '.join(one.extensions)} ({one.title})" for one in discover()) + "."


def describe(glimpse: Glimpse) -> str:
    """What the content looks like, as a noun phrase."""
    if glimpse.size == 0:
        return "nothing"
    for candidate in discover():
        if candidate.recognises(glimpse):
            return candidate.title
    if glimpse.head[:4] == b"PK\x03\x04":
        return "a zip archive" if glimpse.members else "the beginning of a zip archive whose end is missing"
    for signature, offset, description in _SIGNATURES:
        if glimpse.head.startswith(signature, offset):
            return description
    return "nothing that is known here"


def glimpse_of(path: Path) -> Glimpse:
    """The glimpse of a file that is already on disk."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(HEAD)
        stream.seek(max(0, size - TAIL))
        return Glimpse(head=head, tail=stream.read(TAIL), size=size)


def _extensions() -> list[str]:
    return [extension for one in discover() for extension in one.extensions]


def _unknown(extension: str) -> str:
    return f"{extension} is no extension of a model file" if extension else "The file name has no extension"


def _below_top(name: str, wanted: str) -> bool:
    _, _, rest = name.partition("/")
    return rest == wanted or rest.startswith(f"{wanted}/")


def _zip_names(glimpse: Glimpse) -> Iterator[str]:
    tail = glimpse.tail
    end = tail.rfind(_END)
    if end < 0 or len(tail) < end + 22:
        return
    size, start = struct.unpack_from("<II", tail, end + 12)
    end64 = tail.rfind(_END64, 0, end)
    if _IN_ZIP64 in (start, size):
        if end64 < 0 or len(tail) < end64 + 56:
            return
        size, start = struct.unpack_from("<QQ", tail, end64 + 40)
    position = start - (glimpse.size - len(tail))
    if position < 0:  # the directory begins before what was kept: take up reading at the next whole entry
        position = tail.find(_ENTRY)
    for _ in range(_LISTED_MEMBERS):
        if position < 0 or tail[position : position + 4] != _ENTRY or len(tail) < position + 46:
            return
        name_size, extra_size, comment_size = struct.unpack_from("<HHH", tail, position + 28)
        yield tail[position + 46 : position + 46 + name_size].decode("utf-8", "replace")
        position += 46 + name_size + extra_size + comment_size
