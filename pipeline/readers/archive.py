"""What zip, tar and 7z have in common: members with names and content, judged by a layout or one by one.

Knows no container's bytes: a container's reader checks all of those and hands over an `Archive`. Layouts know what
the members of one kind of archive mean.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import BinaryIO, cast
from unicodedata import normalize

from pipeline.readers.inspection import Inspection, Malformed, Severity
from pipeline.readers.source import Source, of_bytes

_IN_MEMORY = 16 << 20
_LONGEST_NAME = 4096
_DEEPEST_NAME = 128
_MOST_CHARACTERS = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of an archive. `content` gives its bytes, unpacked; `size` is their number."""

    name: str
    size: int
    content: Callable[[], Source]


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive that its reader has checked from the first byte to the last.

    `kind` is the container's name (`zip`, `tar`, `7z`). A folder is a member whose name ends in a slash.
    """

    kind: str
    path: str
    members: Mapping[str, Member]

    def path_of(self, name: str) -> str:
        """The member as findings name it."""
        return f"{self.path}!{name}"

    def open(self, name: str) -> Source:
        """The member's content, in memory when small and in a nameless file when not."""
        return self.members[name].content()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Understands archives whose members' names form a known pattern; examines all of their members.

    `containers` are the kinds of archive in which a loader would look for this layout.
    """

    name: str
    recognises: Callable[[frozenset[str]], bool]
    examine: Callable[[Archive, Inspection], None]
    version: int = 1
    containers: frozenset[str] = frozenset({"zip"})


def judge(archive: Archive, inspection: Inspection) -> None:
    """Have every member examined: by the archive's layout if it has one, else each by what it is."""
    names = frozenset(archive.members)
    layouts = [one for one in inspection.layouts if archive.kind in one.containers and one.recognises(names)]
    if len(layouts) > 1:
        kinds = " and ".join(layout.name for layout in layouts)
        inspection.unknown(
            f"{archive.kind}.ambiguous", archive.path, None, f"The archive is laid out as {kinds} at once."
        )
    for layout in layouts[:1]:
        layout.examine(archive, inspection)
    if not layouts:
        for name in archive.members:
            if not name.endswith("/"):
                inspection.examine(archive.open(name), archive.path_of(name))


class _Nameless(io.FileIO):
    """A file without a name, gone when the last source that reads it is."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            super().__init__(os.dup(file.fileno()), "r+b")

    def __del__(self) -> None:
        self.close()


def keep(pieces: Iterable[bytes], copy: BinaryIO | None = None) -> Source:
    """Unpacked content as a source: in memory when small, in a nameless file when not. `copy` gets it, too."""
    memory, spill = bytearray(), None
    size = 0
    with copy or nullcontext():
        for piece in pieces:
            size += len(piece)
            memory += piece
            if size > _IN_MEMORY:
                spill = spill or _Nameless()
                _write(spill, memory)
                memory.clear()
            if copy is not None:
                copy.write(piece)
    if spill is None:
        return of_bytes(bytes(memory))
    return Source(file=cast("BinaryIO", spill), start=0, size=size)


def _write(file: io.FileIO, content: bytearray) -> None:
    with memoryview(content) as rest:
        written = 0
        while written < len(rest):
            written += file.write(rest[written:])


@dataclass(kw_only=True)
class Names:
    """The names of one archive while they are read. Whatever an unpacker could be led astray by is a finding."""

    kind: str
    path: str
    inspection: Inspection
    _files: set[str] = field(default_factory=set)
    _folders: set[str] = field(default_factory=set)
    _implied: set[str] = field(default_factory=set)
    _characters: int = 0

    def admit(self, name: str, offset: int | None) -> None:
        """Check the name of the next member; a folder's ends in a slash. Raises where it collides with another."""
        self.inspection.count_member()
        bare = name.rstrip("/")
        parts = bare.split("/")
        if len(name) > _LONGEST_NAME or len(parts) > _DEEPEST_NAME:
            raise Malformed(f"{self.kind}.name", "A name is longer or deeper than any real one.", offset)
        if name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
            self.inspection.malicious(
                f"{self.kind}.traversal", self.path, offset, f"The name {name[:200]!r} points outside of the archive."
            )
        elif not name.isprintable() or "" in parts or "." in parts or name not in (bare, f"{bare}/"):
            self.inspection.unknown(
                f"{self.kind}.name", self.path, offset, f"The name {name[:200]!r} is not a plain relative path."
            )
        folded = normalize("NFC", bare).casefold()
        above = {folded[:at] for at, character in enumerate(folded) if character == "/"}
        folder = name != bare
        if (
            folded in self._files
            or folded in self._folders
            or (folded in self._implied and not folder)
            or not self._files.isdisjoint(above)
        ):
            raise Malformed(
                f"{self.kind}.duplicate", f"The name {name[:200]!r} occurs twice.", offset, Severity.MALICIOUS
            )
        above -= self._implied
        self._implied |= above
        self._characters += len(folded) + sum(map(len, above))
        if self._characters > _MOST_CHARACTERS:
            raise Malformed(
                "limit.members", "The names of the members take more memory than any real archive's.", offset
            )
        (self._folders if folder else self._files).add(folded)
