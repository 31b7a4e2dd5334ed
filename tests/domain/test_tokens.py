"""Which tokens are ours: signed with our key and algorithm, for us, by us, and not over."""

from __future__ import annotations

import time

import jwt
import pytest

from shared.tokens import ALGORITHM, LONGEST, TokenRefused, Tokens, is_key, new_key

SECRET = "s" * 32
TOKENS = Tokens(SECRET, lifetime=60)
NOW = int(time.time())
CLAIMS = {
    "iss": "slipway",
    "aud": "slipway",
    "sub": "ada",
    "iat": NOW,
    "exp": NOW + 86_400,
}  # collected long before it runs


def signed(changes: dict[str, object], *without: str, algorithm: str = ALGORITHM, key: str = SECRET) -> str:
    claims = {name: value for name, value in (CLAIMS | changes).items() if name not in without}
    return jwt.encode(claims, key, algorithm=algorithm)


def test_a_token_of_ours_says_who_it_speaks_for() -> None:
    assert TOKENS.subject(TOKENS.issue("ada")) == "ada"
    assert TOKENS.subject(signed({})) == "ada"
    assert len(TOKENS.issue("0d9d7e3c-6a0f-4b61-8d43-6a1cf1e0f7a2")) < 400


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_token_without_a_claim_is_refused(claim: str) -> None:
    with pytest.raises(TokenRefused):
        TOKENS.subject(signed({}, claim))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 1},
        {"exp": "soon"},
        {"iat": NOW + 3600},
        {"iat": "then"},
        {"nbf": NOW + 3600},
        {"iss": "somebody"},
        {"aud": "somebody"},
        {"aud": ["slipway", "somebody"]},
        {"sub": 7},
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(TokenRefused):
        TOKENS.subject(signed(changes) if "sub" not in changes else unchecked(changes))


def unchecked(changes: dict[str, object]) -> str:
    """PyJWT does not sign a subject that is no text; somebody else's library does."""
    import json

    return jwt.PyJWS().encode(json.dumps(CLAIMS | changes).encode(), SECRET, algorithm=ALGORITHM)


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_only_one_algorithm_and_one_key_are_ours() -> None:
    for token in (
        signed({}, algorithm="HS512"),
        signed({}, algorithm="none", key=""),
        signed({}, key="x" * 32),
        signed({})[:-2] + "AA",
        "",
        "a.b.c",
        "é.é.é",
    ):
        with pytest.raises(TokenRefused):
            TOKENS.subject(token)


def test_a_token_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(TokenRefused, match="longer"):
        TOKENS.subject(signed({"more": "x" * LONGEST}))


def test_a_key_is_known_by_its_mark_and_not_longer_than_any() -> None:
    assert is_key(new_key().text)
    assert not is_key("slw_" + "x" * LONGEST)
    assert not is_key("eyJ")


def test_a_secret_shorter_than_the_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens("x" * 31, lifetime=60)
