"""What was signed is recognised, by those who know the key, and nothing else is."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from shared.signing import Signer, key_id, verify

SECRET = "0123456789abcdef" * 2


def test_a_signature_holds_for_its_message_and_its_key_only() -> None:
    signer, stranger = Signer(SECRET), Signer(SECRET[::-1])
    signed = signer.sign(b"digits 1.0.0")
    assert verify(b"digits 1.0.0", signed, [stranger.public_key, signer.public_key])
    assert not verify(b"digits 1.0.1", signed, [signer.public_key])
    assert not verify(b"digits 1.0.0", signed, [stranger.public_key])
    assert not verify(b"digits 1.0.0", replace(signed, key_id=stranger.key_id), [stranger.public_key])
    assert not verify(b"digits 1.0.0", replace(signed, value="no base64!"), [signer.public_key])
    assert not verify(b"digits 1.0.0", replace(signed, algorithm="none"), [signer.public_key])


def test_the_same_secret_is_the_same_key_on_every_machine() -> None:
    assert Signer(SECRET).public_key == Signer(SECRET).public_key
    assert Signer(SECRET).sign(b"x") == Signer(SECRET).sign(b"x")
    assert key_id(Signer(SECRET).public_key) == Signer(SECRET).key_id


def test_a_secret_that_can_be_guessed_and_a_key_that_is_none_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Signer("short")
    for none in ("", "not base64", base64.b64encode(b"short").decode()):
        with pytest.raises(ValueError, match="32 bytes"):
            key_id(none)
