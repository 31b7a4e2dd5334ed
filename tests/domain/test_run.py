"""The state machine by itself: every move it may make, and what no sequence of signals can ever do."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.errors import IllegalTransition, Stale
from pipeline.run import (
    BACKOFF_CAP,
    NO_WORKER,
    UNKNOWN,
    Broke,
    Cancel,
    Claimed,
    Cleanup,
    Passed,
    Publish,
    Refused,
    Resume,
    Retry,
    Ring,
    Run,
    Skip,
    Status,
    Step,
    StepStatus,
    advance,
    submit,
)

RUN = UUID(int=1)


def a_plan(*stages: str, max_attempts: int = 3, optional: Collection[str] = ()) -> tuple[Step, ...]:
    return tuple(
        Step(stage=s, queue="cpu", max_attempts=max_attempts, time_limit=60, optional=s in optional) for s in stages
    )


def begun(*stages: str, max_attempts: int = 3, optional: Collection[str] = ()) -> Run:
    run, _ = submit(RUN, a_plan(*stages, max_attempts=max_attempts, optional=optional))
    return run


def of(run: Run) -> dict[str, object]:
    return {"stage": run.step.stage, "attempt": run.attempt}


def test_a_new_run_rings_its_first_stage_as_version_zero() -> None:
    run, effects = submit(RUN, a_plan("scan", "promote"))
    assert (run.status, run.version, run.attempt) == (Status.QUEUED, 0, 1)
    assert effects == (Ring(stage="scan", queue="cpu", attempt=1),)
    assert [step.status for step in run.plan] == [StepStatus.QUEUED, StepStatus.PENDING]


def test_passing_a_step_rings_the_next_and_passing_the_last_publishes() -> None:
    run = begun("scan", "promote")
    run, _ = advance(run, Claimed(**of(run)))
    run, effects = advance(run, Passed(**of(run)))
    assert effects == (Ring(stage="promote", queue="cpu", attempt=1),)
    run, _ = advance(run, Claimed(**of(run)))
    run, effects = advance(run, Passed(**of(run)))
    assert run.status is Status.SUCCEEDED
    assert effects == (Publish(), Cleanup())
    assert {step.status for step in run.plan} == {StepStatus.PASSED}


def test_a_refusal_is_final_and_says_why() -> None:
    run = begun("scan", "validate")
    run, _ = advance(run, Claimed(**of(run)))
    run, effects = advance(run, Refused(**of(run), code="malicious", detail="os.system"))
    assert (run.status, run.code, run.detail) == (Status.REJECTED, "malicious", "os.system")
    assert effects == (Cleanup(),)
    assert [step.status for step in run.plan] == [StepStatus.REFUSED, StepStatus.SKIPPED]
    with pytest.raises(IllegalTransition):
        advance(run, Retry())


def test_a_broken_step_is_tried_again_later_and_later_until_its_attempts_are_used() -> None:
    run = begun("scan", max_attempts=4)
    delays = []
    for _ in range(3):
        run, _ = advance(run, Claimed(**of(run)))
        run, (ring,) = advance(run, Broke(**of(run), code="unavailable"))
        delays.append(ring.delay)
    assert delays == [1, 2, 4]
    run, _ = advance(run, Claimed(**of(run)))
    run, effects = advance(run, Broke(**of(run), code="unavailable"))
    assert (run.status, run.code, effects) == (Status.FAILED, "unavailable", ())


def test_a_worker_that_comes_back_from_the_dead_is_stale() -> None:
    run = begun("scan")
    run, _ = advance(run, Claimed(**of(run)))
    zombie = of(run)
    run, _ = advance(run, Broke(**zombie, code="worker_lost"))
    for signal in (Passed(**zombie), Refused(**zombie, code="x"), Broke(**zombie, code="x"), Claimed(**zombie)):
        with pytest.raises(Stale):
            advance(run, signal)


def test_the_second_copy_of_a_message_claims_nothing() -> None:
    run = begun("scan")
    run, _ = advance(run, Claimed(**of(run)))
    with pytest.raises(Stale):
        advance(run, Claimed(**of(run)))


def test_nothing_can_be_reported_to_an_attempt_that_nobody_claimed() -> None:
    run = begun("scan")
    with pytest.raises(Stale):
        advance(run, Passed(**of(run)))


@pytest.mark.parametrize("claimed", [False, True])
def test_cancelling_ends_a_run_whether_or_not_it_is_being_worked_on(claimed: bool) -> None:
    run = begun("scan", "validate")
    if claimed:
        run, _ = advance(run, Claimed(**of(run)))
    worker = of(run)
    run, _ = advance(run, Cancel())
    assert run.status is Status.CANCELLED
    assert {step.status for step in run.plan} == {StepStatus.SKIPPED}
    with pytest.raises(Stale):
        advance(run, Passed(**worker))
    with pytest.raises(IllegalTransition):
        advance(run, Cancel())


def test_a_retry_keeps_what_passed_and_never_reuses_an_attempt_number() -> None:
    run = begun("scan", "validate", "promote", max_attempts=1)
    run, _ = advance(run, Claimed(**of(run)))
    run, _ = advance(run, Passed(**of(run)))
    run, _ = advance(run, Claimed(**of(run)))
    zombie = of(run)
    run, _ = advance(run, Broke(**zombie, code="internal"))
    assert run.status is Status.FAILED
    run, (ring,) = advance(run, Retry())
    assert ring == Ring(stage="validate", queue="cpu", attempt=2)
    assert [step.status for step in run.plan] == [StepStatus.PASSED, StepStatus.QUEUED, StepStatus.PENDING]
    with pytest.raises(Stale):
        advance(run, Passed(**zombie))


def test_a_retry_may_go_back_but_not_ahead() -> None:
    run = begun("scan", "validate", "promote", max_attempts=1)
    run, _ = advance(run, Claimed(**of(run)))
    run, _ = advance(run, Passed(**of(run)))
    run, _ = advance(run, Cancel())
    again, (ring,) = advance(run, Retry(stage="scan"))
    assert ring == Ring(stage="scan", queue="cpu", attempt=2)
    assert again.position == 0
    for stage in ("promote", "nonsense"):
        with pytest.raises(IllegalTransition, match="scan, validate"):
            advance(run, Retry(stage=stage))


def test_a_resumed_run_looks_again_with_a_new_attempt_and_goes_on_behind_it() -> None:
    run = begun("scan", "validate", max_attempts=1)
    run, _ = advance(run, Claimed(**of(run)))
    zombie = of(run)
    run, _ = advance(run, Refused(**zombie, code=UNKNOWN, detail="os.path.join"))
    run, effects = advance(run, Resume())
    assert effects == (Ring(stage="scan", queue="cpu", attempt=2),)
    assert (run.status, run.code, run.detail) == (Status.QUEUED, None, None)
    assert [step.status for step in run.plan] == [StepStatus.QUEUED, StepStatus.PENDING]
    with pytest.raises(Stale):
        advance(run, Passed(**zombie))
    run, _ = advance(run, Claimed(**of(run)))
    run, effects = advance(run, Passed(**of(run)))
    assert effects == (Ring(stage="validate", queue="cpu", attempt=1),)


def test_only_a_refusal_of_the_unknown_can_be_resumed() -> None:
    run = begun("scan")
    with pytest.raises(IllegalTransition):
        advance(run, Resume())
    run, _ = advance(run, Claimed(**of(run)))
    refused, _ = advance(run, Refused(**of(run), code="malicious"))
    broken, _ = advance(run, Cancel())
    passed, _ = advance(run, Passed(**of(run)))
    for over in (refused, broken, passed):
        with pytest.raises(IllegalTransition):
            advance(over, Resume())


def test_a_run_goes_on_without_an_optional_step_that_nobody_takes() -> None:
    run = begun("convert", "tensorrt", "promote", optional=("tensorrt",))
    run, _ = advance(run, Claimed(**of(run)))
    run, _ = advance(run, Passed(**of(run)))
    waiting = of(run)
    run, effects = advance(run, Skip(**waiting, detail="no gpu worker came"))
    assert effects == (Ring(stage="promote", queue="cpu", attempt=1),)
    assert (run.status, run.code, run.detail) == (Status.QUEUED, NO_WORKER, "no gpu worker came")
    assert [step.status for step in run.plan] == [StepStatus.PASSED, StepStatus.SKIPPED, StepStatus.QUEUED]
    for late in (Claimed(**waiting), Passed(**waiting), Skip(**waiting)):
        with pytest.raises(Stale):
            advance(run, late)
    run, _ = advance(run, Claimed(**of(run)))
    run, effects = advance(run, Passed(**of(run)))
    assert (run.status, effects) == (Status.SUCCEEDED, (Publish(), Cleanup()))


def test_only_an_optional_step_that_is_queued_and_not_the_last_is_skipped() -> None:
    for run in (begun("scan", "promote"), begun("promote", optional=("promote",))):
        with pytest.raises(IllegalTransition):
            advance(run, Skip(**of(run)))
    run, _ = advance(claimed := begun("a", "b", optional=("a",)), Claimed(**of(claimed)))
    with pytest.raises(IllegalTransition):
        advance(run, Skip(**of(run)))
    over, _ = advance(run, Cancel())
    with pytest.raises(IllegalTransition):
        advance(over, Skip(**of(over)))


def test_an_optional_step_that_breaks_for_good_does_not_take_the_run_with_it() -> None:
    run = begun("tensorrt", "promote", max_attempts=2, optional=("tensorrt", "promote"))
    for _ in range(2):
        run, _ = advance(run, Claimed(**of(run)))
        run, (ring,) = advance(run, Broke(**of(run), code="device_memory"))
    assert ring == Ring(stage="promote", queue="cpu", attempt=1)
    assert [step.status for step in run.plan] == [StepStatus.BROKE, StepStatus.QUEUED]
    for _ in range(2):
        run, _ = advance(run, Claimed(**of(run)))
        run, _ = advance(run, Broke(**of(run), code="unavailable"))
    assert run.status is Status.FAILED, "the last step is never optional"


class AnyRun(RuleBasedStateMachine):
    """Any signals in any order, zombies included."""

    run: Run

    @initialize(
        length=st.integers(1, 4),
        attempts=st.integers(1, 3),
        optional=st.sets(st.sampled_from(["s0", "s1", "s2", "s3"])),
    )
    def begin(self, length: int, attempts: int, optional: set[str]) -> None:
        self.run = begun(*(f"s{i}" for i in range(length)), max_attempts=attempts, optional=optional)
        self.claims: set[tuple[str, int]] = set()
        self.published = 0
        self.rung: set[tuple[str, int]] = {("s0", 1)}

    def send(self, signal: object) -> None:
        before = self.run
        try:
            self.run, effects = advance(before, signal)  # type: ignore[arg-type]
        except (Stale, IllegalTransition):
            return
        assert self.run.version == before.version + 1, "every move counts one"
        if before.status is Status.REJECTED:
            assert isinstance(signal, Resume), "a refusal ends by a reviewer's word"
            assert before.code == UNKNOWN, "and only where the content was unknown"
        if isinstance(signal, Claimed):
            claim = (signal.stage, signal.attempt)
            assert claim not in self.claims, "an attempt is claimed once"
            self.claims.add(claim)
        for effect in effects:
            match effect:
                case Ring():
                    assert (effect.stage, effect.attempt) not in self.rung, "an attempt is queued once"
                    self.rung.add((effect.stage, effect.attempt))
                    assert 0 <= effect.delay <= BACKOFF_CAP
                case Publish():
                    self.published += 1

    stage = st.sampled_from(["s0", "s1", "s2", "s3"])
    attempt = st.integers(1, 6)

    @rule(stage=stage, attempt=attempt, kind=st.sampled_from([Claimed, Passed]))
    def somebody_reports(self, stage: str, attempt: int, kind: type) -> None:
        self.send(kind(stage=stage, attempt=attempt))

    @rule(stage=stage, attempt=attempt, kind=st.sampled_from([Refused, Broke]))
    def somebody_complains(self, stage: str, attempt: int, kind: type) -> None:
        self.send(kind(stage=stage, attempt=attempt, code="x"))

    @rule(code=st.sampled_from([UNKNOWN, "malicious"]))
    def the_owner_refuses(self, code: str) -> None:
        self.send(Refused(stage=self.run.step.stage, attempt=self.run.attempt, code=code))

    @rule()
    def resume(self) -> None:
        self.send(Resume())

    @rule(kind=st.sampled_from([Claimed, Passed]))
    def the_owner_goes_on(self, kind: type) -> None:
        self.send(kind(stage=self.run.step.stage, attempt=self.run.attempt))

    @rule()
    def the_owner_breaks(self) -> None:
        self.send(Broke(stage=self.run.step.stage, attempt=self.run.attempt, code="x"))

    @rule(stage=stage, attempt=attempt)
    def somebody_gives_up(self, stage: str, attempt: int) -> None:
        self.send(Skip(stage=stage, attempt=attempt))

    @rule()
    def the_sweeper_gives_up(self) -> None:
        before = self.run
        self.send(Skip(stage=before.step.stage, attempt=before.attempt))
        if self.run is not before:
            assert before.step.optional
            assert before.status is Status.QUEUED, "what somebody works on is not taken away"

    @rule()
    def cancel(self) -> None:
        self.send(Cancel())

    @precondition(lambda self: self.run.status.terminal)
    @rule(stage=st.one_of(st.none(), stage))
    def retry(self, stage: str | None) -> None:
        self.send(Retry(stage=stage))

    @invariant()
    def holds_together(self) -> None:
        if not hasattr(self, "run"):
            return
        run = self.run
        assert self.published == (run.status is Status.SUCCEEDED), "published exactly when succeeded"
        statuses = [step.status for step in run.plan]
        for step in run.plan[: run.position]:
            left_out = step.optional and step.status in (StepStatus.SKIPPED, StepStatus.BROKE)
            assert step.status is StepStatus.PASSED or left_out
        match run.status:
            case Status.QUEUED:
                assert statuses[run.position] is StepStatus.QUEUED
            case Status.RUNNING:
                assert statuses[run.position] is StepStatus.RUNNING
            case Status.SUCCEEDED:
                assert statuses[run.position] is StepStatus.PASSED
                assert run.position == len(run.plan) - 1
            case _:
                assert all(s is StepStatus.SKIPPED for s in statuses[run.position + 1 :])
        assert run.attempt <= run.step.final_attempt


AnyRun.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
test_any_run = AnyRun.TestCase


@given(st.lists(st.booleans(), max_size=12))
@settings(max_examples=50)
def test_a_run_that_is_worked_on_ends(outcomes: list[bool]) -> None:
    run = begun("a", "b", "c")
    answers = iter([*outcomes, *([True] * 20)])
    while not run.status.terminal:
        run, _ = advance(run, Claimed(**of(run)))
        run, _ = advance(run, Passed(**of(run)) if next(answers) else Broke(**of(run), code="x"))
    assert run.status in (Status.SUCCEEDED, Status.FAILED)
