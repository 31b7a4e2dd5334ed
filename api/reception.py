"""One upload form as it comes in: which part is what, what may be in it, and what is refused before more is read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import PurePath
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.deps import Problem
from api.errors import invalid
from api.landing import Landed, Landing
from api.multipart import Closed, Event, Opened
from pipeline import formats
from pipeline import upload as form
from pipeline.formats import HEAD, Format, Glimpse
from registry.audit import Actor
from shared.settings import Settings

FIELDS_TOGETHER = 1 << 20
"""Bytes that all text fields may have together."""
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A whole upload that nothing is wrong with. `side_files` go by role; `extra` is what opening the model takes.

    `card` is the text of the card file, where it can be shown.
    """

    declaration: form.Declaration
    format: Format
    model: Landed
    side_files: Mapping[str, Landed]
    card: str | None
    extra: str | None


class Reception:
    """Takes the events of one form; `arrival` says what they came to. Raises `Problem` and `Rejected`.

    `model` is the name of the model that the address names; the form need not.

    A kind of form that differs says which `fields` it has, and which `others`: files that belong to the form and not to
    the version. They go to `take_other`, and `recorded` adds what they say.
    """

    fields: Collection[str] = form.FIELDS
    others: Collection[str] = ()

    def __init__(
        self, landing: Landing, settings: Settings, accepted: tuple[Format, ...], *, model: str | None = None
    ) -> None:
        self.settings = settings
        self._name = model
        self.landing = landing
        self._extensions = {extension for each in accepted for extension in each.extensions}
        self._open: _Part | None = None
        self._seen: set[str] = set()
        self.texts: dict[str, bytes] = {}
        self._text_bytes = 0
        self._format: Format | None = None
        self._glimpse: Glimpse | None = None
        self._head_is_judged = False
        self._model: Landed | None = None
        self._side_files: dict[str, Landed] = {}
        self._card: str | None = None

    async def take(self, event: Event) -> None:
        match event:
            case Opened():
                self._open = self._begin(event)
            case Closed():
                part, self._open = self._opened, None
                await self._end(part)
            case _:
                await self._add(self._opened, event)

    def arrival(self, claims: Mapping[str, str], whole: str) -> Arrival:
        """`claims` are the digests in the request's headers: of the whole body, or, as some clients mean it, of the file."""
        if self._model is None or self._format is None or self._glimpse is None:
            raise missing("The form has no model_file.", form.MODEL_FILE)
        try:
            declaration = form.declare(({} if self._name is None else {"name": self._name.encode()}) | self.texts)
        except form.InvalidFields as error:
            raise invalid(error.faults) from error
        if self._name not in (None, declaration.name):
            raise invalid({"name": f"is {declaration.name}, but the address names {self._name}"})
        if declaration.sha256 not in (None, self._model.sha256):
            raise _mismatch("sha256", self._model)
        for header, digest in claims.items():
            if digest not in (whole, self._model.sha256):
                raise _mismatch(header, self._model)
        return Arrival(
            declaration=declaration,
            format=self._format,
            model=self._model,
            side_files=dict(self._side_files),
            card=self._card,
            extra=self._format.needs(self._glimpse, declaration.declared),
        )

    def told(self, arrival: Arrival) -> list[bytes]:
        """All that was said and sent, in an order of its own: what two forms must have in common to be the same."""
        files = {form.MODEL_FILE: arrival.model, **arrival.side_files}
        texts = [piece for name in sorted(self.texts) for piece in (name.encode(), self.texts[name])]
        return [*texts, *(f"{role} {files[role].name} {files[role].sha256}".encode() for role in sorted(files))]

    async def take_other(self, name: str, content: bytes) -> None:
        """One of the `others` has come, whole."""
        raise AssertionError(f"nobody takes {name}, {len(content)} bytes")

    def recorded(self, session: Session, version: Row[Any], actor: Actor) -> None:
        """The version's row is there, in a transaction that is not over."""

    @property
    def _opened(self) -> _Part:
        if self._open is None:
            raise AssertionError("a part's bytes came before the part")
        return self._open

    def _begin(self, event: Opened) -> _Part:
        name = form.ALIASES.get(event.name, event.name)
        if name in self._seen:
            raise invalid({name: "is given twice"})
        self._seen.add(name)
        if name in self.fields:
            if event.filename:
                raise invalid({name: f"is a field, not a file; with curl: -F '{name}=<{event.filename[:80]}'"})
            return _Part(name=name, filename=None, claims={})
        if name != form.MODEL_FILE and name not in form.SIDE_FILES and name not in self.others:
            raise invalid({event.name[:64]: form.misnamed(event.name)})
        if event.filename is None:
            raise missing(f"{name} holds text and no file.", name)
        if not event.filename:  # what a browser sends for a file input that was left alone
            return _Part(name=name, filename="", claims={})
        try:
            filename = form.file_name(event.filename)
        except ValueError as error:
            raise invalid({name: str(error)}) from error
        if name == form.MODEL_FILE:
            self._begin_model(filename)
        elif name in form.SIDE_FILES:
            form.check_side_file(name, filename)
        return _Part(name=name, filename=filename, claims=digests_in(event.headers))

    def _begin_model(self, filename: str) -> None:
        """Refuse by the name and by the fields that have come, before the bytes do."""
        if PurePath(filename).suffix.lower() not in self._extensions:
            formats.identify(filename, Glimpse(head=b"", tail=b"", size=0))
        _, faults = form.judge(self.texts)
        if faults:
            raise invalid(faults)
        self.landing.begin(filename)

    async def _add(self, part: _Part, data: memoryview) -> None:
        if part.filename is None:
            self._text_bytes += len(data)
            if len(part.content) + len(data) > form.FIELDS[part.name].limit:
                raise invalid({part.name: f"has more than {form.FIELDS[part.name].limit >> 10} KiB"})
            if self._text_bytes > FIELDS_TOGETHER:
                raise _too_large("The fields", FIELDS_TOGETHER)
        elif not part.filename:
            raise invalid({part.name: "has no file name"})
        elif part.name == form.MODEL_FILE:
            if self.landing.size + len(data) > self.settings.max_upload_size:
                raise _too_large(part.filename, self.settings.max_upload_size)
            await self.landing.write(data)
            self._judge_head(part.filename)
            return
        elif len(part.content) + len(data) > self.settings.max_side_file_size:
            raise _too_large(part.filename, self.settings.max_side_file_size)
        part.content += data

    def _judge_head(self, filename: str) -> None:
        """Refuse by the first bytes. A zip archive says what it is at its end, so it has to wait."""
        if self._head_is_judged or self.landing.size < HEAD:
            return
        self._head_is_judged = True
        head = self.landing.head
        if not head.startswith(_ZIP):
            formats.identify(filename, Glimpse(head=head, tail=head, size=self.settings.max_upload_size))

    async def _end(self, part: _Part) -> None:
        if part.filename is None:
            self.texts[part.name] = bytes(part.content)
        elif not part.filename:
            self._seen.discard(part.name)
        elif part.name == form.MODEL_FILE:
            if not self.landing.size:
                raise Problem(HTTPStatus.BAD_REQUEST, "empty_file", f"{part.filename} is empty.")
            self._model = await self.landing.finish(part.filename)
            self._glimpse = self.landing.seen()
            identify = partial(formats.identify, part.filename, self._glimpse)
            self._format = await self.landing.run(identify)
            part.compare(self._model)
        elif part.name in self.others:
            await self.take_other(part.name, bytes(part.content))
        else:
            kind = form.SIDE_FILES[part.name]
            landed = await self.landing.store(kind.role, part.filename, bytes(part.content))
            part.compare(landed)
            self._side_files[kind.role] = landed
            if kind.role == "card":
                self._card = form.card_of(part.content)


class _Part:
    """The part that is open. `filename` is None for a text field. `content` stays empty for the model file."""

    def __init__(self, *, name: str, filename: str | None, claims: Mapping[str, str]) -> None:
        self.name = name
        self.filename = filename
        self.claims = claims
        self.content = bytearray()

    def compare(self, landed: Landed) -> None:
        for header, digest in self.claims.items():
            if digest != landed.sha256:
                raise _mismatch(header, landed)


def digests_in(headers: Mapping[str, str]) -> dict[str, str]:
    """Header → hex SHA-256 that it claims (RFC 9530). Other algorithms are not looked at."""
    found: dict[str, str] = {}
    for header in ("content-digest", "repr-digest"):
        for member in headers.get(header, "").split(","):
            algorithm, _, value = member.strip().partition("=")
            if algorithm.lower() != "sha-256":
                continue
            try:
                digest = base64.b64decode(value.strip().removeprefix(":").removesuffix(":"), validate=True)
            except (binascii.Error, ValueError):
                digest = b""
            if len(digest) != 32:
                detail = f"{header} must hold a SHA-256 in base64 between colons: sha-256=:…:"
                raise Problem(HTTPStatus.BAD_REQUEST, "invalid_digest", detail)
            found[header] = digest.hex()
    return found


def missing(detail: str, part: str) -> Problem:
    hint = f"With curl, an @ makes it a file: -F {part}=@FILE"
    return Problem(HTTPStatus.BAD_REQUEST, "missing_file", detail, hint=hint)


def _mismatch(claimed_in: str, landed: Landed) -> Problem:
    detail = f"{claimed_in} announces other bytes than those that arrived: {landed.name} has sha256:{landed.sha256}."
    return Problem(HTTPStatus.BAD_REQUEST, "digest_mismatch", detail, hint="Send it again; it changed on the way.")


def _too_large(what: str, limit: int) -> Problem:
    detail = f"{what} exceeds {limit:,} bytes."
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", detail)
