"""Real Celery workers and a real relay, killed, doubled and starved: every run still ends, once."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from sqlalchemy import text

from pipeline import engine, online, store
from pipeline.run import Cancel, Retry, Run, Status, Step
from pipeline.sandbox.scratch import LOCK, SCRATCH, new_scratch
from pipeline.stage import discover
from registry import logs
from registry import store as registry
from registry.lookup import Viewer
from shared.db import Begin, connect, transactions
from shared.settings import Settings
from shared.storage import Storage
from workers.app import create
from workers.lease import Lease

STAGES = {stage.name: stage for stage in discover(("tests.stages", "benchmarks.stages"))}
NOOPS = [stage.step() for stage in STAGES.values() if stage.name.startswith("noop_")]
QUICK = ("quick", "hang")

EAGER = {
    "STAGE_PACKAGES": '["tests.stages", "benchmarks.stages"]',
    "LEASE": "2",
    "SWEEP_INTERVAL": "0.3",
    "RING_AGAIN": "2",
    "DOWNLOAD_LIFETIME": "2",
    "LOG_FORMAT": "text",
}


COMMANDS = {
    "relay": ["workers.relay"],
    "one": ["workers", "cpu", "1"],
    "two": ["workers", "cpu", "1"],
    "gpu": ["workers", "gpu"],
}


class Crew:
    """Relay and workers as processes of their own, each with a process group that can be killed whole."""

    def __init__(self, environment: dict[str, str], logs: Path) -> None:
        self.environment = environment | EAGER | {"PYTHONPATH": os.fspath(Path(__file__).parents[2])}
        self.logs = logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str, **settings: str) -> None:
        for name in names:
            with (self.logs / f"{name}.log").open("ab") as log:
                self.running[name] = subprocess.Popen(
                    [sys.executable, "-m", *COMMANDS[name]],
                    env=self.environment | settings,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill_children(self, name: str) -> None:
        """Kill what the worker forked, and not the worker."""
        parent = self.running[name].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        assert children
        for child in children:
            os.kill(int(child), signal.SIGKILL)


@pytest.fixture(scope="module")
def crew(environment: dict[str, str], storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    crew = Crew(environment, tmp_path_factory.mktemp("logs"))
    crew.start("relay", "one", "two")
    yield crew
    for name in list(crew.running):
        crew.kill(name)


@pytest.fixture
def load(begin: Begin) -> Callable[[UUID], Run]:
    def load(run_id: UUID) -> Run:
        with begin() as session:
            return store.load(session, run_id)

    return load


@pytest.fixture
def ended(load: Callable[[UUID], Run]) -> Callable[..., Run]:
    """Wait for a run's end."""

    def ended(run_id: UUID, within: float = 40) -> Run:
        wait_for(lambda: load(run_id).status.terminal, within)
        return load(run_id)

    return ended


def wait_for(condition: Callable[[], bool], within: float = 40) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.05)


def events(begin: Begin, run_id: UUID) -> list[str]:
    with begin() as session:
        found = store.events_after(session, run_id, -1)
    assert [event.seq for event in found] == list(range(len(found))), "events have no gaps"
    return [event.kind for event in found]


@pytest.fixture
def staged(storage: Storage, settings: Settings, submit: Callable[..., UUID]) -> Callable[..., UUID]:
    """Submit a run whose model really lies in the staging bucket."""

    def staged(*stages: str, config: dict[str, object] | None = None) -> UUID:
        key = f"{uuid4()}/model/model.onnx"
        storage.bucket(settings.bucket("staging")).put(key, b"abc")
        plan = [STAGES[name].step() for name in stages]
        return submit(plan=plan, key=key, sha256=hashlib.sha256(b"abc").hexdigest(), config=config)

    return staged


def test_a_run_goes_through_its_stages_and_leaves_nothing_in_staging(
    crew: Crew,
    staged: Callable[..., UUID],
    ended: Callable[..., Run],
    begin: Begin,
    storage: Storage,
    settings: Settings,
) -> None:
    run_id = staged("quick", "hang")
    run = ended(run_id)
    assert run.status is Status.SUCCEEDED
    assert events(begin, run_id) == ["submitted", "claimed", "passed", "claimed", "passed"]

    staging = storage.bucket(settings.bucket("staging"))

    def version() -> Any:
        with begin() as session:
            return registry.upload(session, store.version_of(session, run_id))

    wait_for(lambda: version().original_key is not None)
    assert staging.read(version().staging_key) == b"abc", "addresses that were handed out before still lead there"
    wait_for(lambda: not list(staging.list(f"runs/{run_id}/")) and staging.size(version().staging_key) is None)
    with begin() as session:
        lines = [row.text for row in store.read_logs(session, run_id, "quick", attempt=None, after=0, limit=10)]
    assert storage.bucket(settings.bucket("quarantine")).read(version().original_key or "") == b"abc"
    assert lines == ["nothing to do"]


def test_a_step_that_breaks_once_is_tried_again(
    crew: Crew, staged: Callable[..., UUID], ended: Callable[..., Run], begin: Begin
) -> None:
    run_id = staged("flaky", "hang", config={"mood": "breaks once"})
    assert ended(run_id).status is Status.SUCCEEDED
    assert events(begin, run_id) == ["submitted", "claimed", "broke", "claimed", "passed", "claimed", "passed"]


def test_a_refusal_ends_the_run_as_rejected_with_its_report(
    crew: Crew, staged: Callable[..., UUID], ended: Callable[..., Run], begin: Begin, owner: UUID
) -> None:
    run_id = staged("flaky", "hang", config={"mood": "refuses"})
    run = ended(run_id)
    assert (run.status, run.code) == (Status.REJECTED, "not_wanted")
    with begin() as session:
        _, steps = store.find(session, Viewer(user_id=owner), run_id)
    assert steps[0].report["facts"]["findings"] == ["nose"]


def test_a_bug_of_ours_fails_the_run_as_internal_after_its_attempts_and_is_in_the_kept_log(
    crew: Crew, staged: Callable[..., UUID], ended: Callable[..., Run], begin: Begin
) -> None:
    run = ended(staged("flaky", config={"mood": "crashes"}))
    assert (run.status, run.code, run.attempt) == (Status.FAILED, "internal", 2)

    def kept() -> list[dict[str, Any]]:
        with begin() as session:
            rows = logs.find_many(session, logs.Wanted(level=40, event="stage.crashed"), offset=0, limit=100)
        assert all(row.process.startswith("cpu@") for row in rows)
        return [row.fields for row in rows if row.fields["run_id"] == str(run.id)]

    wait_for(lambda: len(kept()) == 2)
    assert all(" at flaky.py:" in fields["exception"] for fields in kept())


@pytest.mark.parametrize(("stored", "code"), [(None, "object_missing"), (b"something else", "digest_mismatch")])
def test_a_model_that_is_gone_or_changed_in_storage_never_passes(
    crew: Crew,
    submit: Callable[..., UUID],
    ended: Callable[..., Run],
    storage: Storage,
    settings: Settings,
    stored: bytes | None,
    code: str,
) -> None:
    key = f"{uuid4()}/model/model.onnx"
    if stored is not None:
        storage.bucket(settings.bucket("staging")).put(key, stored)
    run = ended(submit(plan=[Step(stage="quick", queue="cpu", max_attempts=1, time_limit=60)], key=key))
    assert (run.status, run.code) == (Status.FAILED, code)


@pytest.mark.parametrize("mood", ["hangs", "sleeps"])
def test_a_step_over_its_time_limit_says_so_however_late_it_comes_back(
    crew: Crew, staged: Callable[..., UUID], ended: Callable[..., Run], mood: str
) -> None:
    run = ended(staged("hang", config={"mood": mood}))
    assert (run.status, run.code) == (Status.FAILED, "step_timeout")


def test_a_spawned_child_knows_the_stages_and_works(
    crew: Crew, staged: Callable[..., UUID], ended: Callable[..., Run], begin: Begin
) -> None:
    crew.start("gpu")
    run_id = staged("device", "hang")
    assert ended(run_id, within=60).status is Status.SUCCEEDED
    with begin() as session:
        assert store.reports(session, run_id)["device"]["facts"]["start_method"] == "spawn"
    crew.kill("gpu")


def test_every_child_of_the_gpu_pool_has_one_gpu_and_the_worker_is_online(
    crew: Crew, staged: Callable[..., UUID], ended: Callable[..., Run], begin: Begin, tmp_path: Path
) -> None:
    """The driver's program is a script that lists two GPUs; the processes and their pinning are real."""
    listing = tmp_path / "nvidia-smi"

    def list_two(free: int) -> None:
        line = "echo '{0}, GPU-{0}, NVIDIA H100 80GB HBM3, 81559, {1}, 9.0'"
        fresh = listing.with_suffix(".new")
        fresh.write_text("\n".join(["#!/bin/sh", line.format(0, free), line.format(1, free)]))
        fresh.chmod(0o755)
        fresh.rename(listing)

    list_two(81000)
    crew.start("gpu", PATH=f"{tmp_path}:{os.environ['PATH']}")
    found = []
    for run_id in [staged("device", "hang") for _ in range(4)]:
        assert ended(run_id, within=120).status is Status.SUCCEEDED
        with begin() as session:
            found.append(store.reports(session, run_id)["device"]["facts"])
    assert {facts["gpu"] for facts in found} <= {"GPU-0", "GPU-1"}
    assert all(facts["visible"] == facts["gpu"] for facts in found), "no child sees a GPU that is not its own"
    assert len({facts["gpu"] for facts in found}) == len({facts["process"] for facts in found})
    with begin() as session:
        assert "gpu" in online.served(session)
        told = session.execute(text("SELECT devices FROM workers WHERE pool = 'gpu' AND devices <> '[]'")).scalar_one()
    assert [(one["index"], one["sm"]) for one in told] == [(0, "sm90"), (1, "sm90")]
    list_two(100)
    over = ended(staged("device", "hang"), within=60)
    assert (over.status, over.code) == (Status.FAILED, "device_memory"), "a GPU that is full takes no work"
    crew.kill("gpu")


def test_a_folder_in_use_is_not_taken_for_a_dead_workers(tmp_path: Path) -> None:
    ours, dead = new_scratch(tmp_path), tmp_path / f"{SCRATCH}dead"
    dead.mkdir()
    (dead / LOCK).touch()
    program = "import sys, pathlib, pipeline.sandbox as s; s.forget_dead_scratch(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert list(tmp_path.iterdir()) == [ours]


def test_a_database_that_says_nothing_ends_the_step_after_a_whole_lease() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = connect(f"postgresql+psycopg://ada@127.0.0.1:{silent.getsockname()[1]}/none")
        ended = threading.Event()
        began = time.monotonic()
        lease = Lease(transactions(database), uuid4(), "slow", 1, seconds=1.0, time_limit=60)
        with lease:
            lease.on_lost(ended.set)
            assert ended.wait(10)
            assert time.monotonic() - began < 4, "before the connection attempt itself gives up"
            assert lease.lost == "the database was silent for a whole lease"
        database.dispose()


def test_cancelling_a_running_step_ends_it_within_seconds(
    crew: Crew, staged: Callable[..., UUID], load: Callable[[UUID], Run], begin: Begin
) -> None:
    run_ids = [staged("slow", "hang", config={"seconds": 120}) for _ in range(2)]  # both workers are busy
    wait_for(lambda: all(load(run_id).status is Status.RUNNING for run_id in run_ids))
    for run_id in run_ids:
        with begin() as session:
            engine.send(session, run_id, Cancel())
    again = staged("quick", "hang")
    wait_for(lambda: load(again).status.terminal, 20)
    for run_id in run_ids:
        assert load(run_id).status is Status.CANCELLED
        assert events(begin, run_id) == ["submitted", "claimed", "cancelled"]


def test_a_killed_worker_child_loses_its_attempt_and_the_run_goes_on(
    crew: Crew, staged: Callable[..., UUID], load: Callable[[UUID], Run], ended: Callable[..., Run], begin: Begin
) -> None:
    run_id = staged("slow", "hang", config={"seconds": 1.5})
    wait_for(lambda: load(run_id).status is Status.RUNNING)
    crew.kill_children("one")
    crew.kill_children("two")
    assert ended(run_id).status is Status.SUCCEEDED
    assert "broke" in events(begin, run_id)


def test_a_killed_worker_loses_its_attempt_and_the_run_goes_on(
    crew: Crew, staged: Callable[..., UUID], load: Callable[[UUID], Run], ended: Callable[..., Run], begin: Begin
) -> None:
    run_id = staged("slow", "hang", config={"seconds": 1.5})
    wait_for(lambda: load(run_id).status is Status.RUNNING)
    crew.kill("one")
    crew.kill("two")
    crew.start("one", "two")
    assert ended(run_id).status is Status.SUCCEEDED
    assert events(begin, run_id).count("broke") == 1


def test_a_killed_relay_forgets_nothing(
    crew: Crew, staged: Callable[..., UUID], load: Callable[[UUID], Run], ended: Callable[..., Run]
) -> None:
    crew.kill("relay")
    run_ids = [staged("quick", "hang") for _ in range(3)]
    time.sleep(0.5)
    assert {load(run_id).status for run_id in run_ids} == {Status.QUEUED}
    crew.start("relay")
    assert {ended(run_id).status for run_id in run_ids} == {Status.SUCCEEDED}


def test_a_broker_that_loses_everything_loses_no_run(
    crew: Crew, staged: Callable[..., UUID], ended: Callable[..., Run], settings: Settings
) -> None:
    for name in ("one", "two", "relay"):
        crew.kill(name)
    crew.start("relay", RING_AGAIN="600")  # so that nothing but noticing the loss can help
    run_ids = [staged("quick", "hang") for _ in range(5)]
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as broker:
        wait_for(lambda: int(broker.llen("cpu")) >= 5)  # type: ignore[arg-type]
        broker.flushdb()
    crew.start("one", "two")
    assert {ended(run_id).status for run_id in run_ids} == {Status.SUCCEEDED}
    crew.kill("relay")
    crew.start("relay")


def test_a_cleanup_that_comes_after_a_retry_leaves_the_bytes_alone(
    crew: Crew, staged: Callable[..., UUID], ended: Callable[..., Run], begin: Begin
) -> None:
    run_id = staged("slow", "quick", "hang", config={"seconds": 6.0})
    with begin() as session:
        engine.send(session, run_id, Cancel())
    with begin() as session:  # the retention is over, and somebody retries before housekeeping comes round
        store.post(session, run_id, "cleanup", {})
        engine.send(session, run_id, Retry())
    # `slow` outlasts what a cleanup lingers, and only then `quick` reads the model's bytes.
    assert ended(run_id).status is Status.SUCCEEDED
    assert "broke" not in events(begin, run_id)


def test_doubled_and_late_messages_change_nothing(
    crew: Crew, staged: Callable[..., UUID], ended: Callable[..., Run], settings: Settings, begin: Begin
) -> None:
    run_id = staged("quick", "hang")
    app = create(settings.redis_url.get_secret_value(), STAGES.values())
    for _ in range(10):
        app.send_task("stage.quick", kwargs={"run_id": str(run_id), "attempt": 1}, queue="cpu")
    assert ended(run_id).status is Status.SUCCEEDED
    app.send_task("stage.quick", kwargs={"run_id": str(run_id), "attempt": 1}, queue="cpu")
    app.send_task("stage.hang", kwargs={"run_id": str(uuid4()), "attempt": 1}, queue="cpu")
    last = staged("quick", "hang")
    assert ended(last).status is Status.SUCCEEDED
    assert events(begin, run_id) == ["submitted", "claimed", "passed", "claimed", "passed"]
    app.close()


def test_two_hundred_runs_through_two_workers_all_end_once(
    crew: Crew, submit: Callable[..., UUID], begin: Begin, load: Callable[[UUID], Run]
) -> None:
    run_ids = [submit(plan=NOOPS, model=f"many-{number % 20}") for number in range(200)]
    for run_id in run_ids:  # one after the other: asking for all of them at each look would be most of the work
        wait_for(lambda run_id=run_id: load(run_id).status.terminal, 240)
    assert {load(run_id).status for run_id in run_ids} == {Status.SUCCEEDED}
    expected = ["submitted", *["claimed", "passed"] * 5]
    assert all(events(begin, run_id) == expected for run_id in run_ids)
