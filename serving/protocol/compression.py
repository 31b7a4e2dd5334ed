"""gzip and deflate: what a client may send, within a limit, and what is worth sending back."""

from __future__ import annotations

import gzip
import zlib
from http import HTTPStatus

from serving.protocol.refusals import BadRequest, Buffer, Reply, brief

_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW = -15
_WORTH = 4 << 10
"""Bytes below which an answer fits into a few packets as it is."""

_MEMBERS, _PIECE = 1000, 64 << 10
"""Members of a gzip body at most, and bytes fed at once: what follows a member's end is copied once for each."""
_SHARE = 0.75
_FAST = 1


def unpacked(body: Buffer, encoding: str, largest: int) -> Buffer:
    """The body as it was before `Content-Encoding`; never more than `largest` bytes are unpacked."""
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return _bounded(body, largest)
    if coding not in _WINDOWS:
        raise BadRequest(
            "unsupported_encoding",
            f"Content-Encoding {brief(encoding)} is not known here; send gzip, deflate, or the body as it is.",
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            field="Content-Encoding",
            expected="gzip or deflate",
            got=brief(encoding),
        )
    window = _WINDOWS[coding]
    if coding == "deflate" and not _zlib_header(body):
        window = _RAW  # what some clients take deflate for
    try:
        return _joined(memoryview(body), coding, window, largest)
    except zlib.error as error:
        raise _damaged(coding, str(error)) from error


def _joined(body: memoryview, coding: str, window: int, largest: int) -> bytes:
    """All members of a gzip file (RFC 1952 §2.2), or the one stream of deflate, fed piece by piece."""
    parts: list[bytes] = []
    room, at = largest + 1, 0
    for _ in range(_MEMBERS):
        stream = zlib.decompressobj(window)
        while not stream.eof:
            piece = body[at : at + _PIECE]
            if not piece:
                raise _damaged(coding, "it ends too early")
            parts.append(stream.decompress(piece, room))
            room -= len(parts[-1])
            if room <= 0:
                raise _too_large(largest)
            at += len(piece) - len(stream.unused_data)
        if at == len(body):
            return b"".join(parts)
        if coding == "deflate":
            raise _damaged(coding, f"{len(body) - at} bytes follow its end")
    raise _damaged(coding, f"it has more than {_MEMBERS} members")


def packed(reply: Reply, accept: str) -> Reply:
    """The reply, compressed where the client takes it and a sample of the body says that it pays."""
    coding = _accepted(accept)
    if coding is None:
        return reply
    body = reply.joined()
    if len(body) < _WORTH:
        return reply
    sample = body[len(body) // 2 :][:_WORTH]
    if len(zlib.compress(sample, _FAST)) > _SHARE * len(sample):
        return reply
    shrunk = gzip.compress(body, _FAST, mtime=0) if coding == "gzip" else zlib.compress(body, _FAST)
    headers = {**reply.headers, "content-encoding": coding, "vary": "Accept-Encoding"}
    return Reply(status=reply.status, headers=headers, body=shrunk)


def _bounded(body: Buffer, largest: int) -> Buffer:
    if len(body) > largest:
        raise _too_large(largest)
    return body


def _zlib_header(body: Buffer) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0


def _accepted(accept: str) -> str | None:
    """The coding that an Accept-Encoding header takes, gzip before deflate."""
    taken = set()
    for one in accept.lower().split(","):
        coding, _, parameters = one.partition(";")
        quality = parameters.strip().removeprefix("q=").strip()
        if quality and not quality.strip("0."):
            continue
        taken.add(coding.strip())
    return "gzip" if taken & {"gzip", "x-gzip", "*"} else "deflate" if "deflate" in taken else None


def _too_large(largest: int) -> BadRequest:
    return BadRequest(
        "too_large",
        f"The request's body exceeds {largest} bytes once it is unpacked; send fewer rows at a time.",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        expected=f"at most {largest} bytes",
    )


def _damaged(coding: str, why: str) -> BadRequest:
    return BadRequest("malformed_body", f"The body is not {coding}: {why}.", field="Content-Encoding")
