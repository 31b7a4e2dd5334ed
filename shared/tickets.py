"""Tickets: notes to ourselves that somebody else carries for a short time, and can neither read nor change.

Sealed with AES-256-GCM under keys made of the instance's secrets (HKDF, RFC 5869). Knows nothing of what they are for.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF

from shared.envelope import seal, unseal

LONGEST = 6144
"""Characters; addresses may have 8 KiB."""
_CONTEXT = b"slipway ticket 1"


class TicketRefused(Exception):
    """No ticket of ours, or one that was changed."""


class TicketOver(TicketRefused):
    """It was one of ours."""


class Tickets:
    """`previous` are secrets from before: their tickets are taken until they are over, and no new ones made."""

    def __init__(self, secret: str, *, lifetime: int, previous: Sequence[str] = ()) -> None:
        self._keys = [_key(each) for each in (secret, *previous)]
        self.lifetime = lifetime

    def issue(self, content: Mapping[str, Any]) -> str:
        """A ticket for `content` (JSON), good for `lifetime` seconds; fit for an address."""
        note = json.dumps([time.time() + self.lifetime, content], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(seal(self._keys[0], note, _CONTEXT)).decode().rstrip("=")

    def read(self, ticket: str) -> dict[str, Any]:
        """What was issued. Raises `TicketRefused`, among it `TicketOver`."""
        try:
            sealed = base64.b64decode(ticket.encode("ascii") + b"=" * (-len(ticket) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise TicketRefused from error
        for key in self._keys:
            try:
                end, content = json.loads(unseal(key, sealed, _CONTEXT))
            except ValueError:
                continue
            if end < time.time():
                raise TicketOver
            found: dict[str, Any] = content
            return found
        raise TicketRefused


def _key(secret: str) -> bytes:
    key = HKDF(secret.encode(), 32, b"", SHA256, context=_CONTEXT)
    assert isinstance(key, bytes)  # noqa: S101 - a tuple only for those who ask for several keys
    return key
