"""Objects that are sealed before they are stored: how their bytes look, and the keys that open them. Knows no storage.

Each object has a random key of its own, which lies beside it, wrapped by a master key. Its content is cut into chunks of
1 MiB, each sealed with AES-256-GCM under a nonce that says which chunk it is and whether it is the last (STREAM: Hoang,
Reyhanitabar, Rogaway, Vizár, CRYPTO 2015). A chunk that was changed, moved or taken from another object does not open, nor
does what was cut off; and a range is read by opening the chunks that it touches.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from Crypto.Cipher import AES

from shared.errors import DependencyUnavailable

CHUNK = 1 << 20
"""Bytes of content in each chunk but the last, which may have less; no content at all is one empty chunk."""
TAG = 16
SEALED = CHUNK + TAG
LABEL = "slipway-envelope"
"""Name of the object's metadata that holds its wrapped key: `1.{id of the master key}.{base64}`."""
_VERSION = "1"
_KEY = 32
_NONCE = 12

Buffer = bytes | bytearray | memoryview


class Readable(Protocol):
    def read(self, amount: int, /) -> bytes:
        """As many bytes as asked for, fewer only at the end."""


class DataKey:
    """The key of one object. No two contents may be sealed with it: nonces are the numbers of chunks."""

    def __init__(self, raw: bytes | None = None) -> None:
        self.raw = raw or secrets.token_bytes(_KEY)

    def seal(self, first: int, content: Buffer, *, last: bool) -> bytearray:
        """Seal whole chunks, of which the first is number `first`; with `last`, the object ends with them."""
        if not last and (not content or len(content) % CHUNK):
            raise ValueError(f"{len(content)} bytes are not whole chunks, and the object does not end with them")
        count = _count(len(content), CHUNK)
        sealed = bytearray(len(content) + count * TAG)
        plain, into = memoryview(content), memoryview(sealed)
        for index in range(count):
            piece = plain[index * CHUNK : (index + 1) * CHUNK]
            at = index * SEALED
            cipher = self._cipher(first + index, last=last and index == count - 1)
            cipher.encrypt(piece, output=into[at : at + len(piece)])
            into[at + len(piece) : at + len(piece) + TAG] = cipher.digest()
        return sealed

    def read(self, body: Readable, *, total: int, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Open the content's bytes [start, start + length), a chunk at a time.

        `body` begins with the chunk that `start` lies in, `total` is the size of the whole sealed object. Raises
        `DependencyUnavailable("object_altered")`; what was yielded before that is as it was sealed.
        """
        size, final = plain_size(total), _count(total, SEALED) - 1
        end = size if length is None else min(size, start + length)
        # To the chunk that says that it is the last, also where nothing of the content is said to be in it.
        until = final if end == size else _count(end, CHUNK) - 1
        for number in range(start // CHUNK, until + 1):
            sealed = body.read(min(SEALED, total - number * SEALED))
            piece = self._open(number, sealed, last=number == final)
            yield piece[max(0, start - number * CHUNK) : end - number * CHUNK]

    def _open(self, number: int, sealed: bytes, *, last: bool) -> bytes:
        view = memoryview(sealed)
        try:
            opened: bytes = self._cipher(number, last=last).decrypt_and_verify(view[:-TAG], view[-TAG:])
        except ValueError as error:
            raise _altered() from error
        return opened

    def _cipher(self, number: int, *, last: bool) -> Any:
        return AES.new(self.raw, AES.MODE_GCM, nonce=(number << 8 | last).to_bytes(_NONCE, "big"))


class MasterKeys:
    """Wraps the keys of new objects with the current master key, and opens those that an earlier one wrapped.

    Keys are base64 of 32 bytes. Raises `ValueError` for what is none. NIST SP 800-38D bounds what one key may wrap with
    random nonces: 2³² objects.
    """

    def __init__(self, current: str, previous: Sequence[str] = ()) -> None:
        keys = [_decoded(each) for each in (current, *previous)]
        self._keys = {_key_id(each): each for each in keys}
        self._current = _key_id(keys[0])

    def wrap(self, key: DataKey) -> str:
        """The object's label."""
        wrapped = seal(self._keys[self._current], key.raw, _context(self._current))
        return f"{_VERSION}.{self._current}.{base64.urlsafe_b64encode(wrapped).decode()}"

    def unwrap(self, label: str) -> DataKey:
        """Raises `DependencyUnavailable`: `wrong_storage_key`, or `object_altered` for what no key of ours has wrapped."""
        version, _, rest = label.partition(".")
        name, _, wrapped = rest.partition(".")
        if version != _VERSION:
            raise _altered()
        if name not in self._keys:
            raise wrong_storage_key(
                f"by the key {name[:16]!r}, which is neither STORAGE_KEY nor in STORAGE_PREVIOUS_KEYS"
            )
        try:
            return DataKey(unseal(self._keys[name], base64.urlsafe_b64decode(wrapped), _context(name)))
        except ValueError as error:
            raise _altered() from error

    def is_current(self, label: str) -> bool:
        """Whether the label says that the current key has wrapped it."""
        return label.startswith(f"{_VERSION}.{self._current}.")


def plain_size(total: int) -> int:
    """Bytes of content in a sealed object of that size."""
    return max(0, total - _count(total, SEALED) * TAG)


def span(start: int, length: int | None) -> tuple[int, int | None]:
    """Where in a sealed object the chunks lie that hold these bytes: the first byte, and the last one or the end."""
    last = None if length is None else ((start + length - 1) // CHUNK + 1) * SEALED - 1
    return start // CHUNK * SEALED, last


def seal(key: bytes, content: bytes, context: bytes) -> bytes:
    """Something small, sealed under a random nonce, for this context only."""
    nonce = secrets.token_bytes(_NONCE)
    cipher = AES.new(key, AES.MODE_GCM, nonce=nonce).update(context)
    sealed, tag = cipher.encrypt_and_digest(content)
    return nonce + sealed + tag


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Raises `ValueError` for what was not sealed with this key in this context."""
    if len(sealed) < _NONCE + TAG:
        raise ValueError("too short to be sealed")
    cipher = AES.new(key, AES.MODE_GCM, nonce=sealed[:_NONCE]).update(context)
    return cipher.decrypt_and_verify(sealed[_NONCE:-TAG], sealed[-TAG:])


def wrong_storage_key(how: str) -> DependencyUnavailable:
    return DependencyUnavailable(
        "wrong_storage_key", f"An object in storage is encrypted {how}. Give the key back to every process."
    )


def _altered() -> DependencyUnavailable:
    return DependencyUnavailable(
        "object_altered",
        "An object in storage is not what was stored: its bytes or its key were changed or cut off. Restore it from a backup.",
    )


def _count(size: int, step: int) -> int:
    return max(1, -(-size // step))


def _context(name: str) -> bytes:
    return f"slipway envelope {_VERSION} {name}".encode()


def _key_id(key: bytes) -> str:
    """A key's name, which tells nothing of it."""
    return hmac.digest(key, b"slipway storage key", hashlib.sha256).hex()[:16]


def _decoded(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY:
        raise ValueError(
            "STORAGE_KEY must be the base64 of 32 random bytes, as `openssl rand -base64 32` gives them; "
            "so must each of STORAGE_PREVIOUS_KEYS"
        )
    return key
