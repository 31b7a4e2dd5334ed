"""Measures forms of one model beside each other. Runs in the worker: sends the children calls, reads times, opens nothing.

All forms stay open, each in a child of its own, and take turns in random order, because two runs one after the other
on a shared machine differ by far more than two models do. The source runs twice, as `SOURCE` and as `CONTROL`: what
differs between these two is the machine's doing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import benchmarking, speeds
from pipeline.benchmarking import Opened, Turn, Warm
from pipeline.errors import Rejected
from pipeline.examination import folder
from pipeline.signature import Tensor
from pipeline.speeds import Interval
from pipeline.stage import Child, Json, Limits, Sandbox

SOURCE, CONTROL = "source", "control"
SAMPLES = 24
"""Most timed samples of a form per round; the fastest stands for it. A third as many before them are thrown away.

Many short ones: beside busy neighbours the fastest of 24 of a quarter of a millisecond varies a sixth as much as the
fastest of three of two milliseconds.
"""

TURN = 0.1
"""Seconds: slow forms have fewer samples, down to one, so that a turn does not take longer: more rounds are worth more."""

_SEED = 7
_CHILD_CPU = 600


@dataclass(frozen=True, kw_only=True)
class Form:
    """One thing to measure. `way` is how its runtime is to open it (`runtime`, `session`), where it has a say in that."""

    name: str
    role: str
    form: str
    path: Path
    way: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A form that stands open in its child; `baseline` is the child's memory before it opened anything, bytes."""

    form: Form
    child: Child
    opened: Opened
    baseline: int


class Deadline:
    """The time left for all measuring. A call that is still under way when it ends is given up, and its child with it."""

    def __init__(self, seconds: float) -> None:
        self._limit, self._end = seconds, time.monotonic() + seconds
        self.over = False

    @property
    def left(self) -> float:
        return 0.0 if self.over else max(0.0, self._end - time.monotonic())

    def call(self, child: Child, function: str, **arguments: Json) -> Json:
        """Call a function of `benchmarking` in the child. Raises `Rejected("benchmark_timeout")`."""
        if self.left <= 0:
            self.over = True
            raise self.refusal()
        try:
            return child.call(f"{benchmarking.__name__}:{function}", wall=self.left, **arguments)
        except Rejected as refusal:
            if refusal.code == "time_limit":
                self.over = True
                raise self.refusal() from refusal
            raise

    def refusal(self) -> Rejected:
        return Rejected(
            "benchmark_timeout",
            f"Nothing could be measured within {self._limit:g} s: the model is too slow for this worker or the limit "
            "(BENCHMARK_TIMEOUT) is too low.",
            limit=self._limit,
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How many times as fast as another form, by which clock (`cpu` or `wall`), and what that says."""

    ratio: Interval
    clock: str
    verdict: str

    def facts(self) -> dict[str, Json]:
        facts = self.ratio.facts()
        return {
            "speedup": facts["value"],
            "speedup_ci": facts["ci"],
            "speedup_clock": self.clock,
            "verdict": self.verdict,
        }


@dataclass(kw_only=True)
class Heat:
    """Turns of all forms at one batch size, in whole rounds. `stopped` says why there were no more: `clear`, `rounds`, `time`."""

    batch: int
    threads: int
    looks: int
    samples: int
    discarded: int
    repeats: Mapping[str, int]
    turns: dict[str, list[Turn]]
    stopped: str = "rounds"

    @property
    def rounds(self) -> int:
        return len(next(iter(self.turns.values())))

    def compare(self, reference: str, other: str) -> Comparison:
        clock = self.clock(reference, other)
        ratio = self._ratio(reference, other, clock)
        return Comparison(ratio=ratio, clock=clock, verdict=speeds.verdict(ratio, self.control(clock)))

    def control(self, clock: str) -> Interval:
        """The source against itself."""
        return self._ratio(SOURCE, CONTROL, clock)

    def clock(self, *names: str) -> str:
        """CPU time where it stands for the time taken, because it does not mind who else uses the processor; else wall time."""
        alone = self.threads == 1 and all(benchmarking.computes(self.turns[one]) for one in (*names, CONTROL))
        return "cpu" if alone else "wall"

    def times(self, name: str) -> list[list[float]]:
        """Milliseconds of all iterations, round by round."""
        return [[taken / 1e6 for sample in turn.samples for taken in sample] for turn in self.turns[name]]

    def evidence(self) -> Json:
        """Every number that was measured."""
        return {
            "batch": self.batch,
            "threads": self.threads,
            "forms": {
                name: [{"wall_ns": turn.samples, "cpu_ns": turn.cpu, "waits": turn.waits} for turn in turns]
                for name, turns in self.turns.items()
            },
        }

    def _ratio(self, reference: str, other: str, clock: str) -> Interval:
        one, two = (
            [turn.cpu_seconds if clock == "cpu" else turn.wall_seconds for turn in self.turns[name]]
            for name in (reference, other)
        )
        return speeds.ratio(one, two, looks=self.looks)


def enter(
    stack: ExitStack,
    form: Form,
    *,
    sandbox: Sandbox,
    scratch: Path,
    inputs: Sequence[Tensor],
    declared: Mapping[str, Json],
    deadline: Deadline,
    threads: int = 1,
    samples: Path | None = None,
) -> Entrant:
    """Open a form in a child that lives as long as the stack. `samples` is a file of the user's inputs."""
    read = [form.path] if samples is None else [form.path, samples]
    limits = Limits(cpu=max(_CHILD_CPU, round(deadline.left * threads)))
    child = stack.enter_context(sandbox.open(read=read, scratch=folder(scratch), limits=limits))
    baseline = child.peak_memory
    answer = deadline.call(
        child,
        "open_model",
        form=form.form,
        model=str(form.path),
        inputs=[one.model_dump() for one in inputs],
        declared={**declared, **form.way},
        threads=threads,
        samples=None if samples is None else str(samples),
    )
    return Entrant(form=form, child=child, opened=Opened.of(answer), baseline=baseline)


def measure(
    entrants: Mapping[str, Entrant],
    deadline: Deadline,
    *,
    batch: int,
    looks: Sequence[int],
    seconds: float,
    clear: Callable[[Heat], bool],
    threads: int = 1,
    turn: float = TURN,
    seed: int = _SEED,
) -> Heat:
    """Let the forms take turns until all is `clear` at a look, the rounds are over or the seconds are; one round at least.

    A turn lasts `turn` seconds, or as long as one run takes.

    Raises `Rejected("benchmark_timeout")` where not even one round came to its end.
    """
    end = time.monotonic() + seconds
    pace = {name: Warm.of(deadline.call(one.child, "warm_up", batch=batch)).seconds for name, one in entrants.items()}
    samples = max(1, min(SAMPLES, int(turn / max(pace.values()))))
    heat = Heat(
        batch=batch,
        threads=threads,
        looks=len(looks),
        samples=samples,
        discarded=samples // 3,
        repeats={name: benchmarking.iterations(one) for name, one in pace.items()},
        turns={name: [] for name in entrants},
    )
    rng, longest = random.Random(seed), 0.0  # noqa: S311 - an order, not a secret
    for look in looks:
        while heat.rounds < look:
            begun = time.monotonic()
            if heat.rounds and begun + longest > min(end, begun + deadline.left):
                heat.stopped = "time"
                return heat
            try:
                taken = _round(heat, entrants, deadline, rng)
            except Rejected:
                if not (deadline.over and heat.rounds):
                    raise
                heat.stopped = "time"
                return heat
            for name, one in taken.items():
                heat.turns[name].append(one)
            longest = max(longest, time.monotonic() - begun)
        if clear(heat):
            heat.stopped = "clear"
            break
    return heat


def _round(heat: Heat, entrants: Mapping[str, Entrant], deadline: Deadline, rng: random.Random) -> Mapping[str, Turn]:
    """One turn of each, in a new random order."""
    order = list(entrants)
    rng.shuffle(order)
    taken = {}
    for name in order:
        answer = deadline.call(
            entrants[name].child,
            "take_turn",
            batch=heat.batch,
            repeat=heat.repeats[name],
            samples=heat.samples,
            discarded=heat.discarded,
        )
        taken[name] = Turn.of(answer)
    return taken
