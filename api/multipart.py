"""multipart/form-data (RFC 7578) as a stream of events. Keeps no part; knows neither fields nor files, only limits."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

MAX_PARTS = 64
MAX_HEADERS = 8
MAX_HEADER = 4096
"""Bytes of one header line of a part."""


class MalformedError(Exception):
    """The body is not what its content type says. The message is for whoever wrote the client."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A part begins. `filename` is None for a text field, and empty where a browser's file input was left alone."""

    name: str
    filename: str | None
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Closed:
    """The part that was opened last is complete."""


Event = Opened | memoryview | Closed


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises `MalformedError`."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise MalformedError(f"The body is {kind.decode('latin-1')[:80] or 'of no type'}, not multipart/form-data.")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:
        raise MalformedError("The Content-Type names no boundary of 1 to 70 characters.")
    return boundary


async def events(chunks: AsyncIterable[bytes], boundary: bytes) -> AsyncIterator[Event]:
    """What the body says, part by part and as it comes; bytes are views that are good until the next event.

    Raises `MalformedError` for a body that breaks the rules or ends before its closing boundary.
    """
    collector = _Collector()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": collector.begin,
            "on_header_field": collector.header_field,
            "on_header_value": collector.header_value,
            "on_header_end": collector.header_end,
            "on_headers_finished": collector.opened,
            "on_part_data": collector.data,
            "on_part_end": collector.closed,
            "on_end": collector.finish,
        },
        max_header_count=MAX_HEADERS,
        max_header_size=MAX_HEADER,
    )
    async for chunk in chunks:
        try:
            parser.write(chunk)
        except FormParserError as error:
            raise MalformedError(f"The body is not multipart/form-data: {error}.") from error
        for event in collector.take():
            yield event
    if not collector.finished:
        raise MalformedError("The body ends before its closing boundary.")


class _Collector:
    """The parser's callbacks, turned into events."""

    def __init__(self) -> None:
        self.finished = False
        self._events: list[Event] = []
        self._parts = 0
        self._headers: dict[str, str] = {}
        self._field = bytearray()
        self._value = bytearray()

    def take(self) -> list[Event]:
        taken, self._events = self._events, []
        return taken

    def begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise MalformedError(f"The form has more than {MAX_PARTS} parts.")
        self._headers = {}

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        name = self._field.decode("latin-1").lower()
        if name in self._headers:
            raise MalformedError(f"A part has the header {name} twice.")
        self._headers[name] = self._value.decode("latin-1")
        self._field.clear()
        self._value.clear()

    def opened(self) -> None:
        disposition, options = parse_options_header(self._headers.get("content-disposition", ""))
        if disposition != b"form-data" or not options.get(b"name"):
            raise MalformedError("A part has no Content-Disposition of form-data with a name.")
        if self._headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
            raise MalformedError("A part is encoded for transfer; send its bytes as they are.")
        filename = options.get(b"filename")
        self._events.append(
            Opened(
                name=_text(options[b"name"]),
                filename=None if filename is None else _text(filename),
                headers=self._headers,
            )
        )

    def data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(memoryview(data)[start:end])

    def closed(self) -> None:
        self._events.append(Closed())

    def finish(self) -> None:
        self.finished = True


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("A part's name or file name is not UTF-8.") from error
