"""Walks over protobuf messages that must know every field. Knows the wire format; what the fields mean, callers know.

Bytes are skipped, not read: of each message only what the caller wants to keep is held, and only while it is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.readers.inspection import Inspection, Malformed
from pipeline.readers.source import Cursor, Source, of_bytes

Field = tuple[str, str, bool]
"""Name, kind and whether it may occur several times. A kind is `int`, `float`, `double`, `text`, `bytes` or a message."""
Schema = Mapping[str, Mapping[int, Field]]

_Thing = TypeVar("_Thing")
_LONGEST_TEXT = 1 << 20
_KEPT_CHARACTERS = 300
_MOST_PACKED = 1024
_MOST_KEPT = 1 << 17
_BLOCK = 2
_HIGH_BYTES = bytes(range(128, 256))


@dataclass(kw_only=True)
class Seen:
    """What was kept of one message by field name, and how many values there were of every field.

    Texts are cut to a few hundred characters; `spans` says where in the file kept texts and bytes stand in full.
    """

    at: int = 0
    texts: dict[str, list[str]] = field(default_factory=dict)
    numbers: dict[str, list[int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    spans: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    children: dict[str, list[Seen]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        values = self.texts.get(name)
        return values[-1] if values else ""

    def number(self, name: str) -> int | None:
        values = self.numbers.get(name)
        return values[-1] if values else None

    def child(self, name: str) -> Seen | None:
        values = self.children.get(name)
        return values[-1] if values else None


@dataclass(kw_only=True)
class Walk:
    """One file's walk. `judge` is told of every message when it ends: its kind, what was kept of it, its offset.

    `keep` are names of fields; `format` begins the rules of the findings.
    """

    format: str
    schema: Schema
    keep: frozenset[str]
    judge: Callable[[str, Seen, int], None]
    path: str
    inspection: Inspection
    fields: int = 0

    def message(self, source: Source, base: int, kind: str, depth: int = 0) -> Seen:
        """Walk one message; `base` is its offset in the file."""
        if depth > self.inspection.limits.nesting:
            raise Malformed("limit.nesting", "Messages are nested deeper than in any real model.", base)
        cursor, seen, known_fields = Cursor(source), Seen(at=base), self.schema[kind]
        while cursor.remaining:
            at = base + cursor.position
            self.fields += 1
            if self.fields > self.inspection.limits.fields:
                raise Malformed("limit.fields", "The model has more fields than any real one.", at)
            if self.fields % 4096 == 0:
                self.inspection.tick()
            tag = self.varint(cursor, at)
            known = known_fields.get(tag >> 3)
            if known is None:
                raise self.malformed("unknown_field", f"Field {tag >> 3} of {kind} is not part of the format.", at)
            name, _, repeated = known
            before = seen.counts.get(name, 0)
            if before and not repeated:
                raise self.malformed("repeated_field", f"{kind}.{name} occurs twice.", at)
            if tag & 7 == _BLOCK:
                length = self.varint(cursor, at)
                start = cursor.position
                cursor.skip(length)
                count = self.block(source.part(start, length), base + start, known, seen, depth)
            else:
                count = self.number(cursor, tag & 7, known, seen, at)
            seen.counts[name] = before + count
            if before > _MOST_KEPT and name in self.keep and known[1] != "bytes":
                raise self.malformed("repeated_field", f"{kind}.{name} occurs too often.", at)
        self.judge(kind, seen, base)
        return seen

    def block(self, part: Source, base: int, known: Field, seen: Seen, depth: int) -> int:
        """A field that is written with its length; returns how many elements it holds."""
        name, kind, _ = known
        match kind:
            case "text":
                text = self.text(part, base, name)
                if name in self.keep:
                    seen.texts.setdefault(name, []).append(text[:_KEPT_CHARACTERS])
                    seen.spans.setdefault(name, []).append((base, part.size))
            case "bytes":
                spans = seen.spans.setdefault(name, []) if name in self.keep else None
                if spans is not None and len(spans) < _MOST_KEPT:
                    spans.append((base, part.size))
            case "int":
                return self.packed_integers(part, base, name, seen)
            case "float" | "double":
                width = 4 if kind == "float" else 8
                if part.size % width:
                    raise self.malformed("packed", f"{name} is cut in the middle of a number.", base)
                return part.size // width
            case _:
                child = self.message(part, base, kind, depth + 1)
                if name in self.keep:
                    seen.children.setdefault(name, []).append(child)
        return 1

    def packed_integers(self, part: Source, base: int, name: str, seen: Seen) -> int:
        count, last = 0, 0
        for chunk in part.chunks():
            count += len(chunk.translate(None, _HIGH_BYTES))
            last = chunk[-1]
            self.inspection.tick()
        if last & 0x80:
            raise self.malformed("packed", f"{name} is cut in the middle of a number.", base)
        if name in self.keep:
            if part.size > _MOST_PACKED:
                raise self.malformed("tensor", f"There are more {name} than in any real model.", base)
            cursor = Cursor(of_bytes(part.read(0, part.size)))
            while cursor.remaining:
                seen.numbers.setdefault(name, []).append(_signed(self.varint(cursor, base)))
        return count

    def number(self, cursor: Cursor, wire: int, known: Field, seen: Seen, at: int) -> int:
        """A field that is one number."""
        name, kind, _ = known
        match wire, kind:
            case 0, "int":
                value = _signed(self.varint(cursor, at))
                if name in self.keep:
                    seen.numbers.setdefault(name, []).append(value)
            case 5, "float":
                cursor.skip(4)
            case 1, "double":
                cursor.skip(8)
            case _:
                raise self.malformed("wire_type", f"Field {name} is written in a way its type does not allow.", at)
        return 1

    def text(self, part: Source, base: int, name: str) -> str:
        if part.size > max(_LONGEST_TEXT, self.inspection.limits.document if name in self.keep else 0):
            raise self.malformed("text", f"{name} is a text of {part.size:,} bytes.", base)
        try:
            return part.read(0, part.size).decode()
        except UnicodeDecodeError:
            raise self.malformed("text", f"{name} is not text.", base) from None

    def varint(self, cursor: Cursor, at: int) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = cursor.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    break
                return value
        raise self.malformed("varint", "A number is longer than 64 bits.", at)

    def malformed(self, rule: str, message: str, at: int) -> Malformed:
        return Malformed(f"{self.format}.{rule}", message, at)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def taken(gathered: list[tuple[int, _Thing]], at: int) -> list[tuple[int, _Thing]]:
    """What was gathered, with its offset, since the message at `at` began, and so belongs to it; it is removed."""
    inside = []
    while gathered and gathered[-1][0] >= at:
        inside.append(gathered.pop())
    return inside[::-1]
