"""A candidate beside what is live: who gets it, what is counted of it, and that its faults reach nobody."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import Row, text

from serving.traffic import choose
from shared.db import Begin
from tests.integration.serving_fixtures import (
    Edge,
    Moored,
    User,
    edge,
    enrol,
    failing_above,
    moor,
    scaled,
    shelf_bucket,
)
from tests.integration.test_serving import until, v2

Enrol = Callable[..., User]
Moor = Callable[..., Moored]


def begun(begin: Begin, control: Moored, candidate: Moored, by: User, *, weight: float, **more: str) -> UUID:
    """A rollout as `registry.rollouts` starts it."""
    wish = {"kind": "canary", "sticky": "none", **more}
    with begin() as session:
        query = text(
            "INSERT INTO rollouts (model_id, target, control_id, candidate_id, kind, weight, sticky, rules, started_by)"
            " VALUES (:model, 'production', :control, :candidate, :kind, :weight, :sticky, '{}', :by) RETURNING id"
        )
        place = {"model": control.model_id, "control": control.version_id, "candidate": candidate.version_id}
        found: UUID = session.execute(query, {**place, **wish, "weight": weight, "by": by.id}).scalar_one()
    return found


def tallies(begin: Begin, rollout: UUID) -> dict[str, Row[Any]]:
    with begin() as session:
        rows = session.execute(text("SELECT * FROM tallies WHERE rollout_id = :id"), {"id": rollout})
        return {row.arm: row for row in rows}


def answering(client: httpx2.Client, name: str, number: float = 1, **headers: str) -> str:
    answer = client.post(f"/v2/models/{name}/infer", json=v2([number, 2, 3, 4]), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["slipway-version"]


def test_a_share_of_the_requests_goes_to_the_candidate_and_is_counted(
    edge: Edge, enrol: Enrol, moor: Moor, begin: Begin
) -> None:
    ada = enrol()
    control, candidate = moor(ada, "canary", scaled(2)), moor(ada, "canary", scaled(3), live=False)
    with edge.client(ada) as client:
        assert answering(client, "canary") == "1.0.0"
        rollout = begun(begin, control, candidate, ada, weight=0.4)
        until(lambda: answering(client, "canary") == "1.1.0")
        seen = Counter(answering(client, "canary") for _ in range(200))
        assert 40 < seen["1.1.0"] < 120
        until(lambda: sum(row.requests for row in tallies(begin, rollout).values()) >= 201)
        told = tallies(begin, rollout)
        assert told["candidate"].requests >= seen["1.1.0"]
        assert (told["candidate"].errors, told["control"].errors) == (0, 0)
        assert sum(told["control"].latencies) == told["control"].requests
        fixed = client.post("/v2/models/canary/versions/1.0.0/infer", json=v2([1, 2, 3, 4]))
        assert fixed.headers["slipway-version"] == "1.0.0", "who names a version gets it"


def test_a_key_stays_with_its_arm(edge: Edge, enrol: Enrol, moor: Moor, begin: Begin) -> None:
    ada = enrol()
    control, candidate = moor(ada, "sticky", scaled(2)), moor(ada, "sticky", scaled(3), live=False)
    with edge.client(ada) as client:
        answering(client, "sticky")
        rollout = begun(begin, control, candidate, ada, weight=0.5, sticky="key")
        keys = [f"customer-{number}" for number in range(20)]
        wanted = {key: "1.1.0" if choose(rollout, 0.5, key) == "candidate" else "1.0.0" for key in keys}
        assert set(wanted.values()) == {"1.0.0", "1.1.0"}
        theirs = next(key for key in keys if wanted[key] == "1.1.0")
        until(lambda: answering(client, "sticky", **{"Slipway-Sticky-Key": theirs}) == "1.1.0")
        for _ in range(3):
            assert {key: answering(client, "sticky", **{"Slipway-Sticky-Key": key}) for key in keys} == wanted


def test_who_meets_a_candidates_fault_is_answered_all_the_same(
    edge: Edge, enrol: Enrol, moor: Moor, begin: Begin
) -> None:
    ada = enrol()
    control, candidate = moor(ada, "faulty", scaled(1)), moor(ada, "faulty", failing_above(100), live=False)
    with edge.client(ada) as client:
        answering(client, "faulty")
        rollout = begun(begin, control, candidate, ada, weight=1.0)
        until(lambda: answering(client, "faulty") == "1.1.0")
        assert {answering(client, "faulty", number=500) for _ in range(5)} == {"1.0.0"}
        until(lambda: sum(row.errors for row in tallies(begin, rollout).values()) == 5)
        assert tallies(begin, rollout)["candidate"].errors == 5


def test_shadow_copies_are_compared_and_nobody_waits_for_them(
    edge: Edge, enrol: Enrol, moor: Moor, begin: Begin
) -> None:
    ada = enrol()
    control, candidate = moor(ada, "shadow", scaled(2)), moor(ada, "shadow", scaled(-2), live=False)
    same = moor(ada, "alike", scaled(2)), moor(ada, "alike", scaled(4), live=False)
    with edge.client(ada) as client:
        for name, pair, disagree in (("shadow", (control, candidate), True), ("alike", same, False)):
            answering(client, name)
            rollout = begun(begin, *pair, ada, weight=1.0, kind="shadow")

            def compared(rollout: UUID = rollout, name: str = name) -> int:
                assert answering(client, name) == "1.0.0"
                told = tallies(begin, rollout)
                return told["candidate"].compared if "candidate" in told else 0

            until(lambda compared=compared: compared() >= 5)
            told = tallies(begin, rollout)["candidate"]
            assert told.disagreed == (told.compared if disagree else 0)
