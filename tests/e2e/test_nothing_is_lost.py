"""Real models on their way down while processes are killed: every run ends once, every event arrives once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from slipway import Client, Event, Run

if TYPE_CHECKING:
    from stack.launcher import Stack


PATIENCE = 200
"""Seconds until a run must have ended, however busy the machine is."""


@pytest.fixture(autouse=True)
def _whole(slipway: Stack) -> Iterator[None]:
    """Whatever became of a test, the next one has every process again."""
    before = slipway.names()
    yield
    for name in before:
        if name not in slipway.names():
            slipway.start(name)


@pytest.fixture
def pushed(client: Client, digits: Path, request: pytest.FixtureRequest) -> Run:
    """A `torch.export` program on its way: its conversion alone takes seconds, and is not taken from an earlier run."""
    name = request.node.name.replace("[", "-").replace("]", "")[-60:]
    return client.push(digits / "digits.pt2", name, input_shape=[-1, 1, 8, 8], config={"unlike": name})


class Subscriber(threading.Thread):
    """Follows a run's events as the SDK does, in a thread of its own."""

    def __init__(self, url: str, key: str, run_id: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[Event] = []
        self._where = (url, key, run_id)
        self.start()

    def run(self) -> None:
        url, key, run_id = self._where
        with Client(url, key) as client:
            self.seen.extend(client.events(run_id))


@pytest.fixture
def subscriber(slipway: Stack, key: str, pushed: Run) -> Subscriber:
    return Subscriber(slipway.environment["SLIPWAY_URL"], key, pushed.id)


def until(condition: Callable[[], bool], within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.05)


def working_on(client: Client, run: Run, stage: str) -> bool:
    step = client.run(run.id).step(stage)
    return step is not None and step.status == "running"


def kinds(subscriber: Subscriber) -> list[str]:
    subscriber.join(timeout=20)
    assert not subscriber.is_alive(), "the stream closes after the terminal event"
    assert [event.seq for event in subscriber.seen] == list(range(len(subscriber.seen))), "none lost, none doubled"
    assert [event.terminal for event in subscriber.seen].count(True) == 1
    return [event.kind for event in subscriber.seen]


def test_a_subscriber_misses_nothing_while_the_api_is_killed_and_comes_back(
    slipway: Stack, client: Client, pushed: Run, subscriber: Subscriber
) -> None:
    until(lambda: working_on(client, pushed, "convert"))
    slipway.kill("api")
    time.sleep(2)
    slipway.start("api")
    assert client.wait(pushed.id, timeout=PATIENCE).status == "succeeded"
    assert kinds(subscriber) == ["submitted", *["claimed", "passed"] * 6]


def test_a_worker_killed_in_the_middle_of_a_conversion_costs_an_attempt_and_no_run(
    slipway: Stack, client: Client, pushed: Run, subscriber: Subscriber
) -> None:
    until(lambda: working_on(client, pushed, "convert"))
    slipway.kill("worker")
    slipway.start("worker")
    run = client.wait(pushed.id, timeout=PATIENCE)
    assert run.status == "succeeded"
    assert (run.step("convert") or pytest.fail("no such step")).attempt == 2
    assert kinds(subscriber).count("broke") == 1


def test_redis_losing_all_its_data_loses_no_run(
    slipway: Stack, client: Client, pushed: Run, subscriber: Subscriber
) -> None:
    until(lambda: working_on(client, pushed, "convert"))
    slipway.stop("redis", wipe=True)
    slipway.start("redis")
    assert client.wait(pushed.id, timeout=PATIENCE).status == "succeeded"
    assert kinds(subscriber) == ["submitted", *["claimed", "passed"] * 6]


def test_a_database_that_restarts_costs_nobody_a_run(
    slipway: Stack, client: Client, pushed: Run, subscriber: Subscriber
) -> None:
    until(lambda: working_on(client, pushed, "convert"))
    slipway.kill("postgres")
    slipway.start("postgres")
    assert client.wait(pushed.id, timeout=PATIENCE).status == "succeeded"
    kinds(subscriber)


def test_the_relay_killed_and_started_again_carries_on(
    slipway: Stack, client: Client, pushed: Run, subscriber: Subscriber
) -> None:
    until(lambda: working_on(client, pushed, "convert"))
    slipway.kill("relay")
    until(lambda: not working_on(client, pushed, "convert"))
    assert client.run(pushed.id).status == "queued"
    slipway.start("relay")
    assert client.wait(pushed.id, timeout=PATIENCE).status == "succeeded"
    assert kinds(subscriber) == ["submitted", *["claimed", "passed"] * 6]


def test_cancelling_ends_the_sandboxed_child_within_seconds_and_a_retry_finishes_the_run(
    slipway: Stack, client: Client, pushed: Run
) -> None:
    until(lambda: working_on(client, pushed, "convert"))
    until(lambda: bool(sandboxed(slipway)))
    assert client.cancel(pushed.id).status == "cancelled"
    until(lambda: not sandboxed(slipway), within=5)
    client.retry(pushed.id)
    run = client.wait(pushed.id, timeout=PATIENCE)
    assert run.status == "succeeded"
    assert [step.attempt for step in run.steps][:3] == [1, 1, 2], "what had passed stays passed"
    assert any("gate scan_clean: passed" in line for line in client.log(run.id, "promote"))


def sandboxed(slipway: Stack) -> list[int]:
    """Sandbox children at work: below the workers, held by more seccomp filters than we are, and alive."""
    processes = {int(path.parent.name): _status(path) for path in Path("/proc").glob("[0-9]*/status")}
    ours = int(processes[os.getpid()]["Seccomp_filters"])

    def below(pid: int, top: int) -> bool:
        while pid in processes and pid != top:
            pid = int(processes[pid].get("PPid", 0))
        return pid == top

    return [
        pid
        for pid, fields in processes.items()
        if int(fields.get("Seccomp_filters", 0)) > ours
        and fields["State"][0] in "RS"
        and below(pid, slipway.pid("worker"))
    ]


def _status(path: Path) -> dict[str, str]:
    try:
        return dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)
    except (FileNotFoundError, ProcessLookupError):
        return {}
