"""The state machine of a run: what a signal does to it, and what must follow.

Pure: no clock, no session, no log. `advance` is the whole of it; whatever it does not name is illegal.

                 Claimed                Passed (last step)
      QUEUED ──────────────▶ RUNNING ─────────────────────▶ SUCCEEDED
       ▲ ▲ ▲                  │ │ │       Refused
       │ │ └──────────────────┘ │ └────────────────────────▶ REJECTED ─┐
       │ │   Passed, Broke      │                                      │
       │ └──────────────────── Resume (refused as unknown) ────────────┘
       │                        │ Broke (no attempt left; an optional step is left out instead, as by Skip)
       │                        └──────────────────────────▶ FAILED ───┐
       │                         Cancel (queued or running) ▶ CANCELLED ┤
       └───────────────────────────── Retry ───────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any
from uuid import UUID

from pipeline.errors import IllegalTransition, Stale


class Status(StrEnum):
    """Where a run is. `rejected` is the model's fault; `failed` is ours or the infrastructure's."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self not in (Status.QUEUED, Status.RUNNING)


class Purpose(StrEnum):
    """What a run is for: to let a version in, to look at it again, to add variants to it, to make its artifacts again.

    Only an intake and an added variant publish.
    """

    INTAKE = "intake"
    RESCAN = "rescan"
    VARIANT = "variant"
    REBUILD = "rebuild"

    @property
    def scans(self) -> bool:
        """Whether such a run judges the uploaded files, as those do that reviewers deal with."""
        return self in (Purpose.INTAKE, Purpose.RESCAN)

    @property
    def publishes(self) -> bool:
        return self in (Purpose.INTAKE, Purpose.VARIANT)


class StepStatus(StrEnum):
    """Where a step is."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    REFUSED = "refused"
    BROKE = "broke"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stage in a plan, frozen at submit.

    `attempt` numbers the tries and never goes back, not even on a retry: it is the fencing token. A break at
    `final_attempt` fails the run; a retry grants `max_attempts` more. `time_limit` is in seconds of running time. A run
    goes on without an `optional` step that nobody can carry out; the last of a plan never is.
    """

    stage: str
    queue: str
    max_attempts: int
    time_limit: int
    status: StepStatus = StepStatus.PENDING
    attempt: int = 0
    final_attempt: int = 0
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """One plan carried out for one model version. `version` counts every move and numbers the events."""

    id: UUID
    plan: tuple[Step, ...]
    status: Status = Status.QUEUED
    position: int = 0
    version: int = 0
    code: str | None = None
    detail: str | None = None

    @property
    def step(self) -> Step:
        return self.plan[self.position]

    @property
    def attempt(self) -> int:
        return self.step.attempt

    @property
    def may_skip(self) -> bool:
        """Whether the run can go on without its current step."""
        return self.step.optional and self.position + 1 < len(self.plan)

    def _to(
        self,
        status: Status,
        step: StepStatus,
        rest: StepStatus | None = None,
        code: str | None = None,
        detail: str | None = None,
    ) -> Run:
        """The next state: the current step becomes `step`, the steps behind it `rest` (None leaves them)."""
        plan = list(self.plan)
        plan[self.position] = replace(self.step, status=step)
        if rest is not None:
            plan[self.position + 1 :] = [replace(later, status=rest) for later in plan[self.position + 1 :]]
        return replace(self, plan=tuple(plan), status=status, version=self.version + 1, code=code, detail=detail)


@dataclass(frozen=True, kw_only=True)
class AttemptSignal:
    """What a worker says of the one attempt that it owns."""

    stage: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class Claimed(AttemptSignal):
    """A worker begins the attempt; its lease ends `lease` seconds from now unless a heartbeat renews it."""

    worker: str = ""
    lease: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Passed(AttemptSignal):
    """The stage is done. `report` is {"facts": …, "files": […]}, ready for storing."""

    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Refused(AttemptSignal):
    """The stage says no to the model. Final, unless it is `UNKNOWN` that people may look into."""

    code: str
    detail: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Broke(AttemptSignal):
    """The attempt came to nothing, and not by the model's fault."""

    code: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Skip(AttemptSignal):
    """Nobody has come to claim the attempt for as long as the policy waits: go on without it."""

    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """Somebody no longer wants the run."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Go on with a run that failed or was cancelled, from `stage` or from where it stopped. Passed steps stay passed."""

    stage: str | None = None


@dataclass(frozen=True, kw_only=True)
class Resume:
    """A reviewer has waived what the run was refused for as unknown: the step that refused looks again."""


Signal = Claimed | Passed | Refused | Broke | Skip | Cancel | Retry | Resume

NO_WORKER = "no_worker"
"""The code of a step that was left out because nobody served its queue."""
UNKNOWN = "unknown_content"
"""The code of a refusal that a reviewer may waive."""


@dataclass(frozen=True, kw_only=True)
class Ring:
    """Tell a queue that an attempt waits, not before `delay` seconds from now."""

    stage: str
    queue: str
    attempt: int
    delay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Make the version visible with what its last step published."""


@dataclass(frozen=True, kw_only=True)
class Cleanup:
    """Remove what the run left in staging; keep the original in quarantine storage."""


Effect = Ring | Publish | Cleanup

BACKOFF_CAP = 60.0
"""Seconds: the longest pause before a step is tried again."""


def submit(run_id: UUID, plan: tuple[Step, ...]) -> tuple[Run, tuple[Effect, ...]]:
    """A new run with its first step queued, as version 0."""
    if not plan:
        raise ValueError("a plan needs at least one step")
    run, effects = _queue(Run(id=run_id, plan=plan), position=0)
    return replace(run, version=0), effects


def advance(run: Run, signal: Signal) -> tuple[Run, tuple[Effect, ...]]:
    """What `signal` makes of `run`, and the effects that belong to the same transaction.

    Raises `Stale` when the signal speaks for an attempt that is over, `IllegalTransition` when it means nothing here.
    """
    match run.status, signal:
        case _, AttemptSignal() if (signal.stage, signal.attempt) != (run.step.stage, run.attempt):
            raise Stale("stale_attempt", f"{signal.stage} attempt {signal.attempt} is over")
        case Status.QUEUED, Claimed():
            return run._to(Status.RUNNING, StepStatus.RUNNING), ()
        case Status.RUNNING, Passed() if run.position + 1 < len(run.plan):
            return _queue(run._to(Status.QUEUED, StepStatus.PASSED), position=run.position + 1)
        case Status.RUNNING, Passed():
            return run._to(Status.SUCCEEDED, StepStatus.PASSED), (Publish(), Cleanup())
        case Status.RUNNING, Refused(code=code, detail=detail):
            return run._to(Status.REJECTED, StepStatus.REFUSED, StepStatus.SKIPPED, code, detail), (Cleanup(),)
        case Status.RUNNING, Broke(code=code, detail=detail) if run.attempt < run.step.final_attempt:
            broken = run._to(Status.QUEUED, StepStatus.BROKE, code=code, detail=detail)
            return _queue(broken, position=run.position, delay=backoff(run))
        case Status.RUNNING, Broke(code=code, detail=detail) if run.may_skip:
            broken = run._to(Status.QUEUED, StepStatus.BROKE, code=code, detail=detail)
            return _queue(broken, position=run.position + 1)
        case Status.RUNNING, Broke(code=code, detail=detail):
            return run._to(Status.FAILED, StepStatus.BROKE, StepStatus.SKIPPED, code, detail), ()
        case Status.QUEUED, Skip(detail=detail) if run.may_skip:
            skipped = run._to(Status.QUEUED, StepStatus.SKIPPED, code=NO_WORKER, detail=detail)
            return _queue(skipped, position=run.position + 1)
        case Status.QUEUED | Status.RUNNING, Cancel():
            return run._to(Status.CANCELLED, StepStatus.SKIPPED, StepStatus.SKIPPED, "cancelled"), ()
        case Status.FAILED | Status.CANCELLED, Retry(stage=stage):
            return _again(run, position=_retry_position(run, stage))
        case Status.REJECTED, Resume() if run.code == UNKNOWN:
            return _again(run, position=run.position)
        case (Status.RUNNING, Claimed()) | (_, Passed() | Refused() | Broke() | Claimed()):
            raise Stale(
                "stale_attempt", f"{signal.stage} attempt {signal.attempt} cannot report: the run is {run.status}"
            )
        case status, _:
            raise IllegalTransition("illegal_transition", f"a {status} run cannot take {type(signal).__name__}")


def backoff(run: Run) -> float:
    """Seconds before the next attempt: 1, 2, 4, … up to `BACKOFF_CAP`, counted from the first try granted."""
    tries = run.step.max_attempts - (run.step.final_attempt - run.attempt)
    return min(BACKOFF_CAP, 2.0 ** (tries - 1))


def _queue(run: Run, *, position: int, delay: float = 0.0) -> tuple[Run, tuple[Effect, ...]]:
    """Put the step at `position` in its queue with the next attempt number."""
    step = run.plan[position]
    attempt = step.attempt + 1
    final = step.final_attempt or step.attempt + step.max_attempts
    step = replace(step, status=StepStatus.QUEUED, attempt=attempt, final_attempt=final)
    plan = (*run.plan[:position], step, *run.plan[position + 1 :])
    ring = Ring(stage=step.stage, queue=step.queue, attempt=attempt, delay=delay)
    return replace(run, plan=plan, position=position), (ring,)


def _again(run: Run, *, position: int) -> tuple[Run, tuple[Effect, ...]]:
    """Take up a run that was over at the step at `position`, with a whole set of attempts for it and all behind it."""
    again = run._to(Status.QUEUED, run.step.status)
    reset = tuple(replace(step, status=StepStatus.PENDING, final_attempt=0) for step in again.plan[position:])
    return _queue(replace(again, plan=again.plan[:position] + reset), position=position)


def _retry_position(run: Run, stage: str | None) -> int:
    if stage is None:
        return run.position
    position = next((i for i, step in enumerate(run.plan) if step.stage == stage), None)
    if position is None or position > run.position:
        reachable = ", ".join(step.stage for step in run.plan[: run.position + 1])
        raise IllegalTransition("illegal_transition", f"this run can be retried from {reachable}, not from {stage}")
    return position
