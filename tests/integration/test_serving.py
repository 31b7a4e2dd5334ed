"""One endpoint for each model: who may ask, what answers, what happens when things break. On a real serving process."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx2
import numpy as np
import psycopg
import pytest
from sqlalchemy import text

from registry import reviews
from serving.access import REMEMBERED
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Bucket
from tests.integration.serving_fixtures import (
    Edge,
    Moored,
    User,
    children,
    edge,
    enrol,
    kill_children,
    moor,
    nothing_live,
    scaled,
    shelf_bucket,
    slow,
    started,
)

Enrol = Callable[..., User]
Moor = Callable[..., Moored]
ROW = {"inputs": {"x": [[1, 2, 3, 4]]}}


def v2(*rows: list[float], name: str = "x") -> dict[str, Any]:
    data = [number for row in rows for number in row]
    return {"inputs": [{"name": name, "shape": [len(rows), len(rows[0])], "datatype": "FP32", "data": data}]}


def said(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    return body


def until(check: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends, "it did not come true in time"
        time.sleep(0.05)


def test_what_is_promoted_answers_at_once_under_each_of_its_names(edge: Edge, enrol: Enrol, moor: Moor) -> None:
    ada = enrol()
    first, second = moor(ada, "digits", scaled(2)), moor(ada, "digits", scaled(3), live=False)
    with edge.client(ada) as client:
        answer = client.post(f"/v2/models/{first.reference}/infer", json=v2([1, 2, 3, 4]))
        assert answer.json()["outputs"][0]["data"] == [2, 4, 6, 8]
        assert answer.json()["model_version"] == answer.headers["slipway-version"] == first.version
        for name in ("digits", first.reference.replace("/", "~"), first.reference.replace("/", "%2F")):
            assert client.post(f"/v2/models/{name}/infer", json=v2([1, 2, 3, 4])).json() == answer.json()
        for reference in ("production", "default", "1", "1.0.0"):
            path = f"/v2/models/digits/versions/{reference}/infer"
            assert client.post(path, json=v2([1, 2, 3, 4])).json() == answer.json()
        other = client.post(f"/v2/models/digits/versions/{second.version}/infer", json=v2([1, 2, 3, 4]))
        assert other.json()["outputs"][0]["data"] == [3, 6, 9, 12]
        simple = client.post("/api/v1/models/digits/predict", json=ROW).json()
        assert (simple["outputs"], simple["version"]) == ({"y": [[2, 4, 6, 8]]}, "1.0.0")
        assert client.get("/v2/models/digits").json()["versions"] == ["1.0.0", "1.1.0"]


def test_only_those_who_may_ask_are_answered(edge: Edge, enrol: Enrol, moor: Moor, begin: Begin) -> None:
    ada, stranger, reader = enrol(), enrol(), enrol("models:read")
    moored = moor(ada, "secret", scaled(2))
    path = f"/api/v1/models/{moored.reference}/predict"
    with edge.client() as nobody, edge.client(stranger) as other, edge.client(reader) as narrow:
        said(nobody.post(path, json=ROW), 401, "unauthenticated")
        assert nobody.post(path, json=ROW).headers["www-authenticate"] == "Bearer"
        said(other.post(path, json=ROW), 404, "model_not_found")
        said(narrow.post(path, json=ROW), 403, "forbidden")
        said(nobody.post(path, json=ROW, headers={"Authorization": "Bearer slw_nonsense"}), 401, "unauthenticated")
        with begin() as session:
            session.execute(
                text("INSERT INTO endpoints (model_id, auth_required) VALUES (:id, false)"), {"id": moored.model_id}
            )
        until(lambda: nobody.post(path, json=ROW).status_code == 200)
        later = moor(ada, "secret", scaled(3), live=False)
        at = f"/v2/models/{moored.reference}"
        assert nobody.get(at).json()["versions"] == [moored.version], "a guest hears of what answers, and no more"
        said(nobody.get(f"{at}/versions/{later.version}"), 404, "version_not_found")
        said(nobody.get(f"{at}/stats"), 404, "version_not_found")
        said(other.post(f"{at}/versions/{later.version}/infer", json=v2([1, 2, 3, 4])), 404, "version_not_found")
    with edge.client(stranger) as other:
        listed = other.post("/v2/repository/index").json()
        assert moored.reference not in [each["name"] for each in listed]
    with edge.client(ada) as client:
        (line,) = client.post("/v2/repository/index").json()
        assert line == {"name": moored.reference, "version": "1.0.0", "state": "READY", "reason": ""}
        assert [each["name"] for each in client.get("/v2/models/stats").json()["model_stats"]] == [moored.reference]


def test_limits_hold_and_say_when_to_come_again(edge: Edge, enrol: Enrol, moor: Moor) -> None:
    ada, spent = enrol(plan="small"), enrol(calls=2)
    moor(ada, "limited", scaled(2))
    moor(spent, "budget", scaled(2))
    with edge.client(ada) as client:
        if time.time() % 60 > 50:  # the minute is the clock's
            time.sleep(60 - time.time() % 60)
        answers = [client.post("/api/v1/models/limited/predict", json=ROW) for _ in range(4)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429]
        said(answers[-1], 429, "rate_limited")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    with edge.client(spent) as client:
        answers = [client.post("/api/v1/models/budget/predict", json=ROW) for _ in range(3)]
        assert [each.status_code for each in answers] == [200, 200, 429]
        said(answers[-1], 429, "budget_exhausted")


def test_what_is_wrong_is_named(edge: Edge, enrol: Enrol, moor: Moor) -> None:
    ada = enrol()
    moor(ada, "strict", scaled(2))
    with edge.client(ada) as client:
        infer = "/v2/models/strict/infer"
        wrong = client.post(infer, json=v2([1, 2, 3]))
        body = said(wrong, 400, "wrong_shape")
        assert {"field", "expected", "got"} <= body["details"].keys()
        said(client.post(infer, json=v2([1, 2, 3, 4], name="z")), 400, "unknown_input")
        said(client.post(infer, content=b"{"), 400, "malformed_json")
        problem = client.post("/api/v1/models/strict/predict", content=b"{")
        assert problem.headers["content-type"] == "application/problem+json"
        said(client.get(infer), 405, "method_not_allowed")
        said(client.post("/v2/models/strict/versions/9.9.9/infer", json=v2([1, 2, 3, 4])), 404, "version_not_found")
        said(client.post("/v2/models/absent/infer", json=v2([1, 2, 3, 4])), 404, "model_not_found")
        said(client.get("/v2/nothing"), 404, "not_found")


def test_bytes_that_are_not_what_was_published_are_never_loaded(
    edge: Edge, enrol: Enrol, moor: Moor, shelf_bucket: Bucket
) -> None:
    ada = enrol()
    moored = moor(ada, "swapped", scaled(5), live=False)
    shelf_bucket.put(moored.key, scaled(6))
    with edge.client(ada) as client:
        said(client.post("/v2/models/swapped/infer", json=v2([1, 2, 3, 4])), 409, "digest_mismatch")
        shelf_bucket.put(moored.key, scaled(5))
        until(lambda: client.post("/v2/models/swapped/infer", json=v2([1, 2, 3, 4])).status_code == 200)


def test_a_version_that_is_found_unsafe_stops_answering(edge: Edge, enrol: Enrol, moor: Moor, begin: Begin) -> None:
    ada = enrol()
    moored = moor(ada, "unsafe", scaled(2))
    with edge.client(ada) as client:
        assert client.post("/v2/models/unsafe/infer", json=v2([1, 2, 3, 4])).status_code == 200
        with begin() as session:
            reviews.judge(session, moored.version_id, "malicious")
        until(lambda: client.post("/v2/models/unsafe/infer", json=v2([1, 2, 3, 4])).status_code == 423, 5)
        said(client.post("/v2/models/unsafe/infer", json=v2([1, 2, 3, 4])), 423, "quarantined")


def test_a_version_that_nobody_can_serve_keeps_no_other_from_following(
    edge: Edge, enrol: Enrol, moor: Moor, begin: Begin
) -> None:
    """A config that makes no sense is its owner's business, also where it takes the place of one that made some."""
    ada = enrol()
    odd = moor(ada, "odd", scaled(2), live=False)
    moor(ada, "steady", scaled(2))
    with edge.client(ada) as client:
        assert client.post("/v2/models/odd/infer", json=v2([1, 2, 3, 4])).status_code == 200
        assert client.post("/v2/models/steady/infer", json=v2([1, 2, 3, 4])).status_code == 200
        moor(ada, "odd", scaled(3), config={"scores": "by eye"})
        until(lambda: client.post("/v2/models/odd/infer", json=v2([1, 2, 3, 4])).status_code == 409)
        told = said(client.post("/v2/models/odd/infer", json=v2([1, 2, 3, 4])), 409, "not_servable")
        assert "config.scores" in told["error"]
        assert client.post(f"/v2/models/odd/versions/{odd.version}/infer", json=v2([1, 2, 3, 4])).status_code == 200
        newer = moor(ada, "steady", scaled(5))
        until(lambda: client.get("/v2/models/steady").json()["parameters"]["version"] == newer.version)
        said(client.get("/v2/models/a%00b/c"), 404, "not_found")


def test_predictions_are_counted_without_a_write_for_each(edge: Edge, enrol: Enrol, moor: Moor, begin: Begin) -> None:
    ada = enrol()
    moored = moor(ada, "counted", scaled(2))
    with edge.client(ada) as client:
        for _ in range(20):
            client.post("/v2/models/counted/infer", json=v2([1, 2, 3, 4]))
        stats = client.get("/v2/models/counted/stats").json()["model_stats"][0]
        assert stats["inference_stats"]["success"]["count"] == stats["inference_count"] == 20

    def noted() -> int:
        with begin() as session:
            query = "SELECT coalesce(sum(count), 0) FROM usage WHERE version_id = :id AND kind = 'prediction'"
            return int(session.execute(text(query), {"id": moored.version_id}).scalar_one())

    until(lambda: noted() == 20)


def test_a_killed_runtime_takes_its_own_requests_with_it_and_is_back_within_a_second(
    nothing_live: None, environment: dict[str, str], enrol: Enrol, moor: Moor
) -> None:
    ada = enrol()
    moor(ada, "steady", slow(60))
    with started(environment, PLANS='{"unbound": {}}') as own:
        answers: list[tuple[float, float, int]] = []
        over = threading.Event()

        def ask() -> None:
            with own.client(ada) as client:
                while not over.is_set():
                    began = time.monotonic()
                    answer = client.post("/v2/models/steady/infer", json=v2([1, 2, 3, 4]))
                    answers.append((began, time.monotonic(), answer.status_code))
                    if answer.status_code == 503:
                        assert int(answer.headers["retry-after"]) >= 1

        with own.client(ada) as client:
            client.post("/v2/models/steady/infer", json=v2([1, 2, 3, 4]))
        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            time.sleep(1.0)
            assert kill_children(own.process) >= 1
            killed_at = time.monotonic()
            time.sleep(2.0)
            over.set()
            for each in asking:
                each.result()
        failed = [each for each in answers if each[2] != 200]
        assert {status for _, _, status in failed} <= {503}
        assert len(failed) >= 1, "something was under way"
        back = min(end for began, end, status in answers if status == 200 and began > killed_at)
        assert back - killed_at < 1.0
        assert all(began < back for began, _, _ in failed)


@pytest.mark.parametrize("swaps", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_no_request_fails_while_versions_take_each_others_place(
    nothing_live: None, environment: dict[str, str], enrol: Enrol, moor: Moor, begin: Begin, swaps: int
) -> None:
    ada = enrol()
    versions = [moor(ada, "moving", scaled(factor), live=factor == 1) for factor in (1, 2, 3)]
    with started(environment, PLANS='{"unbound": {}}', SERVING_REFRESH="0.03") as own:
        over, statuses, seen = threading.Event(), [], set()

        def ask() -> None:
            with own.client(ada) as client:
                while not over.is_set():
                    answer = client.post("/v2/models/moving/infer", json=v2([1, 2, 3, 4]))
                    statuses.append(answer.status_code)
                    seen.add(answer.headers.get("slipway-version"))

        with own.client(ada) as client, ThreadPoolExecutor(2) as pool:
            client.post("/v2/models/moving/infer", json=v2([1, 2, 3, 4]))
            asking = [pool.submit(ask) for _ in range(2)]
            for turn in range(swaps):
                wanted = versions[(turn + 1) % 3]
                with begin() as session:
                    session.execute(
                        text(
                            "UPDATE deployments SET version_id = :version, id = gen_random_uuid() WHERE model_id = :model AND status = 'live'"
                        ),
                        {"version": wanted.version_id, "model": wanted.model_id},
                    )
                until(
                    lambda wanted=wanted: (
                        client.get("/v2/models/moving").json()["parameters"]["version"] == wanted.version
                    )
                )
            over.set()
            for each in asking:
                each.result()
        assert len(statuses) > swaps
        assert set(statuses) == {200}
        assert seen == {"1.0.0", "1.1.0", "1.2.0"}


def test_what_takes_too_long_is_told_so_and_what_hangs_is_ended(
    nothing_live: None, environment: dict[str, str], enrol: Enrol, moor: Moor
) -> None:
    ada = enrol()
    moor(ada, "endless", slow(300_000))
    limits = {"SERVING_TIMEOUT": "0.2", "SERVING_QUEUE": "1", "SERVING_THREADS": "1"}
    with started(environment, PLANS='{"unbound": {}}', **limits) as own, own.client(ada) as client:
        until(lambda: client.get("/v2/models/endless/ready").status_code == 200, 60)
        late = client.post("/v2/models/endless/infer", json=v2([1, 2, 3, 4]))
        assert said(late, 504, "timeout")["details"] == {"timeout": 0.2}
        before = children(own.process)
        until(lambda: children(own.process) not in ([], before))


def test_who_was_known_is_answered_while_the_database_is_away(
    nothing_live: None, environment: dict[str, str], enrol: Enrol, moor: Moor
) -> None:
    ada, spent = enrol(), enrol(calls=100)
    moor(ada, "lasting", scaled(2))
    moor(spent, "lasting", scaled(2))
    address, _, database = environment["DATABASE_URL"].rpartition("/")

    def let_in(allowed: bool) -> None:
        with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS {allowed}")
            if not allowed:
                query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                connection.execute(query, [database])

    with started(environment, PLANS='{"unbound": {}}') as own, own.client(ada) as client, own.client(spent) as other:
        for each in (client, other):
            assert each.post("/v2/models/lasting/infer", json=v2([1, 2, 3, 4])).status_code == 200
        let_in(False)
        try:
            time.sleep(REMEMBERED + 0.5)
            assert client.post("/v2/models/lasting/infer", json=v2([1, 2, 3, 4])).status_code == 200
            said(other.post("/v2/models/lasting/infer", json=v2([1, 2, 3, 4])), 503, "database_unavailable")
            assert client.get("/v2/health/ready").status_code == 503
        finally:
            let_in(True)
        until(lambda: client.get("/v2/health/ready").status_code == 200)


def test_models_that_do_not_fit_together_make_room_for_each_other(
    nothing_live: None, environment: dict[str, str], enrol: Enrol, moor: Moor
) -> None:
    ada = enrol()
    for name in ("one", "two", "three"):
        moor(ada, name, scaled(len(name)), live=False)
    limits = {"SERVING_MEMORY": "1", "SERVING_MAX_REQUEST": "1000"}
    with started(environment, PLANS='{"unbound": {}}', **limits) as own, own.client(ada) as client:
        for name in ("one", "two", "three", "one"):
            assert client.post(f"/v2/models/{name}/infer", json=v2([1, 2, 3, 4])).status_code == 200
        until(lambda: len(children(own.process)) == 1)
        said(client.post("/v2/models/one/infer", content=b"x" * 1001), 413, "request_too_large")
        said(client.post("/v2/models/one/infer", content=iter([b"x" * 600, b"x" * 600])), 413, "request_too_large")
