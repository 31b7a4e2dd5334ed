"""The state machine walked to its end: every signal in every state that small plans can reach."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from uuid import UUID

import pytest

from pipeline.errors import IllegalTransition, Stale
from pipeline.run import (
    UNKNOWN,
    AttemptSignal,
    Broke,
    Cancel,
    Claimed,
    Cleanup,
    Effect,
    Passed,
    Publish,
    Refused,
    Resume,
    Retry,
    Ring,
    Run,
    Signal,
    Skip,
    Status,
    Step,
    StepStatus,
    advance,
    submit,
)

MOST = 3
"""Attempts beyond which a state is not followed: retries may go on for ever, and bring nothing new."""

Edge = tuple[Signal, Run, Sequence[Effect]]

PLANS = [
    [(attempts, optional) for attempts, optional in zip(tries, optionals, strict=True)]
    for length in (1, 2)
    for tries in product((1, 2), repeat=length)
    for optionals in product((False, True), repeat=length)
]


def walked(plan: Sequence[tuple[int, bool]]) -> dict[Run, list[Edge]]:
    """Every state that can be reached, without its count of moves, and where each signal leads from there."""
    steps = tuple(
        Step(stage=f"s{place}", queue=f"q{place}", max_attempts=attempts, time_limit=60, optional=optional)
        for place, (attempts, optional) in enumerate(plan)
    )
    first, _ = submit(UUID(int=1), steps)
    graph: dict[Run, list[Edge]] = {}
    ahead = [first]
    while ahead:
        run = ahead.pop()
        if run in graph:
            continue
        graph[run] = []
        for signal in signals(run):
            try:
                after, effects = advance(run, signal)
            except (Stale, IllegalTransition):
                continue
            assert after.version == run.version + 1
            after = replace(after, version=0)
            graph[run].append((signal, after, effects))
            if all(step.attempt <= MOST for step in after.plan):
                ahead.append(after)
    return graph


def signals(run: Run) -> Iterator[Signal]:
    for step, back in product(run.plan, (0, 1)):
        about = {"stage": step.stage, "attempt": step.attempt - back}
        yield Claimed(**about)
        yield Passed(**about)
        yield Refused(**about, code=UNKNOWN)
        yield Refused(**about, code="malicious")
        yield Broke(**about, code="x")
        yield Skip(**about)
    yield Cancel()
    yield Resume()
    yield Retry()
    yield from (Retry(stage=step.stage) for step in run.plan)


@pytest.fixture(scope="module")
def graphs() -> list[dict[Run, list[Edge]]]:
    return [walked(plan) for plan in PLANS]


def edges(graphs: list[dict[Run, list[Edge]]]) -> Iterator[tuple[Run, Signal, Run, Sequence[Effect]]]:
    for graph in graphs:
        for run, found in graph.items():
            for signal, after, effects in found:
                yield run, signal, after, effects


def test_every_status_is_reached_and_none_is_a_trap(graphs: list[dict[Run, list[Edge]]]) -> None:
    assert {run.status for graph in graphs for run in graph} == set(Status)
    for graph in graphs:
        sources = defaultdict(set)
        for run, found in graph.items():
            for _, after, _ in found:
                sources[after].add(run)
        ends = [run for run in graph if run.status.terminal]
        saved = set(ends)
        while ends:
            for source in sources[ends.pop()] - saved:
                saved.add(source)
                ends.append(source)
        assert graph.keys() <= saved, "from everywhere a run can end"


def test_a_state_rings_exactly_when_it_queues_and_for_what_it_queues(graphs: list[dict[Run, list[Edge]]]) -> None:
    for before, _, after, effects in edges(graphs):
        rings = [effect for effect in effects if isinstance(effect, Ring)]
        if after.status is not Status.QUEUED:
            assert not rings
            continue
        [ring] = rings
        assert (ring.stage, ring.queue, ring.attempt) == (after.step.stage, after.step.queue, after.attempt)
        assert after.attempt == before.plan[after.position].attempt + 1, "an attempt's number is new"


def test_what_is_over_is_taken_up_by_those_who_may_and_by_nothing_else(graphs: list[dict[Run, list[Edge]]]) -> None:
    for before, signal, _, _ in edges(graphs):
        match before.status:
            case Status.SUCCEEDED:
                pytest.fail(f"{signal} moved a run that had succeeded")
            case Status.REJECTED:
                assert isinstance(signal, Resume)
                assert before.code == UNKNOWN
            case Status.FAILED | Status.CANCELLED:
                assert isinstance(signal, Retry)


def test_only_the_attempt_that_is_current_is_heard(graphs: list[dict[Run, list[Edge]]]) -> None:
    for before, signal, _, _ in edges(graphs):
        if isinstance(signal, AttemptSignal):
            assert (signal.stage, signal.attempt) == (before.step.stage, before.attempt)
            assert (before.status is Status.QUEUED) == isinstance(signal, Claimed | Skip)


def test_publishing_and_cleaning_up_belong_to_the_ends_that_need_them(graphs: list[dict[Run, list[Edge]]]) -> None:
    for _, _, after, effects in edges(graphs):
        kinds = {type(effect) for effect in effects} - {Ring}
        match after.status:
            case Status.SUCCEEDED:
                assert kinds == {Publish, Cleanup}
            case Status.REJECTED:
                assert kinds == {Cleanup}
            case _:
                assert not kinds, "failed and cancelled runs keep their bytes for a retry"


def test_no_number_of_attempts_goes_back_and_nothing_is_promised_twice(graphs: list[dict[Run, list[Edge]]]) -> None:
    for before, signal, after, _ in edges(graphs):
        assert all(new.attempt >= old.attempt for old, new in zip(before.plan, after.plan, strict=True))
        assert after.attempt <= after.step.final_attempt
        for place, (old, new) in enumerate(zip(before.plan, after.plan, strict=True)):
            if old.status is StepStatus.PASSED and place < after.position:
                assert new.status is StepStatus.PASSED, f"{signal} took back what had passed"
