"""What readers share: the finding, the verdict, the limits, and the notebook in which an inspection is written down.

Knows no format. A reader says what it understood and what it did not; whatever nobody understood is `unknown`.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.readers.source import Source, Truncated

_LONGEST_TEXT = 500
_REPEATED = 5
_MOST_NAMES = 1000
_LONGEST_NAME = 200
VAGUE = 1


class Severity(IntEnum):
    """In order of weight: `INFO` and `WARNING` let the file pass, `UNKNOWN` and `MALICIOUS` stop it."""

    INFO = 0
    WARNING = 1
    UNKNOWN = 2
    MALICIOUS = 3


_ADVICE = {
    Severity.INFO: "Nothing to do.",
    Severity.WARNING: "Have a look when there is time.",
    Severity.UNKNOWN: "Export the model again with a current version of its framework, or have a reviewer look at the file.",
    Severity.MALICIOUS: "Do not open this file anywhere; find out where it came from.",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing a reader saw. `path` names the member (`model.pt!archive/data.pkl`), `offset` its byte inside it."""

    rule: str
    severity: Severity
    path: str
    offset: int | None
    message: str
    advice: str

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "severity": self.severity.name.lower()}


def _printable(text: str) -> str:
    """Foreign text as it may be stored and shown: no control characters, no half characters, not long."""
    shown = "".join(
        character if character.isprintable() else f"\\x{ord(character):02x}" for character in text[:_LONGEST_TEXT]
    )
    return shown[:_LONGEST_TEXT]


class Malformed(Exception):
    """The reader cannot go on; becomes one finding of severity unknown, or malicious where the reader says so."""

    def __init__(
        self, rule: str, message: str, offset: int | None = None, severity: Severity = Severity.UNKNOWN
    ) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message
        self.offset = offset
        self.severity = severity


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a reader goes before it gives up. Sizes in bytes; `ratio` is inflated to packed size of one member."""

    seconds: float = 240.0
    depth: int = 6
    members: int = 100_000
    inflated: int = 8 << 30
    ratio: int = 200
    opcodes: int = 20_000_000
    stack: int = 1_000_000
    memo: int = 10_000_000
    fields: int = 20_000_000
    nesting: int = 40
    text: int = 32 << 20
    document: int = 64 << 20
    findings: int = 100


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """What a reader sees when it is asked whether this is its format: content, never a name."""

    head: bytes
    size: int


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Understands one format. `version` grows with every change of what it lets pass.

    `examine` accounts for every byte of the source: it reports to the inspection what it understood and what it
    did not. A reader of lower `rank` is asked first; from `VAGUE` on it recognises what others may recognise, too.
    `hides` tells whether loaders would find this format in bytes that begin as another one. A `container` may hold
    whole files of any format unchanged.
    `recall` says what today's lists make of a name that the reader once let pass (`Inspection.saw`); None: nothing.
    """

    name: str
    recognises: Callable[[Glimpse], bool]
    examine: Callable[[Source, str, Inspection], None]
    version: int = 1
    rank: int = 0
    recall: Callable[[str], Severity | None] | None = None
    hides: Callable[[Source], bool] | None = None
    container: bool = False


@dataclass(kw_only=True)
class Inspection:
    """The notebook of one examination."""

    limits: Limits
    readers: tuple[Reader, ...]
    layouts: tuple[Any, ...] = ()
    unpack_to: Path | None = None
    findings: list[Finding] = field(default_factory=list)
    understood: dict[str, int] = field(default_factory=dict)
    inflated: int = 0
    seen: int = 0
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    _unpacked: int = 0
    _members: int = 0
    _depth: int = 0
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)
    _stops: dict[str, Severity] = field(default_factory=dict)
    _worst: Severity = Severity.INFO
    _left_out: int = 0
    _started: float = field(default_factory=time.monotonic)

    def note(
        self, severity: Severity, rule: str, path: str, offset: int | None, message: str, *, advice: str | None = None
    ) -> None:
        """Write a finding down. The same rule in the same place is written a few times only; none is forgotten."""
        self._worst = max(self._worst, severity)
        if severity >= Severity.UNKNOWN:
            self._stops[rule] = max(self._stops.get(rule, severity), severity)
        times = self._seen[(rule, path)] = self._seen.get((rule, path), 0) + 1
        if len(self.findings) >= self.limits.findings:
            lightest = min(self.findings, key=lambda finding: finding.severity)
            if lightest.severity < severity:
                self.findings.remove(lightest)
                self._left_out += 1
        if times > _REPEATED or len(self.findings) >= self.limits.findings:
            self._left_out += 1
            return
        self.findings.append(
            Finding(
                rule=rule,
                severity=severity,
                path=_printable(path),
                offset=offset,
                message=_printable(message),
                advice=advice or _ADVICE[severity],
            )
        )

    def malicious(self, rule: str, path: str, offset: int | None, message: str, advice: str | None = None) -> None:
        self.note(Severity.MALICIOUS, rule, path, offset, message, advice=advice)

    def unknown(self, rule: str, path: str, offset: int | None, message: str, advice: str | None = None) -> None:
        self.note(Severity.UNKNOWN, rule, path, offset, message, advice=advice)

    def saw(self, reader: str, name: str, path: str) -> None:
        """Remember a name that a list of `reader` let pass, so that a later list can be asked without the file."""
        if len(self.names) < _MOST_NAMES and len(name) <= _LONGEST_NAME and name.isprintable():
            self.names.setdefault((reader, name), _printable(path))

    def credit(self, reader: str, count: int) -> None:
        """Say that `reader` understood `count` bytes."""
        self.understood[reader] = self.understood.get(reader, 0) + count

    def tick(self) -> None:
        """Called now and then by loops over foreign bytes; raises once the time is used up."""
        if time.monotonic() - self._started > self.limits.seconds:
            raise Malformed("limit.time", f"Reading took longer than {self.limits.seconds:.0f} s.")

    def inflate(self, count: int) -> None:
        self.inflated += count
        if self.inflated > self.limits.inflated:
            raise Malformed("limit.inflated", f"The content unpacks to more than {self.limits.inflated:,} bytes.")

    def count_member(self) -> None:
        """Called for every member of every archive, however deep: all of them together are limited."""
        self._members += 1
        if self._members > self.limits.members:
            raise Malformed("limit.members", f"The archives have more than {self.limits.members:,} members.")

    def unpacked_file(self) -> BinaryIO | None:
        """Where the content of the next packed member is to be written as well, if anywhere."""
        if self.unpack_to is None:
            return None
        self._unpacked += 1
        return (self.unpack_to / f"member-{self._unpacked:06d}").open("xb")

    @contextmanager
    def deeper(self) -> Iterator[None]:
        if self._depth >= self.limits.depth:
            raise Malformed("limit.depth", f"Containers are nested more than {self.limits.depth} deep.")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def guarded(self, path: str, work: Callable[[], None]) -> None:
        """Run a reader's work; what it cannot go on with becomes a finding."""
        try:
            work()
        except Malformed as stop:
            self.note(stop.severity, stop.rule, path, stop.offset, stop.message)
        except Truncated as stop:
            self.unknown("content.truncated", path, stop.offset, "The content ends in the middle of something.")
        except (RecursionError, MemoryError, OverflowError):
            self.unknown("limit.resources", path, None, "The content needs more memory or nesting than any real file.")
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            self.unknown("limit.file", path, None, "The content unpacks to more than one file may hold here.")

    def examine(self, source: Source, path: str) -> None:
        """Judge a source by what it is; what no reader recognises is unknown."""
        glimpse = Glimpse(head=source.head(4096), size=source.size)
        reader = next((reader for reader in self.readers if reader.recognises(glimpse)), None)
        if reader is None:
            self.unknown("content.unrecognised", path, 0, f"No reader knows what these {source.size:,} bytes are.")
            for one in self.readers:
                if one.hides is not None and one.hides(source):
                    self.unknown("content.prefix", path, 0, f"Something stands before what loaders read as {one.name}.")
            return
        if len(self.parts) < _MOST_NAMES:
            self.parts[_printable(path)] = reader.name
        others = [one for one in self.readers if one is not reader and self._fits(one, glimpse, source, reader)]
        if others:
            kinds = ", ".join(one.name for one in others)
            self.unknown("content.polyglot", path, 0, f"The bytes are {reader.name} and at the same time {kinds}.")

        def work() -> None:
            with self.deeper():
                reader.examine(source, path, self)

        self.guarded(path, work)

    def _fits(self, other: Reader, glimpse: Glimpse, source: Source, chosen: Reader) -> bool:
        """Whether what the chosen reader understands may be read as another format all the same."""
        if other.hides is not None and not chosen.container and other.hides(source):
            return True
        return other.rank < VAGUE and other.recognises(glimpse)

    def expect(self, count: int) -> None:
        """Say that so many bytes more are to be understood: the file's own, or what was unpacked from it."""
        self.seen += count

    def settle(self, path: str) -> None:
        """At the end: what no reader claims to have understood must not pass as clean."""
        missing = self.seen - sum(self.understood.values())
        if self.verdict == "clean" and missing > 0:
            self.unknown(
                "content.unaccounted", path, None, f"{missing:,} of {self.seen:,} bytes were understood by nobody."
            )

    @property
    def verdict(self) -> str:
        if self._worst is Severity.MALICIOUS:
            return "malicious"
        return "unknown" if self._worst is Severity.UNKNOWN else "clean"

    def as_json(self) -> Mapping[str, Any]:
        findings = sorted(self.findings, key=lambda finding: -finding.severity)
        return {
            "verdict": self.verdict,
            "findings": [finding.as_json() for finding in findings],
            "stops": {rule: severity.name.lower() for rule, severity in sorted(self._stops.items())},
            "left_out": self._left_out,
            "summary": {
                "names": [
                    {"reader": reader, "name": name, "path": path} for (reader, name), path in self.names.items()
                ],
                "parts": [{"path": path, "reader": reader} for path, reader in self.parts.items()],
            },
            "bytes": dict(sorted(self.understood.items())),
        }
