"""Pickles written opcode by opcode: what `pickle.dumps` would never write."""

from __future__ import annotations

import struct
from typing import Any

from tests.corpus import COMMAND, SOURCE


def proto(number: int) -> bytes:
    return b"\x80" + bytes([number])


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<L", len(raw)) + raw


def short(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def push(value: Any) -> bytes:
    """A value as opcodes. Bytes are taken for opcodes already."""
    match value:
        case bytes():
            return value
        case bool():
            return b"\x88" if value else b"\x89"
        case None:
            return b"N"
        case int():
            raw = value.to_bytes((value.bit_length() // 8) + 1, "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return text(value)
        case tuple():
            return b"(" + b"".join(map(push, value)) + b"t"
        case list():
            return b"](" + b"".join(map(push, value)) + b"e"
        case dict():
            return b"}(" + b"".join(push(key) + push(one) for key, one in value.items()) + b"u"
        case bytearray():
            return b"B" + struct.pack("<L", len(value)) + bytes(value)
    raise TypeError(type(value))


def named(module: str, name: str) -> bytes:
    """A global by GLOBAL: names with dots need protocol 4 around them."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def stacked(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


def call(function: bytes, *arguments: Any) -> bytes:
    return function + push(arguments) + b"R"


def made(kind: bytes, *arguments: Any) -> bytes:
    return kind + push(arguments) + b"\x81"


def built(thing: bytes, state: Any) -> bytes:
    return thing + push(state) + b"b"


def pickled(body: bytes, protocol: int = 4) -> bytes:
    return (proto(protocol) if protocol >= 2 else b"") + body + b"."


SYSTEM = call(named("os", "system"), COMMAND)
"""Opcodes that touch the canary and leave a number on the stack."""

EXEC = call(named("builtins", "exec"), SOURCE)
PAYLOAD = pickled(SYSTEM, 2)
