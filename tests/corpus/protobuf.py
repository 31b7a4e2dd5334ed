"""Protocol buffers by hand, as far as TensorFlow's graphs need them."""

from __future__ import annotations

from collections.abc import Iterable


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def _attribute(key: str, value: bytes) -> bytes:
    return field(5, field(1, key) + field(2, value))


def _node(name: str, operator: str) -> bytes:
    return field(1, name) + field(2, operator) + _attribute("T", field(6, 1))


def node_def(*nodes: str) -> bytes:
    """A frozen graph of nodes given as name, operator, name, operator …"""
    pairs = zip(nodes[::2], nodes[1::2], strict=True)
    graph = field(1, _node("input", "Placeholder")) + b"".join(field(1, _node(*pair)) for pair in pairs)
    return graph + field(4, field(1, 2219) + field(2, 12))


def saved_model(nodes: Iterable[tuple[str, str]], inside: Iterable[tuple[str, str]] = ()) -> bytes:
    """A SavedModel with these operators in its graph, and others inside the body of a function."""
    graph = b"".join(field(1, _node(*pair)) for pair in [("input", "Placeholder"), *nodes])
    if inside:
        body = field(1, field(1, "f")) + b"".join(field(3, _node(*pair)) for pair in inside)
        graph += field(2, field(1, body))
    graph += field(4, field(1, 2219) + field(2, 12))
    meta = field(4, "serve") + field(5, "2.21.0")
    return field(1, 1) + field(2, field(1, meta) + field(2, graph))
