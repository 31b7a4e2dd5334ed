"""Arrays that hold objects, sizes that lie, and joblib's habit of writing raw bytes into the middle of a pickle."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from tests.corpus import COMMAND, Sample
from tests.corpus.assembler import PAYLOAD, SYSTEM, built, call, made, named, pickled, push
from tests.corpus.containers import lz4_frame, zipped


def samples() -> Iterator[Sample]:
    for attack, filename, rows in (
        ("numpy", "model.npy", _numpy()),
        ("joblib", "model.joblib", _joblib()),
        ("safetensors", "model.safetensors", _safetensors()),
    ):
        for name, make, why, loader in rows:
            yield Sample(
                name=f"{attack}: {name}",
                attack=attack,
                why=why,
                make=make,
                filename="model.npz" if name.startswith("npz") else filename,
                loader=loader,
            )


_Rows = Iterator[tuple[str, Callable[[], bytes], str, str | None]]


def npy(header: str, data: bytes, version: int = 1) -> bytes:
    raw = header.encode() + b"\n"
    length = struct.pack("<H" if version == 1 else "<L", len(raw))
    return b"\x93NUMPY" + bytes([version, 0]) + length + raw + data


def _plain(descr: str = "'<f8'", shape: str = "(2,)", data: bytes = bytes(16), **more: str) -> bytes:
    fields = {"descr": descr, "fortran_order": "False", "shape": shape, **more}
    return npy("{" + ", ".join(f"'{key}': {value}" for key, value in fields.items()) + "}", data)


def _numpy() -> _Rows:
    yield "object array", lambda: _plain("'|O'", "(1,)", PAYLOAD), "an array of objects is a pickle", "numpy"
    yield (
        "object array, other byte order",
        lambda: _plain("'>O8'", "(1,)", PAYLOAD),
        "the same under another name",
        None,
    )
    yield (
        "object in a structure",
        lambda: _plain("[('a', '<f8'), ('b', 'O')]", "(1,)", PAYLOAD),
        "one field of a structure is an object",
        "numpy",
    )
    yield (
        "object in a nested structure",
        lambda: _plain("[('a', [('b', '|O')])]", "(1,)", PAYLOAD),
        "deep in a structure",
        "numpy",
    )
    yield "payload behind the array", lambda: _plain() + PAYLOAD, "bytes that belong to nothing", None
    yield "shape beyond the data", lambda: _plain(shape="(1000000000000,)"), "a size that lies", None
    yield (
        "shape that overflows",
        lambda: _plain(shape="(4294967296, 4294967296)", data=b""),
        "a product that overflows",
        None,
    )
    yield "negative shape", lambda: _plain(shape="(-1,)"), "a negative size", None
    yield (
        "shape of a million numbers",
        lambda: npy("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 1_000_000 + ")}", bytes(8), 2),
        "a header that takes the parser's time",
        None,
    )
    yield (
        "header that is code",
        lambda: _plain(shape=f"(__import__('os').system('{COMMAND}'),)"),
        "for readers that evaluate",
        None,
    )
    yield "header nested deeply", lambda: npy("(" * 30_000, b""), "a parser that recurses", None
    yield "header field too many", lambda: _plain(evil="1"), "nothing numpy writes", None
    yield (
        "header longer than the file",
        lambda: b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{'descr'",
        "a length that lies",
        None,
    )
    yield (
        "version of the future",
        lambda: npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", bytes(16), 9),
        "a version nobody has",
        None,
    )
    yield (
        "npz with an object array",
        lambda: zipped({"x.npy": _plain("'|O'", "(1,)", PAYLOAD)}),
        "CVE-2019-6446: np.load of objects",
        "numpy",
    )
    yield "npz with a pickle as an array", lambda: zipped({"x.npy": PAYLOAD}), "np.load falls back to pickle", None
    yield (
        "npz with a pickle beside",
        lambda: zipped({"x.npy": _plain(), "y": PAYLOAD}),
        "a member that is no array",
        None,
    )
    yield (
        "npz bomb",
        lambda: zipped({"x.npy": _plain("'|u1'", f"({64 << 20},)", bytes(64 << 20))}, zipfile.ZIP_DEFLATED),
        "zeros that inflate a thousandfold",
        None,
    )
    yield (
        "npz that declares more than it holds",
        lambda: zipped({"x.npy": _plain(shape="(1000000000,)")}),
        "keras #23016",
        None,
    )
    yield (
        "npz of one name twice",
        lambda: zipped([("x.npy", _plain()), ("x.npy", _plain("'|O'", "(1,)", PAYLOAD))]),
        "which is read?",
        None,
    )
    yield "pickle by numpy's name", lambda: PAYLOAD, "np.load falls back to pickle", "numpy"


def _wrapper(
    shape: bytes,
    data: bytes,
    *,
    dtype: bytes | None = None,
    first: bytes = b"",
    kind: str = "NumpyArrayWrapper",
    last: bytes = b"",
) -> bytes:
    """joblib's place holder for an array, and the raw bytes behind it."""
    u1 = call(named("numpy", "dtype"), "u1", False, True)
    state = (
        b"}("
        + push("subclass")
        + named("numpy", "ndarray")
        + first
        + push("shape")
        + shape
        + push("order")
        + push("C")
        + push("dtype")
        + (dtype or u1)
        + push("allow_mmap")
        + b"\x89"
        + push("numpy_array_alignment_bytes")
        + b"N"
        + last
        + b"u"
    )
    return named("joblib.numpy_pickle", kind) + b")\x81" + state + b"b" + data


_OBJECTS = call(named("numpy", "dtype"), "O8", False, True)


def _joblib() -> _Rows:
    hidden = b"0" + SYSTEM

    yield "plain payload", lambda: PAYLOAD, "joblib.load is pickle.load", "joblib"
    yield (
        "object array",
        lambda: pickled(_wrapper(push((1,)), PAYLOAD, dtype=_OBJECTS)),
        "an object array is a pickle inside the pickle",
        "joblib",
    )
    yield (
        "object array in a list",
        lambda: pickled(b"](" + _wrapper(push((1,)), PAYLOAD, dtype=_OBJECTS) + push(1) + b"e"),
        "and the outer one goes on",
        "joblib",
    )
    yield (
        "payload behind an array",
        lambda: pickled(_wrapper(push((4,)), b"abcd") + hidden),
        "opcodes behind raw bytes",
        "joblib",
    )
    yield (
        "payload as array bytes",
        lambda: pickled(b"(" + push({}) + _wrapper(push((0,)), b"") + hidden + b"t"),
        "an empty array: the bytes are opcodes",
        "joblib",
    )
    yield (
        "shape given twice, small last",
        lambda: pickled(_wrapper(push((0,)), hidden, first=push("shape") + push((len(hidden) + 1,)))),
        "the last shape counts: a reader of the first skips the payload",
        "joblib",
    )
    yield (
        "shape given twice, small first",
        lambda: pickled(_wrapper(push((64,)), bytes(64) + hidden, first=push("shape") + push((0,)))),
        "the last shape counts",
        "joblib",
    )
    yield (
        "shape in a second dictionary",
        lambda: pickled(_wrapper(push((64,)), hidden, last=b"u" + b"(" + push("shape") + push((0,)))),
        "SETITEMS twice",
        "joblib",
    )
    yield (
        "shape of a huge array",
        lambda: pickled(_wrapper(push((1 << 50,)), b"abcd")),
        "more bytes than the file has",
        None,
    )
    yield (
        "shape from a call",
        lambda: pickled(_wrapper(call(named("builtins", "tuple"), [SYSTEM]), b"")),
        "a computed shape",
        "joblib",
    )
    yield "negative shape", lambda: pickled(_wrapper(push((-5,)), b"abcd")), "a negative count", None
    yield (
        "alignment beyond the end",
        lambda: pickled(_wrapper(push((4,)), b"\xffabcd", last=push("numpy_array_alignment_bytes") + push(16))),
        "padding longer than the file",
        None,
    )
    yield (
        "subclass of choice",
        lambda: pickled(_wrapper(push((4,)), b"abcd", last=push("subclass") + named("os", "system"))),
        "the class of the array is a function",
        None,
    )
    yield (
        "subclass memmap",
        lambda: pickled(_wrapper(push((4,)), b"abcd", last=push("subclass") + named("numpy", "memmap"))),
        "a view of the file itself",
        None,
    )
    yield (
        "old wrapper with a path",
        lambda: pickled(
            built(
                made(named("joblib.numpy_pickle_compat", "NDArrayWrapper")),
                {"filename": "../../../etc/passwd", "subclass": named("numpy", "ndarray"), "allow_mmap": True},
            )
        ),
        "arrays in other files",
        None,
    )
    yield (
        "old zip wrapper",
        lambda: pickled(
            built(
                made(named("joblib.numpy_pickle_compat", "ZNDArrayWrapper")),
                {"filename": "x", "init_args": (), "state": {}},
            )
        ),
        "arrays in other files",
        None,
    )
    yield (
        "memory mapped reducer",
        lambda: pickled(
            call(
                named("joblib._memmapping_reducer", "_strided_from_memmap"),
                "/etc/hostname",
                "u1",
                "r",
                0,
                "C",
                (4,),
                (1,),
                None,
                False,
            )
        ),
        "a file as an array",
        None,
    )
    for name, pack in (
        ("zlib", zlib.compress),
        ("gzip", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lzma.compress),
        ("lzma", lambda data: lzma.compress(data, lzma.FORMAT_ALONE)),
        ("lz4", lz4_frame),
    ):
        yield (
            f"compressed by {name}",
            lambda pack=pack: pack(PAYLOAD),
            "joblib sniffs the compression",
            None if name == "lz4" else "joblib",
        )
    yield "compressed twice", lambda: zlib.compress(gzip.compress(PAYLOAD)), "two coats", None
    yield "zlib without its best header", lambda: zlib.compress(PAYLOAD, 1), "78 01", "joblib"
    yield (
        "zlib with a payload behind",
        lambda: zlib.compress(pickled(push([1]))) + PAYLOAD,
        "bytes behind the stream",
        None,
    )
    yield (
        "gzip of two members",
        lambda: gzip.compress(pickled(push([1]))) + gzip.compress(PAYLOAD),
        "a second member",
        None,
    )
    yield "gzip broken behind the payload", lambda: gzip.compress(PAYLOAD)[:-5], "a cut trailer", None
    yield "gzip with a wrong checksum", lambda: gzip.compress(PAYLOAD)[:-8] + bytes(8), "a wrong trailer", None
    yield (
        "bz2 of two streams",
        lambda: bz2.compress(pickled(push([1]))) + bz2.compress(PAYLOAD),
        "a second stream",
        None,
    )
    yield (
        "xz of two streams",
        lambda: lzma.compress(pickled(push([1]))) + bytes(4) + lzma.compress(PAYLOAD),
        "padding and a second stream",
        None,
    )
    yield (
        "old compressed file",
        lambda: b"ZF0x" + f"{len(PAYLOAD):x}".ljust(19).encode() + zlib.compress(PAYLOAD),
        "joblib 0.9's format",
        None,
    )


def safetensors(header: Any, data: bytes = bytes(16)) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def f32(begin: int, end: int, count: int | None = None) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - begin) // 4 if count is None else count], "data_offsets": [begin, end]}


def _safetensors() -> _Rows:
    rows: tuple[tuple[str, Any, str], ...] = (
        ("overlap", safetensors({"a": f32(0, 12), "b": f32(8, 16)}), "two tensors share bytes"),
        ("hole", safetensors({"a": f32(0, 4), "b": f32(8, 16)}), "bytes of no tensor"),
        ("trailing bytes", safetensors({"a": f32(0, 16)}) + PAYLOAD, "a polyglot's tail"),
        ("tensor beyond the end", safetensors({"a": f32(0, 64)}), "reads outside the file"),
        ("backwards", safetensors({"a": {**f32(0, 16), "data_offsets": [16, 0]}}), "an end before its begin"),
        ("negative offset", safetensors({"a": {**f32(0, 16), "data_offsets": [-16, 0]}}), "before the data"),
        ("shape that lies", safetensors({"a": f32(0, 16, 400)}), "more elements than bytes"),
        ("shape that overflows", safetensors({"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 0]}}, b""), "a product that is zero in 64 bits"),
        ("unknown type", safetensors({"a": {**f32(0, 16), "dtype": "PY"}}), "a type nobody has"),
        ("header of a gigabyte", struct.pack("<Q", 1 << 30) + b"{}" + bytes(100), "a size that lies"),
        ("header of minus one", b"\xff" * 8 + b"{}" + bytes(100), "a size that lies"),
        ("header cut", safetensors(b'{"a": {"dtype": "F32"'), "no JSON"),
        ("header with a name twice", safetensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}}'), "which is read?"),
        ("header nested deeply", safetensors(b'{"a":' + b"[" * 200_000), "a parser that recurses"),
        ("header that is a list", safetensors(b"[1,2,3,4]"), "no dictionary"),
        ("metadata of objects", safetensors({"a": f32(0, 16), "__metadata__": {"x": {"__reduce__": ["os.system"]}}}), "metadata is text to text"),
        ("header behind blanks", safetensors(b"   {}"), "must begin with a brace"),
        ("pickle in front", PAYLOAD + safetensors({"a": f32(0, 16)}), "a polyglot"),
    )  # fmt: skip
    for name, content, why in rows:
        yield name, lambda content=content: content, why, None
