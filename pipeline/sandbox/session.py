"""The child's side of a session: reads requests, calls our functions, writes answers. Runs locked down.

Frames both ways are four bytes of length, big-endian, and that much JSON. Nothing here is trusted by the parent.
"""

import errno
import importlib
import inspect
import json
import os
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pipeline.errors import Rejected
from pipeline.foreign import out_of_memory

LENGTH = struct.Struct(">I")
_TRACEBACK_CHARACTERS = 16_000


def serve(channel: int, *, prefixes: Sequence[str], largest: int) -> NoReturn:
    """Answer requests until the parent hangs up."""
    while True:
        header = _read(channel, LENGTH.size)
        request = json.loads(_read(channel, LENGTH.unpack(header)[0]))
        if request.get("handed_over"):
            resolve(request["function"], prefixes)(channel, **request["arguments"])
            os._exit(0)
        answer = _answer(request["function"], request["arguments"], prefixes)
        body = json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()
        if len(body) > largest:
            refusal = {"code": "answer_invalid", "message": f"The answer has {len(body)} bytes; {largest} are allowed."}
            body = json.dumps({"rejected": refusal}).encode()
        sys.stdout.flush()
        sys.stderr.flush()
        send(channel, body)


def send(channel: int, body: bytes) -> None:
    """Write one frame."""
    remaining = memoryview(LENGTH.pack(len(body)) + body)
    while remaining:
        remaining = remaining[os.write(channel, remaining) :]


def resolve(function: str, prefixes: Sequence[str]) -> Callable[..., Any]:
    """The function that "package.module:name" names, when it is a public one defined in an allowed module."""
    module_name, _, name = function.partition(":")
    if not any(f"{module_name}.".startswith(prefix) for prefix in prefixes):
        raise ValueError(f"{function} lies outside {', '.join(prefixes)}")
    found = getattr(importlib.import_module(module_name), name, None)
    if name.startswith("_") or not inspect.isfunction(found) or found.__module__ != module_name:
        raise ValueError(f"{function} is no public function of its module")
    return found


def _answer(function: str, arguments: dict[str, Any], prefixes: Sequence[str]) -> dict[str, Any]:
    try:
        value = resolve(function, prefixes)(**arguments)
        json.dumps(value, allow_nan=False)  # an answer that is not JSON is a bug of the function, reported as one
    except Rejected as refusal:
        return {"rejected": {"code": refusal.code, "message": refusal.message}}
    except (Exception, SystemExit, KeyboardInterrupt) as fault:  # noqa: BLE001 - all of them travel to the parent
        return _fault(fault)
    return {"value": value}


def _fault(fault: BaseException) -> dict[str, Any]:
    if out_of_memory(fault):
        return {"rejected": {"code": "memory_limit", "message": "The model needs more memory than a step may use."}}
    if isinstance(fault, OSError) and fault.errno == errno.EFBIG:
        return {"rejected": {"code": "file_limit", "message": "The model makes a larger file than a step may write."}}
    text = "".join(traceback.format_exception(fault))
    return {"failed": text[-_TRACEBACK_CHARACTERS:].encode(errors="backslashreplace").decode()}


def _read(channel: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = os.read(channel, min(size - len(data), 1 << 20))
        if not chunk:
            os._exit(0)  # the parent is done with us; no clean-up of ours is worth running here
        data += chunk
    return bytes(data)
