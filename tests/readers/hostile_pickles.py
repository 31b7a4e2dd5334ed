"""Hostile pickles by hand, harmless unless something executes them: then a canary file would be there."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tempfile
from pathlib import Path
from typing import Any

from pipeline.readers import examine
from tests.readers.pickle_files import named, short

CANARY = Path("/tmp/slipway-pickle-canary")
COMMAND = f"touch {CANARY}"


def judged(content: bytes, name: str = "model.pkl", **limits: float) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        answer = examine(file.name, name, limits)
    json.dumps(answer, allow_nan=False)
    assert not CANARY.exists()
    return answer


def rules(answer: dict[str, Any]) -> set[str]:
    return {finding["rule"] for finding in answer["findings"]}


def not_clean(contents: dict[str, bytes]) -> dict[str, Any]:
    answers = {name: judged(content) for name, content in contents.items()}
    return {name: answer["findings"][:3] for name, answer in answers.items() if answer["verdict"] != "clean"}


class Payload:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def shell(protocol: int = 4) -> bytes:
    return pickle.dumps(Payload(os.system, COMMAND), protocol)


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<L", len(raw)) + raw


DTYPE = named("numpy", "dtype")


def dtype(name: str, flags: int, extra: bytes = b"NNN") -> bytes:
    return (
        DTYPE + short(name) + b"\x89\x88\x87R(K\x03" + short("|") + extra
        + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK" + bytes([flags]) + b"tb"
    )  # fmt: skip


EMPTY = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"


def joblib_frames(hidden: bytes = b"", data: bytes = bytes(16), **changes: bytes) -> bytes:
    """A joblib file of one array of two numbers, by hand; `hidden` stands behind the array's description."""
    state = {
        "subclass": named("numpy", "ndarray"),
        "shape": b"K\x02\x85",
        "order": short("C"),
        "dtype": dtype("f8", 0),
        "allow_mmap": b"\x88",
    } | changes
    body = named("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81}"
    body += b"".join(short(key) + value + b"s" for key, value in state.items()) + b"b" + hidden
    return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body + data + b"."
