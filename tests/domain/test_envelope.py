"""What a sealed object looks like: every range opens, and nothing opens that was changed, moved, cut off or swapped."""

from __future__ import annotations

import base64
import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.envelope import CHUNK, SEALED, TAG, DataKey, MasterKeys, plain_size, span
from shared.errors import DependencyUnavailable

CONTENT = os.urandom(3 * CHUNK + 1)
SIZES = st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK, len(CONTENT)])


def master() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def opened(key: DataKey, sealed: bytes, start: int = 0, length: int | None = None) -> bytes:
    """As storage gives it: only the chunks that a range touches."""
    first, last = span(start, length)
    body = io.BytesIO(sealed[first : None if last is None else last + 1])
    pieces = list(key.read(body, total=len(sealed), start=start, length=length))
    assert body.read() == b""
    return b"".join(pieces)


@settings(max_examples=40)
@given(size=SIZES, data=st.data())
def test_whatever_is_sealed_opens_whole_and_in_every_range(size: int, data: st.DataObject) -> None:
    key, content = DataKey(), CONTENT[:size]
    sealed = bytes(key.seal(0, content, last=True))
    assert plain_size(len(sealed)) == size
    assert opened(key, sealed) == content
    start = data.draw(st.integers(0, max(0, size - 1)))
    length = data.draw(st.one_of(st.none(), st.integers(1, size + CHUNK)))
    assert opened(key, sealed, start, length) == content[start : None if length is None else start + length]


def test_parts_that_are_sealed_one_by_one_are_the_object() -> None:
    key = DataKey()
    parts = [
        key.seal(2, memoryview(CONTENT)[2 * CHUNK :], last=True),
        key.seal(0, bytearray(CONTENT[: 2 * CHUNK]), last=False),
    ]
    assert parts[1] + parts[0] == key.seal(0, CONTENT, last=True)
    with pytest.raises(ValueError, match="not whole chunks"):
        key.seal(0, CONTENT, last=False)


SEALED_CONTENT = bytes(DataKey(b"k" * 32).seal(0, CONTENT, last=True))
OTHER = bytes(DataKey(b"o" * 32).seal(0, CONTENT, last=True))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(SEALED_CONTENT[:-1], id="cut off by a byte"),
        pytest.param(SEALED_CONTENT[: 3 * SEALED], id="without its last chunk"),
        pytest.param(SEALED_CONTENT[: -(TAG + 1)], id="cut off at the end of a chunk"),
        pytest.param(SEALED_CONTENT[:TAG], id="only a tag"),
        pytest.param(b"", id="nothing"),
        pytest.param(SEALED_CONTENT[SEALED:], id="without its first chunk"),
        pytest.param(SEALED_CONTENT + SEALED_CONTENT[-(TAG + 1) :], id="longer"),
        pytest.param(
            SEALED_CONTENT[SEALED : 2 * SEALED] + SEALED_CONTENT[:SEALED] + SEALED_CONTENT[2 * SEALED :],
            id="two chunks in another order",
        ),
        pytest.param(OTHER[:SEALED] + SEALED_CONTENT[SEALED:], id="a chunk of another object"),
        pytest.param(OTHER, id="another object"),
        pytest.param(CONTENT, id="what was never sealed"),
    ],
)
def test_what_was_changed_does_not_open(changed: bytes) -> None:
    with pytest.raises(DependencyUnavailable) as caught:
        opened(DataKey(b"k" * 32), changed)
    assert caught.value.code == "object_altered"


@settings(max_examples=40)
@given(bit=st.integers(0, len(SEALED_CONTENT) * 8 - 1))
def test_no_bit_can_be_flipped_unnoticed(bit: int) -> None:
    changed = bytearray(SEALED_CONTENT)
    changed[bit // 8] ^= 1 << bit % 8
    number = bit // 8 // SEALED
    with pytest.raises(DependencyUnavailable, match="is not what was stored"):
        opened(DataKey(b"k" * 32), bytes(changed), number * CHUNK, 1)


def test_a_master_key_opens_what_it_wrapped_until_it_is_dropped() -> None:
    old, new = master(), master()
    key = DataKey()
    label = MasterKeys(old).wrap(key)
    rotated = MasterKeys(new, [old])
    assert rotated.unwrap(label).raw == key.raw
    assert not rotated.is_current(label)
    again = rotated.wrap(rotated.unwrap(label))
    assert MasterKeys(new).is_current(again)
    assert MasterKeys(new).unwrap(again).raw == key.raw
    assert MasterKeys(old).wrap(key) != label  # under another nonce every time
    with pytest.raises(DependencyUnavailable) as caught:
        MasterKeys(new).unwrap(label)
    assert caught.value.code == "wrong_storage_key"


@pytest.mark.parametrize(
    "change", [lambda label: "2" + label[1:], lambda label: label[:-8], lambda label: label[:20], str.lower]
)
def test_a_label_that_was_changed_opens_nothing(change) -> None:
    keys = MasterKeys(base64.b64encode(b"m" * 32).decode())
    with pytest.raises(DependencyUnavailable) as caught:
        keys.unwrap(change(keys.wrap(DataKey())))
    assert caught.value.code == "object_altered"


@pytest.mark.parametrize("text", ["", "short", base64.b64encode(bytes(31)).decode(), "ä" * 44, "0" * 64])
def test_what_is_no_master_key_is_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(ValueError, match="openssl rand -base64 32"):
        MasterKeys(master(), [text])
