"""Pickles inside of a pickle's bytes and texts, and files that a pickle gives to a loader. Judged as what they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.readers.source import Source, of_bytes
from pipeline.readers.symbols import HIGHEST, Bytes, Made, Text

if TYPE_CHECKING:
    from pipeline.readers.machine import Machine

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_HEAD = re.compile(
    rb"\x80[\x02-\x05](?:\x95.{8})?\x8a\x0a" + re.escape(TORCH_MAGIC.to_bytes(10, "little")), re.DOTALL
)
"""How files of `torch.save` began before version 1.6: with a pickle of this number."""

_LONGEST = 64 << 20
_IN_LETTERS = re.compile(rb"[(\])}Nldt0-2]{0,8}[ci][A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n")


def suspect(machine: Machine, start: int, length: int, content: bytes | None = None) -> None:
    """Judge bytes or text of the pickle that begin as a pickle does."""
    if machine.probing or not 4 <= length <= _LONGEST:
        return
    head = machine.source.read(start, min(length, 256)) if content is None else content
    if (head[0] == 0x80 and head[1] <= HIGHEST) or _IN_LETTERS.match(head):
        _judge(machine, machine.source.part(start, length), start)


def suspect_text(machine: Machine, text: str) -> None:
    """The same for text that does not stand in the file as it is."""
    if not machine.probing and "\n" in text and _IN_LETTERS.match(raw := text.encode("utf-8", "replace")):
        _judge(machine, of_bytes(raw), machine.at)


def suspect_latin(machine: Machine, text: object) -> None:
    """The same for bytes that are written as text."""
    marked = isinstance(text, str) and text.startswith("\x80")
    if isinstance(text, Text):
        marked = machine.source.read(text.start, min(2, text.length)) == b"\xc2\x80"
    raw = _latin(machine, text) if marked and not machine.probing else None
    if raw is not None:
        _judge(machine, of_bytes(raw), machine.at)


def look_inside(machine: Machine, value: object) -> bool:
    """Judge bytes that the pickle gives to torch as the file that they are; False where they cannot be one."""
    if isinstance(value, Bytes):
        inner = machine.source.part(value.start, value.length)
    elif isinstance(value, Made) and value.kind.pair == ("_codecs", "encode") and value.arguments:
        raw = _latin(machine, value.arguments[0])
        if raw is None:
            return False
        inner = of_bytes(raw)
    else:
        return False
    if inner.head(1) not in (b"P", b"\x80"):  # a zip archive, or the pickles of older files
        return False
    judged = inner.size <= _LONGEST and TORCH_HEAD.match(inner.head(32))  # when the bytes were pushed
    if not machine.probing and not judged:
        _examine(machine, inner, machine.at)
    return True


def _judge(machine: Machine, inner: Source, at: int) -> None:
    """Pickles in a row, unless they break before they do anything."""
    if TORCH_HEAD.match(inner.head(32)):
        _examine(machine, inner, at)
        return
    offset = 0
    with machine.inspection.deeper():
        while offset < inner.size:
            probe = machine.probe(inner, offset)
            probe.attempt()
            if not probe.acts and not probe.result.end:
                return
            offset = machine.beside(inner, f"{machine.path}@{at}", offset).run().end


def _examine(machine: Machine, inner: Source, at: int) -> None:
    """A file of its own. Its bytes are claimed twice: as part of the pickle, and for what they are."""
    machine.inspection.expect(inner.size)
    machine.inspection.examine(inner, f"{machine.path}@{at}")


def _latin(machine: Machine, text: object) -> bytes | None:
    """The bytes that protocols 0 to 2 write as a text of single-byte characters; None for other or endless text."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else b""
    if isinstance(text, Text):
        if text.length > machine.inspection.limits.document:
            return None
        raw = machine.source.read(text.start, text.length)
    try:
        return raw.decode("utf-8").encode("latin-1")
    except UnicodeError:
        return None
