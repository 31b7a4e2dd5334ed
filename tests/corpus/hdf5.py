"""A small writer of HDF5 as h5py writes it by default: version 0 superblock, symbol tables, contiguous data."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

_NOWHERE = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Float32 numbers. `outside` keeps them in another file; No data: never written, as HDF5 allows."""

    data: bytes
    shape: tuple[int, ...]
    outside: str | None = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Members by name; a text is a soft link, a pair is a link into another file."""

    members: Mapping[str, Group | Dataset | str | tuple[str, str]] = field(default_factory=dict)
    attributes: Mapping[str, bytes] = field(default_factory=dict)


def hdf5(root: Group) -> bytes:
    file = bytearray(96)
    address, tree, heap = _group(file, root)
    entry = struct.pack("<QQLL", 0, address, 1 if tree else 0, 0) + struct.pack("<QQ", tree, heap)
    file[:96] = (
        b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHL", 4, 16, 0)
        + struct.pack("<QQQQ", 0, _NOWHERE, len(file), _NOWHERE) + entry
    )  # fmt: skip
    return bytes(file)


def _put(file: bytearray, data: bytes) -> int:
    file += bytes(-len(file) % 8)
    at = len(file)
    file += data
    return at


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def _message(kind: int, data: bytes) -> bytes:
    data = _padded(data)
    return struct.pack("<HHB3x", kind, len(data), 0) + data


def _header(messages: list[bytes]) -> bytes:
    body = b"".join(messages)
    return struct.pack("<BxHLL4x", 1, len(messages), 1, len(body)) + body


def _space(shape: tuple[int, ...]) -> bytes:
    return struct.pack("<BBB5x", 1, len(shape), 0) + b"".join(struct.pack("<Q", size) for size in shape)


_FLOAT = struct.pack("<B3BL", 0x11, 0x20, 0x1F, 0, 4) + struct.pack("<HHBBBBL", 0, 32, 23, 8, 0, 23, 127)


def _attribute(name: str, value: bytes) -> bytes:
    label = name.encode() + b"\x00"
    kind = struct.pack("<B3BL", 0x13, 0, 0, 0, max(len(value), 1))
    space = _space(())
    return _message(
        0x000C,
        struct.pack("<BxHHH", 1, len(label), len(kind), len(space))
        + _padded(label) + _padded(kind) + _padded(space) + (value or b"\x00"),
    )  # fmt: skip


def _dataset(file: bytearray, one: Dataset) -> int:
    messages = [_message(0x0001, _space(one.shape)), _message(0x0003, _FLOAT), _message(0x0005, bytes([2, 2, 2, 0]))]
    if one.outside is None:
        at = _put(file, one.data) if one.data else _NOWHERE
        messages.append(_message(0x0008, struct.pack("<BBQQ", 3, 1, at, _size(one.shape))))
    else:
        heap = _heap(file, [one.outside])
        slots = struct.pack("<B3xHHQ", 1, 1, 1, heap) + struct.pack("<QQQ", 8, 0, _size(one.shape))
        messages += [_message(0x0007, slots), _message(0x0008, struct.pack("<BBQQ", 3, 1, _NOWHERE, _size(one.shape)))]
    return _put(file, _header(messages))


def _size(shape: tuple[int, ...]) -> int:
    return 4 * math.prod(shape)


def _heap(file: bytearray, names: list[str]) -> int:
    """A local heap; the first name begins at offset 8."""
    data = bytes(8) + b"".join(_padded(name.encode() + b"\x00") for name in names)
    at = _put(file, data + struct.pack("<QQ", 1, 16))
    return _put(file, b"HEAP" + struct.pack("<B3xQQQ", 0, len(data) + 16, len(data), at))


def _group(file: bytearray, group: Group) -> tuple[int, int, int]:
    attributes = [_attribute(name, value) for name, value in group.attributes.items()]
    if any(isinstance(member, tuple) for member in group.members.values()):
        links = [_link(file, name, member) for name, member in group.members.items()]
        info = [_message(0x0002, struct.pack("<BBQQ", 0, 0, _NOWHERE, _NOWHERE)), _message(0x000A, bytes([0, 0]))]
        return _put(file, _header([*info, *links, *attributes])), 0, 0
    names = sorted(group.members)
    texts = [target for name in names if isinstance(target := group.members[name], str)]
    heap = _heap(file, [*names, *texts])
    offsets, at = {}, 8
    for name in [*names, *texts]:
        offsets[name] = at
        at += len(_padded(name.encode() + b"\x00"))
    entries = b""
    for name in names:
        match group.members[name]:
            case Group() as inner:
                address, inner_tree, inner_heap = _group(file, inner)
                entries += struct.pack(
                    "<QQLLQQ", offsets[name], address, 1 if inner_tree else 0, 0, inner_tree, inner_heap
                )
            case Dataset() as one:
                entries += struct.pack("<QQLL16x", offsets[name], _dataset(file, one), 0, 0)
            case str() as target:
                entries += struct.pack("<QQLLL12x", offsets[name], _NOWHERE, 2, 0, offsets[target])
    node = _put(
        file, (b"SNOD" + struct.pack("<BxH", 1, len(names)) + entries).ljust(8 + 40 * max(8, len(names)), b"\x00")
    )
    last = offsets[names[-1]] if names else 0
    keys = struct.pack("<QQQ", 0, node, last)
    used = 1 if names else 0
    tree = _put(
        file, (b"TREE" + struct.pack("<BBHQQ", 0, 0, used, _NOWHERE, _NOWHERE) + keys).ljust(24 + 33 * 16 + 8, b"\x00")
    )
    table = _message(0x0011, struct.pack("<QQ", tree, heap))
    return _put(file, _header([table, *attributes])), tree, heap


def _link(file: bytearray, name: str, member: Group | Dataset | str | tuple[str, str]) -> bytes:
    raw = name.encode()
    match member:
        case Group():
            return _message(0x0006, bytes([1, 0, len(raw)]) + raw + struct.pack("<Q", _group(file, member)[0]))
        case Dataset():
            return _message(0x0006, bytes([1, 0, len(raw)]) + raw + struct.pack("<Q", _dataset(file, member)))
        case str():
            target = member.encode()
            return _message(0x0006, bytes([1, 8, 1, len(raw)]) + raw + struct.pack("<H", len(target)) + target)
        case (elsewhere, inside):
            value = b"\x00" + elsewhere.encode() + b"\x00" + inside.encode() + b"\x00"
            return _message(0x0006, bytes([1, 8, 64, len(raw)]) + raw + struct.pack("<H", len(value)) + value)
