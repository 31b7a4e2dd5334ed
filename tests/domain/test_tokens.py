"""Which tokens are ours: signed with our key and algorithm, for us, by us, and not over."""

from __future__ import annotations

import time
from uuid import uuid4

import jwt
import pytest

from shared.tokens import ALGORITHM, LONGEST, Receipts, TokenRefused, Tokens, is_key, new_key

SECRET = "s" * 32
TOKENS = Tokens(SECRET, lifetime=60)
KID = jwt.get_unverified_header(TOKENS.issue("anybody"))["kid"]
NOW = int(time.time())
CLAIMS = {
    "iss": "slipway",
    "aud": "slipway",
    "sub": "ada",
    "jti": "1",
    "iat": NOW,
    "exp": NOW + 86_400,
}  # collected long before it runs


def signed(changes: dict[str, object], *without: str, algorithm: str = ALGORITHM, key: str = SECRET) -> str:
    claims = {name: value for name, value in (CLAIMS | changes).items() if name not in without}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": KID})


def test_a_token_of_ours_says_who_it_speaks_for() -> None:
    assert TOKENS.read(TOKENS.issue("ada")).subject == "ada"
    assert TOKENS.read(signed({})).subject == "ada"
    assert len(TOKENS.issue("0d9d7e3c-6a0f-4b61-8d43-6a1cf1e0f7a2")) < 400


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_token_without_a_claim_is_refused(claim: str) -> None:
    with pytest.raises(TokenRefused):
        TOKENS.read(signed({}, claim))


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
        TOKENS.read(signed(changes) if "sub" not in changes else unchecked(changes))


def unchecked(changes: dict[str, object]) -> str:
    """PyJWT does not sign a subject that is no text; somebody else's library does."""
    import json

    return jwt.PyJWS().encode(json.dumps(CLAIMS | changes).encode(), SECRET, algorithm=ALGORITHM, headers={"kid": KID})


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
            TOKENS.read(token)


def test_a_token_of_a_secret_from_before_is_read_until_the_secret_is_dropped() -> None:
    old = Tokens("o" * 32, lifetime=60)
    before = old.issue("ada")
    rotated = Tokens(SECRET, lifetime=60, previous=["o" * 32])
    assert rotated.read(before).subject == rotated.read(TOKENS.issue("ada")).subject == "ada"
    with pytest.raises(TokenRefused):
        old.read(rotated.issue("ada"))  # what is signed now is signed with the new one
    with pytest.raises(TokenRefused, match="secrets"):
        TOKENS.read(before)
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens(SECRET, lifetime=60, previous=["short"])


def test_two_tokens_are_told_apart_and_say_when_they_were_made_to_the_fraction_of_a_second() -> None:
    first, second = (TOKENS.read(TOKENS.issue("ada")) for _ in range(2))
    assert first.id != second.id
    assert first.issued_at < second.issued_at
    assert 59 <= (first.expires_at - first.issued_at).total_seconds() <= 60


def test_a_token_without_the_name_of_a_secret_is_refused() -> None:
    with pytest.raises(TokenRefused, match="secrets"):
        TOKENS.read(jwt.encode(CLAIMS, SECRET, algorithm=ALGORITHM))


def test_a_token_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(TokenRefused, match="longer"):
        TOKENS.read(signed({"more": "x" * LONGEST}))


def test_a_key_is_known_by_its_mark_and_not_longer_than_any() -> None:
    assert is_key(new_key().text)
    assert not is_key("slw_" + "x" * LONGEST)
    assert not is_key("eyJ")


def test_a_secret_shorter_than_the_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens("x" * 31, lifetime=60)


def test_a_receipt_says_which_side_of_a_rollout_answered_and_keeps_the_label_to_itself() -> None:
    receipts, version, rollout = Receipts(SECRET), uuid4(), uuid4()
    text = receipts.issue(version, rollout_id=rollout, arm="candidate", label="seven")
    read = receipts.read(text)
    assert (read.version_id, read.rollout_id, read.arm) == (version, rollout, "candidate")
    assert (receipts.agrees(text, "seven"), receipts.agrees(text, "nine")) == (True, False)
    plain = receipts.issue(version)
    assert (receipts.read(plain).rollout_id, receipts.read(plain).arm) == (None, None)
    assert receipts.agrees(plain, "seven") is None
    again = receipts.read(receipts.issue(version, rollout_id=rollout, arm="candidate", label="seven"))
    assert (again.id == read.id, again.label == read.label) == (False, False)

    later = Receipts("n" * 32, previous=[SECRET])
    assert later.agrees(text, "seven") is True
    changed = text[:10] + ("A" if text[10] != "A" else "B") + text[11:]
    for wrong in (changed, text[:-1], "", "é", "A" * (LONGEST + 1)):
        with pytest.raises(TokenRefused):
            receipts.read(wrong)
    with pytest.raises(TokenRefused):
        Receipts("o" * 32).read(text)
