"""Who is online, what a run waits for meanwhile, and what happens when nobody comes."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import text

from pipeline import engine, online, store
from pipeline.run import Claimed, Passed, Status, Step
from shared.db import Begin
from shared.settings import Settings
from tests.integration.api_fixtures import ada, app, parts, served, url
from tests.integration.test_workers import wait_for
from workers.presence import Presence

Submit = Callable[..., UUID]
WAITING = "waiting for a gpu worker (none online)"


@pytest.fixture(autouse=True)
def nobody(begin: Begin) -> Iterator[None]:
    yield
    with begin() as session:
        session.execute(text("DELETE FROM workers"))
        session.execute(text("DELETE FROM runs"))


def plan(*, optional: bool = True) -> list[Step]:
    engines = Step(stage="tensorrt", queue="gpu", max_attempts=3, time_limit=60, optional=optional)
    return [engines, Step(stage="promote", queue="default", max_attempts=3, time_limit=60)]


def here(begin: Begin, name: str = "gpu@yard:1", queues: tuple[str, ...] = ("gpu",)) -> None:
    with begin() as session:
        online.report(session, name=name, pool="gpu", queues=queues, devices=[{"index": 0, "sm": "sm90"}])


def aged(begin: Begin, run_id: UUID, seconds: float) -> None:
    with begin() as session:
        session.execute(
            text("UPDATE runs SET updated_at = updated_at - make_interval(secs => :s) WHERE id = :id"),
            {"s": seconds, "id": run_id},
        )


def silent(begin: Begin, seconds: float) -> None:
    with begin() as session:
        session.execute(text("UPDATE workers SET seen_at = seen_at - make_interval(secs => :s)"), {"s": seconds})


def test_a_run_says_what_it_waits_for_until_somebody_is_there(begin: Begin, submit: Submit, ada: httpx2.Client) -> None:
    run_id = submit(plan=plan())
    path = f"/api/v1/runs/{run_id}"
    answer = ada.get(path)
    assert answer.json()["waiting"] == WAITING
    listed = next(one for one in ada.get("/api/v1/runs").json()["items"] if one["id"] == str(run_id))
    assert listed["waiting"] == WAITING
    with begin() as session:
        (event,) = store.events_after(session, run_id, -1)
    assert event.data["waiting"] == WAITING
    tag = {"If-None-Match": answer.headers["etag"]}
    assert ada.get(path, headers=tag).status_code == 304
    here(begin)
    fresh = ada.get(path, headers=tag)
    assert (fresh.status_code, fresh.json()["waiting"]) == (200, None), "news for those who poll, though nothing moved"
    silent(begin, online.ONLINE + 1)
    assert ada.get(path).json()["waiting"] == WAITING
    here(begin)
    with begin() as session:
        online.leave(session, "gpu@yard:1")
    assert ada.get(path).json()["waiting"] == WAITING, "who says goodbye is gone at once"


def test_when_nobody_comes_for_long_enough_the_run_goes_on_and_says_so(
    begin: Begin, submit: Submit, ada: httpx2.Client
) -> None:
    run_id = submit(plan=plan())
    with begin() as session:
        assert engine.give_up(session, wait=100) == 0, "not yet"
    aged(begin, run_id, 101)
    with begin() as session:
        assert engine.give_up(session, wait=100) == 1
        assert engine.give_up(session, wait=100) == 0
        reports = store.reports(session, run_id)
        kinds = [event.kind for event in store.events_after(session, run_id, -1)]
    assert kinds == ["submitted", "skipped"]
    assert "No gpu worker came within 100 s" in reports["tensorrt"]["facts"]["skipped"], "promote reads why"
    first, second = ada.get(f"/api/v1/runs/{run_id}").json()["steps"]
    assert (first["status"], first["code"], second["status"]) == ("skipped", "no_worker", "queued")
    assert first["detail"] == first["report"]["skipped"]


@pytest.mark.parametrize("why", ["not optional", "somebody is there", "somebody was there lately"])
def test_a_step_is_waited_for(begin: Begin, submit: Submit, why: str) -> None:
    run_id = submit(plan=plan(optional=why != "not optional"))
    aged(begin, run_id, 1000)
    if why != "not optional":
        here(begin)
    if why == "somebody was there lately":
        silent(begin, 60)
    with begin() as session:
        assert engine.give_up(session, wait=100) == 0
        assert store.load(session, run_id).step.stage == "tensorrt"


def test_what_somebody_works_on_is_not_taken_away(begin: Begin, submit: Submit) -> None:
    run_id = submit(plan=plan())
    with begin() as session:
        engine.send(session, run_id, Claimed(stage="tensorrt", attempt=1))
    aged(begin, run_id, 1000)
    with begin() as session:
        assert engine.give_up(session, wait=100) == 0
        assert engine.send(session, run_id, Passed(stage="tensorrt", attempt=1)).status is Status.QUEUED


def test_a_worker_reports_until_it_leaves_and_is_forgotten_in_the_end(begin: Begin, settings: Settings) -> None:
    def queues() -> frozenset[str]:
        with begin() as session:
            return online.served(session)

    with Presence(settings.sqlalchemy_url, pool="gpu", queues=("gpu", "spare")):
        wait_for(lambda: queues() == {"gpu", "spare"})
    assert queues() == frozenset()
    with begin() as session:
        online.forget(session, 3600)
        assert session.execute(text("SELECT count(*) FROM workers")).scalar_one() == 1
        online.forget(session, 0)
        assert session.execute(text("SELECT count(*) FROM workers")).scalar_one() == 0
