"""Where a rollback leads: back, never to what was itself rolled back from, never to what is not good any more."""

from __future__ import annotations

from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from registry.rollbacks import Past, previous

A, B, C = (UUID(int=number) for number in (1, 2, 3))


def past(version: UUID, status: str, *, good: bool = True) -> Past:
    return Past(id=uuid4(), version_id=version, status=status, good=good)


def chosen(*history: Past) -> UUID | None:
    """The version, of a history that is told oldest first."""
    found = previous(tuple(reversed(history)))
    return None if found is None else found.version_id


def test_it_leads_to_the_version_that_was_live_before() -> None:
    assert chosen(past(A, "superseded"), past(B, "superseded"), past(C, "live")) == B
    assert chosen(past(A, "live")) is None
    assert chosen() is None


def test_twice_rolled_back_is_twice_as_far_back() -> None:
    once = (past(A, "superseded"), past(B, "superseded"), past(C, "rolled_back"), past(B, "live"))
    assert chosen(*once) == A
    twice = (*once[:-1], past(B, "rolled_back"), past(A, "live"))
    assert chosen(*twice) is None


def test_what_is_not_clean_any_more_and_what_was_taken_down_is_passed_over() -> None:
    assert chosen(past(A, "superseded"), past(B, "superseded", good=False), past(C, "live")) == A
    assert chosen(past(A, "superseded"), past(B, "ended"), past(C, "live")) == A


def test_what_was_condemned_while_live_can_be_rolled_back_too() -> None:
    assert chosen(past(A, "superseded"), past(B, "ended", good=False)) == A


def test_the_same_version_with_another_config_is_no_way_back() -> None:
    assert chosen(past(A, "superseded"), past(B, "superseded"), past(B, "live")) == A


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B, C]), st.sampled_from(["superseded", "rolled_back", "ended"]), st.booleans()),
        max_size=8,
    )
)
def test_rolling_back_again_and_again_comes_to_an_end_and_only_meets_what_is_good(
    told: list[tuple[UUID, str, bool]],
) -> None:
    history = [past(version, status, good=good) for version, status, good in told]
    steps = 0
    while (found := previous(history)) is not None:
        assert found.good
        assert found.version_id != history[0].version_id
        history[0] = Past(id=history[0].id, version_id=history[0].version_id, status="rolled_back", good=True)
        history.insert(0, past(found.version_id, "live"))
        steps += 1
        assert steps <= 3
