"""Bytes of a file over HTTP, for whoever holds an address that we gave out: where storage holds what only we can open.

The address is what a presigned one would be: short-lived, for one object, and all the credential that is needed. It is made
relative to this server, because no address is made of what a client says in `Host`.
"""

from __future__ import annotations

import base64
import re
from http import HTTPStatus
from itertools import chain
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from api.deps import Parts, Problem, Services
from api.errors import documented
from shared.errors import ObjectMissing
from shared.storage import Bucket
from shared.tickets import LONGEST, TicketOver, TicketRefused

router = APIRouter(prefix="/objects", tags=["versions"])

ADDRESS = "/api/v1/objects?ticket="
RAW = "application/octet-stream"
_ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CONTENT: Any = {RAW: {"schema": {"type": "string", "format": "binary"}, "example": "…"}}


def address(parts: Services, bucket: Bucket, key: str, **said: Any) -> str:
    """A short-lived address of an object; `said` are its filename, media_type, sha256 and size."""
    return ADDRESS + parts.tickets.issue({"bucket": bucket.name, "key": key, **said})


@router.get(
    "",
    summary="Get the bytes of a file",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The file, as an attachment. `Repr-Digest` is its SHA-256.", "content": _CONTENT},
        206: {"description": "The range that was asked for.", "content": _CONTENT},
        **documented(
            "address_refused",
            "address_expired",
            "artifact_not_found",
            "range_not_satisfiable",
            "invalid_field",
            "storage_unavailable",
            "not_encrypted",
            "wrong_storage_key",
            "object_altered",
        ),
    },
)
def read_object(
    parts: Parts,
    ticket: Annotated[str, Query(max_length=LONGEST, description="from an address of …/download")],
    range_: Annotated[
        str | None, Header(alias="Range", description="one range of bytes; several give the whole")
    ] = None,
    if_range: Annotated[str | None, Header(max_length=200, description="the ETag of what you have a part of")] = None,
) -> StreamingResponse:
    """What an address of `…/download` leads to where the server encrypts what it stores. The address is the credential."""
    said = _said(parts, ticket)
    size, etag = int(said["size"]), f'"{said["sha256"]}"'
    wanted = _range(range_, size) if if_range in {None, etag} else None
    start, length = wanted or (0, size)
    bucket = next(each for each in (parts.registry, parts.quarantine, parts.staging) if each.name == said["bucket"])
    pieces = bucket.stream(said["key"], start, length) if wanted else bucket.stream(said["key"])
    try:
        first = next(pieces, b"")  # what storage has to complain of must be known before the answer begins
    except ObjectMissing as error:
        detail = "The file has moved or was removed since this address was given out."
        raise Problem(HTTPStatus.NOT_FOUND, "artifact_not_found", detail) from error
    headers = {
        "Content-Length": str(length),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(said['filename'], safe='')}",
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Cache-Control": "private, no-store",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(said['sha256'])).decode()}:",
    }
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
    status = HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK
    return StreamingResponse(chain([first], pieces), status.value, headers, media_type=said["media_type"])


def _said(parts: Services, ticket: str) -> dict[str, Any]:
    """What we put into the ticket. 403 for one that is over, or none of ours."""
    try:
        return parts.tickets.read(ticket)
    except TicketOver as error:
        detail = f"This address was good for {parts.tickets.lifetime} s; get another one."
        raise Problem(HTTPStatus.FORBIDDEN, "address_expired", detail) from error
    except TicketRefused as error:
        raise Problem(HTTPStatus.FORBIDDEN, "address_refused", "This server has not given out this address.") from error


def _range(said: str | None, size: int) -> tuple[int, int] | None:
    """Start and length of the one range that is asked for; None for everything else, as RFC 9110 §14.2 allows.

    416 for a range that holds no byte of the file.
    """
    found = _ONE_RANGE.fullmatch((said or "").strip())
    if found is None or found.group(1, 2) == ("", ""):
        return None
    first, last = found.group(1, 2)
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        headers = {"Content-Range": f"bytes */{size}"}
        detail = f"The file has {size:,} bytes; none of them is in the range."
        raise Problem(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "range_not_satisfiable", detail, headers=headers)
    return start, end - start
