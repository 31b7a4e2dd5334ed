"""What a waiver sets aside: one rule, one file, for a while, and nothing that is malicious."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from registry.waivers import Stop, Waiver, judge

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
FILES = ("a" * 64, "b" * 64)
RULES = ("pickle.global", "onnx.domain")


def waiver(number: int = 1, *, sha256: str = FILES[0], rule: str = RULES[0], days: int = 1) -> Waiver:
    return Waiver(
        id=UUID(int=number),
        sha256=sha256,
        rule=rule,
        reason="looked at",
        granted_by="grace",
        granted_at=NOON,
        expires_at=NOON + timedelta(days=days),
        revoked_at=None,
    )


stops = st.builds(
    Stop, sha256=st.sampled_from(FILES), rule=st.sampled_from(RULES), severity=st.sampled_from(["unknown", "malicious"])
)
waivers = st.builds(
    waiver,
    st.integers(1, 9),
    sha256=st.sampled_from(FILES),
    rule=st.sampled_from(RULES),
    days=st.integers(1, 5),
)


@given(st.lists(stops), st.lists(waivers))
def test_every_stop_is_either_waived_by_its_own_waiver_or_remains(found: list[Stop], granted: list[Waiver]) -> None:
    judgement = judge(found, granted)
    covered = {(one.sha256, one.rule) for one in granted}
    for stop in found:
        passes = stop.severity == "unknown" and (stop.sha256, stop.rule) in covered
        assert (stop in judgement.remaining) is not passes
    assert (judgement.verdict == "clean") is (judgement.remaining == ())
    assert (judgement.verdict == "malicious") is any(stop.severity == "malicious" for stop in found)
    assert set(judgement.leaning_on) <= set(granted)


def test_of_two_waivers_the_longer_one_is_leant_on_and_the_first_end_counts() -> None:
    found = [Stop(sha256=FILES[0], rule=rule, severity="unknown") for rule in RULES]
    longer = waiver(2, days=9)
    other = waiver(3, rule=RULES[1], days=4)
    judgement = judge(found, [longer, waiver(1), other])
    assert (judgement.verdict, judgement.leaning_on) == ("clean", (longer, other))
    assert judgement.until == other.expires_at
    assert judge(found[:0], [longer]).until is None


def test_a_waiver_counts_until_its_end_or_until_it_is_revoked() -> None:
    granted = waiver()
    assert granted.counts(NOON)
    assert not granted.counts(granted.expires_at)
    revoked = Waiver(**{**vars(granted), "revoked_at": NOON})
    assert not revoked.counts(NOON)
