"""The protocol around the statistics: who runs when, for how long, and by which clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline import device
from pipeline.benchmarking import MOST_ITERATIONS, Opened, Turn, computes, iterations
from pipeline.errors import Rejected
from pipeline.measuring import CONTROL, SOURCE, Deadline, Entrant, Form, Heat, measure

FORMS = (SOURCE, CONTROL, "onnx-fp32", "onnx-int8")


class Child:
    """A child whose model takes a known time; it counts its turns instead of spending it."""

    peak_memory = 0

    def __init__(self, name: str, seconds: float, turns: list[str], *, dies_after: int | None = None) -> None:
        self.name, self.seconds, self.turns, self.dies_after = name, seconds, turns, dies_after
        self.rng_state = sum(map(ord, name))

    def call(self, function: str, /, *, wall: float | None = None, **arguments: Any) -> Any:
        assert wall is not None
        if function.endswith(":warm_up"):
            return {"seconds": self.seconds}
        if self.dies_after is not None and len(self.turns) >= self.dies_after:
            raise Rejected("time_limit", "The step took too long.")
        self.turns.append(self.name)
        repeat, samples = arguments["repeat"], arguments["samples"]
        self.rng_state = (self.rng_state * 1103515245 + 12345) % 2**31
        taken = max(1, round(self.seconds * 1e9 * (1 + (self.rng_state / 2**31 - 0.5) * 0.02)))
        return {"samples": [[taken] * repeat] * samples, "cpu": [taken * repeat] * samples, "waits": 0}

    def kill(self) -> None:
        raise AssertionError("nobody asked for that")


def entrants(seconds: Sequence[float], **options: Any) -> tuple[dict[str, Entrant], list[str]]:
    turns: list[str] = []
    opened = Opened(load=0.0, first=0.0, sampled=False)
    return {
        name: Entrant(
            form=Form(name=name, role="variant", form="onnx", path=Path("model.onnx")),
            child=Child(name, taken, turns, **options),
            opened=opened,
            baseline=0,
        )
        for name, taken in zip(FORMS, seconds, strict=True)
    }, turns


def settled(heat: Heat) -> bool:
    return all(heat.compare(SOURCE, name).verdict != "inconclusive" for name in FORMS[2:])


def never(_: Heat) -> bool:
    return False


def run(field: dict[str, Entrant], clear: Callable[[Heat], bool] = never, seconds: float = 60.0) -> Heat:
    return measure(field, Deadline(60), batch=1, looks=(15, 30), seconds=seconds, clear=clear)


def test_every_form_has_its_turn_in_every_round_and_the_order_changes() -> None:
    field, turns = entrants([0.001] * 4)
    heat = run(field)
    orders = [tuple(turns[start : start + 4]) for start in range(0, len(turns), 4)]
    assert all(set(order) == set(FORMS) for order in orders)
    assert len(set(orders)) > 5
    assert any(one != two for one, two in pairwise(orders))
    assert (heat.rounds, heat.stopped) == (30, "rounds")


def test_no_more_rounds_are_run_than_the_verdicts_need() -> None:
    field, _ = entrants([0.002, 0.002, 0.001, 0.004])
    heat = run(field, settled)
    assert (heat.rounds, heat.stopped) == (15, "clear")
    assert [heat.compare(SOURCE, name).verdict for name in FORMS[1:]] == ["same", "faster", "slower"]
    assert heat.compare("onnx-int8", "onnx-fp32").ratio.value == pytest.approx(4, rel=0.02)


def test_when_the_time_is_over_what_was_measured_counts() -> None:
    field, _ = entrants([0.001] * 4, dies_after=4 * 6 + 2)
    heat = run(field)
    assert (heat.rounds, heat.stopped) == (6, "time")
    assert heat.compare(SOURCE, "onnx-fp32").verdict == "inconclusive"
    assert run(entrants([0.001] * 4)[0], seconds=0.0).rounds == 1


def test_only_where_nothing_was_measured_the_model_is_refused() -> None:
    field, _ = entrants([0.001] * 4, dies_after=2)
    with pytest.raises(Rejected) as caught:
        run(field)
    assert caught.value.code == "benchmark_timeout"


def test_after_a_call_that_took_too_long_there_is_no_time_left() -> None:
    deadline = Deadline(60)
    with pytest.raises(Rejected, match="60 s"):
        deadline.call(Child("slow", 1.0, [], dies_after=0), "take_turn", repeat=1, samples=1)
    assert (deadline.over, deadline.left) == (True, 0.0)
    with pytest.raises(Rejected, match="60 s"):
        deadline.call(Child("next", 1.0, []), "warm_up")


def test_fast_forms_are_repeated_until_a_sample_lasts_and_slow_ones_are_sampled_once_a_round() -> None:
    assert (iterations(25e-6), iterations(0.5), iterations(0.0)) == (10, 1, MOST_ITERATIONS)
    heat = run(entrants([0.001, 0.001, 0.2, 0.001])[0])
    assert (heat.samples, heat.discarded) == (1, 0)
    assert [run(entrants([seconds] * 4)[0]).samples for seconds in (1e-5, 0.001, 0.01, 0.05)] == [24, 24, 10, 2]


def turn(wall: int, cpu: int, waits: int) -> Turn:
    return Turn(samples=[[wall] * 10] * 3, cpu=[cpu * 10] * 3, waits=waits)


def test_cpu_time_counts_where_a_form_only_computes_and_wall_time_where_it_waits_for_others() -> None:
    crowded, waiting = [turn(4000, 1000, 0)] * 15, [turn(1000, 600, 30)] * 15
    assert computes(crowded)
    assert not computes(waiting)
    one = {SOURCE: [turn(1000, 1000, 0)] * 15, CONTROL: [turn(1000, 1000, 0)] * 15, "a": crowded, "b": waiting}
    heat = Heat(batch=1, threads=1, looks=1, samples=3, discarded=1, repeats={}, turns=one)
    assert (heat.compare(SOURCE, "a").clock, heat.compare(SOURCE, "a").verdict) == ("cpu", "same")
    assert (heat.compare(SOURCE, "b").clock, heat.compare(SOURCE, "b").verdict) == ("wall", "same")
    assert Heat(batch=1, threads=2, looks=1, samples=3, discarded=1, repeats={}, turns=one).clock("a") == "wall"


def test_the_threads_are_those_of_the_smallest_quota_around_us(tmp_path: Path) -> None:
    allowed = device.cores(tmp_path)
    assert allowed == device.cores(tmp_path / "nothing here") >= 1
    inside = tmp_path / "sys/fs/cgroup/pods/one"
    inside.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/pods/one\n")
    (inside / "cpu.max").write_text("max 100000\n")
    assert device.cores(tmp_path) == allowed
    (inside.parent / "cpu.max").write_text("50000 100000\n")
    assert device.cores(tmp_path) == 1


def test_the_first_version_of_cgroups_is_read_too(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/cpu"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/\n3:cpu,cpuacct:/\n")
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert device.cores(tmp_path) >= 1
    (group / "cpu.cfs_quota_us").write_text("120000\n")
    assert device.cores(tmp_path) == 1
