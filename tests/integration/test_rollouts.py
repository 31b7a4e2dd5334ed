"""A candidate beside what is live: begun, counted, decided by its figures, by people or by what else becomes of the target."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx2
import pytest

from api.deps import Services
from pipeline import launching
from registry import reviews, rollouts
from registry.rollouts import LATENCY_BUCKETS, Arm, Tally
from registry.verdicts import bucket
from shared.db import Begin
from tests.integration.api_fixtures import Person, ada, app, join, parts, problem, served, url
from tests.integration.test_promotion import deploy, deployer, gate, live, model, publish
from workers.rollouts import settle

Publish = Callable[..., str]
Count = Callable[..., None]


@pytest.fixture
def address(model: str) -> str:
    return f"/api/v1/models/{model}/rollouts"


@pytest.fixture
def two(deployer: httpx2.Client, model: str, publish: Publish) -> tuple[str, str]:
    """What is live on production, and what shall be."""
    first, second = publish(), publish()
    assert deploy(deployer, model, first, config={"replicas": 2}).status_code == 201
    return first, second


@pytest.fixture
def count(begin: Begin) -> Count:
    """Note what serving would have counted."""

    def count(rollout: dict[str, Any], arm: Arm, requests: int, errors: int = 0, ms: float = 4.0) -> None:
        latencies = [0] * (len(LATENCY_BUCKETS) + 1)
        latencies[bucket(ms / 1000)] = requests
        came = Tally(requests=requests, errors=errors, seconds=requests * ms / 1000, latencies=latencies)
        with begin() as session:
            rollouts.add(session, UUID(rollout["id"]), arm, came)

    return count


def start(client: httpx2.Client, address: str, version: str, **more: Any) -> dict[str, Any]:
    answer = client.post(address, json={"version": version, "target": "production", **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert client.get(answer.headers["location"]).json()["id"] == made["id"]
    return made


def audited(join: Callable[..., Person], subject: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = join("admin").client.get("/api/v1/audit", params={"subject": subject}).json()["items"]
    return items


def test_a_canary_that_is_not_worse_takes_the_place_of_what_is_live(
    deployer: httpx2.Client,
    address: str,
    model: str,
    two: tuple[str, str],
    count: Count,
    begin: Begin,
    parts: Services,
    join: Callable[..., Person],
) -> None:
    first, second = two
    made = start(deployer, address, second, weight=0.2, rules={"latency_ms": 50}, note="new cameras")
    assert (made["status"], made["decision"], made["control"], made["candidate"]) == ("running", "keep_on", *two)
    count(made, "control", 3000, errors=30)
    count(made, "control", 1000, errors=10, ms=300)
    count(made, "candidate", 400, errors=4)
    assert settle(begin, parts.trust) == 0
    assert live(deployer, model) == [first]

    seen = deployer.get(made["links"]["self"]).json()
    assert seen["verdict"].startswith("Undecided: errors 1 % (4 of 400) against 1 % (40 of 4,000); answers above 50 ms")
    assert seen["arms"]["control"] == {
        "requests": 4000,
        "errors": 40,
        "slow": 0,
        "right": 0,
        "wrong": 0,
        "mean_ms": 78.0,
        "p50_ms": pytest.approx(4, rel=0.4),
        "p95_ms": pytest.approx(300, rel=0.63),
        "p99_ms": pytest.approx(300, rel=0.63),
    }
    errors = seen["metrics"][0]
    assert errors["candidate"]["low"] < 0.01 < errors["candidate"]["high"]
    assert errors["difference"]["low"] < 0 < errors["difference"]["high"]

    count(made, "candidate", 6000, errors=55)
    assert settle(begin, parts.trust) == 1
    assert live(deployer, model) == [second]
    ended = deployer.get(made["links"]["self"]).json()
    assert (ended["status"], ended["ended_by"], ended["decision"]) == ("promoted", None, None)
    assert ended["reason"].startswith("The candidate is not worse than allowed: errors 0.922 % (59 of 6,400) against")
    assert ended["metrics"][0]["not_worse"]["evidence"] >= ended["metrics"][0]["not_worse"]["needed"]
    (deployed,) = deployer.get(f"/api/v1/models/{model}/deployments?status=live").json()["items"]
    assert (deployed["config"], deployed["deployed_by"]) == ({"replicas": 2}, made["started_by"])
    told, begun = audited(join, made["id"])
    assert (begun["action"], begun["actor"]) == ("rollout.started", made["started_by"])
    assert (told["action"], told["actor"], told["details"]["reason"]) == (
        "rollout.promoted",
        "slipway",
        ended["reason"],
    )
    assert told["details"]["candidate_came"]["errors"] == 59
    assert audited(join, deployed["id"])[0]["actor"] == "slipway"


def test_a_candidate_that_fails_more_often_is_rolled_back_and_counts_no_longer(
    deployer: httpx2.Client, address: str, model: str, two: tuple[str, str], count: Count, begin: Begin, parts: Services
) -> None:
    made = start(deployer, address, two[1], kind="ab", weight=0.5)
    count(made, "control", 5000, errors=50)
    count(made, "candidate", 5000, errors=110)
    with ThreadPoolExecutor(2) as relays:
        assert sorted(relays.map(lambda _: settle(begin, parts.trust), range(2))) == [0, 1]
    count(made, "candidate", 100)
    ended = deployer.get(made["links"]["self"]).json()
    assert (ended["status"], ended["arms"]["candidate"]["requests"]) == ("rolled_back", 5000)
    assert ended["reason"].startswith("The candidate is worse: errors 2.2 % (110 of 5,000) against 1 % (50 of 5,000);")
    assert live(deployer, model) == [two[0]]
    problem(deployer.post(f"{address}/{made['id']}:stop", json={"reason": "late"}), 409, "rollout_ended")

    broken = start(deployer, address, two[1])
    count(broken, "candidate", 20, errors=20)
    assert settle(begin, parts.trust) == 1
    assert "more than the limit of 50 %" in deployer.get(broken["links"]["self"]).json()["reason"]
    listed = deployer.get(address, params={"status": "rolled_back"}).json()["items"]
    assert [each["id"] for each in listed] == [broken["id"], made["id"]]


def test_the_gates_count_when_it_begins_and_again_when_it_has_won(
    deployer: httpx2.Client, address: str, model: str, two: tuple[str, str], count: Count, begin: Begin, parts: Services
) -> None:
    too_slow = gate(deployer, model, "p99_below", ms=1)
    refused = deployer.post(address, json={"version": two[1], "target": "production"})
    problem(refused, 409, "gate_failed")
    assert deployer.delete(f"/api/v1/models/{model}/gates/{too_slow['id']}").status_code == 204
    made = start(deployer, address, two[1], rules={"max_hours": 1, "min_requests": 1})
    gate(deployer, model, "p99_below", ms=1)
    problem(deployer.post(f"{address}/{made['id']}:promote", json={"reason": "now"}), 409, "gate_failed")
    assert deployer.get(made["links"]["self"]).json()["status"] == "running"
    for arm in ("control", "candidate"):
        count(made, arm, 5000)
    assert settle(begin, parts.trust) == 1
    ended = deployer.get(made["links"]["self"]).json()
    assert ended["status"] == "stopped"
    assert f"But {two[1]} may not go to production. It would take: p99 of onnx-fp32" in ended["reason"]
    assert live(deployer, model) == [two[0]]


def test_whatever_else_becomes_of_the_target_or_of_a_version_stops_it(
    deployer: httpx2.Client,
    address: str,
    model: str,
    two: tuple[str, str],
    publish: Publish,
    begin: Begin,
    join: Callable[..., Person],
) -> None:
    first, second = two
    third = publish()
    mine = f"/api/v1/models/{model}"

    def stopped_by(action: Callable[[], httpx2.Response]) -> str:
        made = start(deployer, address, third)
        answer = action()
        assert answer.status_code in (200, 201), answer.text
        ended = deployer.get(made["links"]["self"]).json()
        assert ended["status"] == "stopped"
        assert audited(join, made["id"])[0]["action"] == "rollout.stopped"
        reason: str = ended["reason"]
        return reason

    assert stopped_by(lambda: deploy(deployer, model, second)) == f"{second} was deployed there"
    back = {"reason": "confuses 3 and 8"}
    target = f"{mine}/targets/production:rollback"
    assert stopped_by(lambda: deployer.post(target, json=back)) == "production was rolled back: confuses 3 and 8"
    here = deployer.get(f"{mine}/deployments?status=live").json()["items"][0]["links"]["self"]
    assert stopped_by(lambda: deployer.post(f"{here}:end", json=back)) == f"{first} was taken down: confuses 3 and 8"
    problem(deployer.post(address, json={"version": third, "target": "production"}), 409, "nothing_live")
    deploy(deployer, model, first)
    archive = {"status": "archived", "reason": "old"}
    assert stopped_by(lambda: deployer.put(f"{mine}/versions/{third}/status", json=archive)) == f"{third} was archived"

    made = start(deployer, address, second)
    with begin() as session:
        row = rollouts.find(session, UUID(made["links"]["model"].split("/")[-1]), UUID(made["id"]))
        reviews.judge(session, row.candidate_id, "malicious")
    ended = deployer.get(made["links"]["self"]).json()
    assert (ended["status"], ended["reason"]) == ("stopped", "The verdict of the version became malicious.")
    assert live(deployer, model) == [first]


def test_people_begin_stop_and_promote_within_what_makes_sense(
    deployer: httpx2.Client, address: str, model: str, two: tuple[str, str], join: Callable[..., Person]
) -> None:
    first, second = two
    wish = {"version": second, "target": "production"}
    problem(deployer.post(address, json=wish | {"version": first}), 409, "already_live")
    problem(deployer.post(address, json=wish | {"weight": 1}), 422, "invalid_rollout")
    shadow = {"kind": "shadow", "weight": 1, "rules": {"use_feedback": True}}
    problem(deployer.post(address, json=wish | shadow), 422, "invalid_rollout")
    problem(deployer.post(address, json=wish | {"rules": {"alpha": 0}}), 422, "invalid_field")
    problem(join("models:read").client.post(address, json=wish), 403, "forbidden")

    made = start(deployer, address, second, kind="shadow", weight=1)
    taken = problem(deployer.post(address, json=wish), 409, "rollout_running")
    assert taken["details"] == {"id": made["id"]}
    held = deployer.delete(f"/api/v1/models/{model}/versions/{second}")
    if held.status_code != 403:
        problem(held, 409, "version_in_rollout")
    stopped = deployer.post(f"{address}/{made['id']}:stop", json={"reason": "cameras are late"}).json()
    assert (stopped["status"], stopped["ended_by"]) == ("stopped", made["started_by"])

    again = start(deployer, address, second)
    done = deployer.post(f"{address}/{again['id']}:promote", json={"reason": "cameras are here"}).json()
    assert (done["status"], done["reason"]) == ("promoted", "cameras are here")
    assert live(deployer, model) == [second]
    problem(deployer.get(f"{address}/{'0' * 8}-0000-4000-8000-{'0' * 12}"), 404, "rollout_not_found")


def test_feedback_counts_once_for_the_version_and_for_its_side(
    deployer: httpx2.Client,
    address: str,
    model: str,
    two: tuple[str, str],
    begin: Begin,
    parts: Services,
    join: Callable[..., Person],
) -> None:
    made = start(deployer, address, two[1], kind="ab", weight=0.5, rules={"use_feedback": True})
    with begin() as session:
        row = rollouts.find(session, UUID(made["links"]["model"].split("/")[-1]), UUID(made["id"]))
    side: dict[str, Any] = {"rollout_id": row.id, "arm": "candidate"}
    seven = parts.receipts.issue(row.candidate_id, **side, label="seven")
    unlabelled = parts.receipts.issue(row.control_id, rollout_id=row.id, arm="control")

    def give(client: httpx2.Client, body: Any) -> httpx2.Response:
        return client.post("/api/v1/feedback", json=body)

    stranger = join("models:predict").client
    problem(give(stranger, {"prediction": seven, "correct": True}), 404, "model_not_found")
    problem(give(deployer, {"prediction": seven}), 422, "invalid_field")
    problem(give(deployer, {"prediction": seven[:-4] + "AAAA", "correct": True}), 422, "invalid_prediction")
    problem(give(deployer, {"prediction": unlabelled, "label": "seven"}), 422, "prediction_without_label")
    first = give(deployer, {"prediction": seven, "label": "seven"}).json()
    assert (first["recorded"], first["right"], first["refused"]) == (1, 1, [])
    problem(give(deployer, {"prediction": seven, "label": "nine"}), 409, "prediction_judged")

    more = [parts.receipts.issue(row.candidate_id, **side, label="nine") for _ in range(2)]
    batch = [{"prediction": each, "label": "four"} for each in (*more, more[0], seven)]
    answer = give(deployer, [*batch, {"prediction": unlabelled, "correct": True}, {"prediction": "x", "correct": True}])
    body = answer.json()
    assert (body["recorded"], body["right"], body["wrong"]) == (3, 1, 2)
    refused = [(each["index"], each["code"]) for each in body["refused"]]
    assert refused == [(2, "prediction_judged"), (3, "prediction_judged"), (5, "invalid_prediction")]

    arms = deployer.get(made["links"]["self"]).json()["arms"]
    assert [(arm["right"], arm["wrong"]) for arm in (arms["control"], arms["candidate"])] == [(1, 0), (1, 2)]
    usage = deployer.get(f"/api/v1/models/{model}/usage").json()["by_version"]
    assert {each["version"]: each["accuracy"] for each in usage} == {
        two[0]: 1.0,
        two[1]: pytest.approx(1 / 3, abs=1e-6),
    }
