"""Walks over flatbuffers: every table, vector and text inside the file, none overlapping another, nothing between them.

Knows the wire format; the schema and what the fields mean, callers know. Vectors of numbers are measured, not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.readers.inspection import Inspection, Malformed
from pipeline.readers.source import Source, Truncated

Slot = tuple[str, str, str]
"""Field, kind and argument: a width for `number` and `numbers`, a table for `table` and `tables`, a union's name."""
_LONGEST_TEXT = 64 << 10
_LARGEST_TABLE = 1024
_MOST_BLOCKS = 1_000_000
_PADDING = 64


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A vector of numbers: where the first stands, how many there are and how wide each is."""

    at: int
    count: int
    width: int


@dataclass(kw_only=True)
class Walk:
    """One file's walk; the blocks it has seen are kept so that they can be told from what lies between."""

    source: Source
    schema: Mapping[str, Mapping[int, Slot]]
    unions: Mapping[str, Mapping[int, str]]
    format: str
    inspection: Inspection
    blocks: dict[tuple[int, int], str] = field(default_factory=dict)
    tables: dict[tuple[int, str], dict[str, Any]] = field(default_factory=dict)

    def root(self, name: str) -> dict[str, Any]:
        self.claim(0, 8, "head")
        return self.table(self.offset(0), name, 0)

    def claim(self, at: int, length: int, what: str) -> None:
        if at < 0 or at + length > self.source.size:
            raise Truncated(min(max(at, 0), self.source.size))
        if self.blocks.setdefault((at, at + length), what) != what:
            raise self.malformed("overlap", f"The bytes at {at} are two things at once.", at)
        if len(self.blocks) > _MOST_BLOCKS:
            raise Malformed("limit.fields", "The model has more parts than any real one.", at)
        if len(self.blocks) % 1024 == 0:
            self.inspection.tick()

    def number(self, at: int, width: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.source.read(at, width), "little", signed=signed)

    def offset(self, at: int) -> int:
        distance = self.number(at, 4)
        if not distance:
            raise self.malformed("offset", "An offset leads nowhere.", at)
        return at + distance

    def table(self, at: int, name: str, depth: int) -> dict[str, Any]:
        """The fields of one table that are there; nested tables as dictionaries, texts decoded."""
        known = self.tables.get((at, name))
        if known is not None:
            return known
        if depth > self.inspection.limits.nesting:
            raise Malformed("limit.nesting", "Tables are nested deeper than in any real model.", at)
        virtual = at - self.number(at, 4, signed=True)
        size, inline = self.number(virtual, 2), self.number(virtual + 2, 2)
        if size < 4 or size % 2 or not 4 <= inline <= _LARGEST_TABLE:
            raise self.malformed("table", f"No table of fields stands at {at}.", at)
        self.claim(virtual, size, "vtable")
        self.claim(at, inline, f"table {name}")
        found: dict[str, Any] = {}
        self.tables[at, name] = found
        slots = self.schema[name]
        taken: set[int] = set(range(4))
        for slot in range((size - 4) // 2):
            place = self.number(virtual + 4 + 2 * slot, 2)
            if not place:
                continue
            if slot not in slots:
                raise self.malformed("unknown_field", f"Field {slot} of {name} is not part of the format.", at)
            label, kind, argument = slots[slot]
            width = int(argument) if kind == "number" else 4
            cells = set(range(place, place + width))
            if place < 4 or place + width > inline or cells & taken:
                raise self.malformed("table", f"{name}.{label} does not lie in its table.", at)
            taken |= cells
            if kind == "union":
                kind, argument = "table", self.unions[argument].get(found.get(f"{label}Type", 0), "")
                if not argument:
                    raise self.malformed("union", f"{name}.{label} is of an unknown kind.", at)
            found[label] = self.value(at + place, kind, argument, depth)
        return found

    def value(self, at: int, kind: str, argument: str, depth: int) -> Any:
        match kind:
            case "number":
                return self.number(at, int(argument))
            case "numbers":
                return self.vector(self.offset(at), int(argument), "numbers")
            case "text":
                return self.text(self.offset(at))
            case "table":
                return self.table(self.offset(at), argument, depth + 1)
            case "tables":
                vector = self.vector(self.offset(at), 4, f"tables {argument}")
                if vector.count > _MOST_BLOCKS:
                    raise Malformed("limit.fields", "The model has more parts than any real one.", at)
                places = (vector.at + 4 * index for index in range(vector.count))
                return [self.table(self.offset(place), argument, depth + 1) for place in places]
            case _:
                raise self.malformed("unknown_field", f"A field of kind {kind} is not understood.", at)

    def vector(self, at: int, width: int, what: str) -> Numbers:
        count = self.number(at, 4)
        self.claim(at, 4 + count * width, what)
        return Numbers(at=at + 4, count=count, width=width)

    def text(self, at: int) -> str:
        length = self.number(at, 4)
        if length > _LONGEST_TEXT:
            raise self.malformed("text", f"A text of {length:,} bytes is longer than any real one.", at)
        self.claim(at, 5 + length, "text")
        try:
            text = self.source.read(at + 4, length + 1).decode()
        except UnicodeDecodeError:
            raise self.malformed("text", "A text is not text.", at) from None
        if text[-1] != "\0":
            raise self.malformed("text", "A text does not end.", at)
        return text[:-1]

    def integers(self, numbers: Numbers | None) -> list[int]:
        """The signed values of a short vector."""
        if numbers is None:
            return []
        if numbers.count > 1 << 16:
            raise self.malformed("vector", "There are more numbers than in any real model.", numbers.at)
        raw, width = self.source.read(numbers.at, numbers.count * numbers.width), numbers.width
        return [int.from_bytes(raw[at : at + width], "little", signed=True) for at in range(0, len(raw), width)]

    def settle(self) -> int:
        """Where the last block ends. Blocks may not overlap; between them there is padding and nothing else."""
        end = 0
        for (start, stop), what in sorted(self.blocks.items()):
            if start < end:
                raise self.malformed("overlap", f"A {what.split()[0]} begins inside of another block.", start)
            if start > end and (start - end > _PADDING or any(self.source.read(end, start - end))):
                raise self.malformed("gap", f"{start - end:,} bytes belong to nothing.", end)
            end = stop
        return end

    def malformed(self, rule: str, message: str, at: int) -> Malformed:
        return Malformed(f"{self.format}.{rule}", message, at)
