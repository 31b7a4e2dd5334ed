"""From refused with numbers to live in production and back: gates, approvals, deployments and signatures as people meet them."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import text

from api.deps import Services
from pipeline import store
from registry import deployments, lookup, reviews
from registry import store as registry
from registry.audit import Actor
from registry.errors import Conflict
from shared.db import Begin
from shared.signing import Signature, Signer, verify
from tests.integration.api_fixtures import Person, ada, app, join, parts, problem, served, url
from tests.integration.test_api_runs import move
from workers.context import Publishing

Submit = Callable[..., UUID]
Join = Callable[..., Person]
Publish = Callable[..., str]
PLAN = ("scan", "convert", "benchmark", "promote")
SIZE = 1234


@pytest.fixture
def model() -> str:
    return f"m-{uuid4().hex[:8]}"


@pytest.fixture
def publish(begin: Begin, parts: Services, submit: Submit, model: str) -> Publish:
    """Publish a version of the model as workers do, with a signed manifest: its number."""

    def publish(*, p99_ms: float | None = 5.3, signer: Signer | None = parts.signer) -> str:
        run_id = submit(*PLAN, model=model)
        with begin() as session:
            row = registry.upload(session, store.version_of(session, run_id))
        publishing = Publishing(parts.begin, parts.staging, parts.registry, signer or parts.signer)
        form: dict[str, Any] = {
            "name": "onnx-fp32",
            "role": "canonical",
            "key": f"sha256/aa/{'a' * 64}/model.onnx",
            "sha256": "a" * 64,
            "size": SIZE,
            "media_type": "application/octet-stream",
            "meta": {},
        }
        document = {"version": row.version, "source": {"sha256": row.sha256}, "artifacts": [form]}
        content = json.dumps(document).encode()
        manifest = publishing.write("manifest.json", content, "application/json")
        told: dict[str, Any] = {"sha256": manifest.sha256}
        told |= {"signature": publishing.sign(content)} if signer else {}
        entry = {name: getattr(manifest, name) for name in form}
        facts = {
            "scan": {"verdict": "clean"},
            "convert": {"verification": {"verified": True, "reason": None}},
            "benchmark": {"rows": [{"name": "onnx-fp32", "p99_ms": p99_ms, "speedup": 2.0, "verdict": "faster"}]},
            "promote": {"published": [form, entry], "manifest": told},
        }
        for stage, learned in facts.items():
            move(begin, run_id, stage, {"facts": learned, "files": []})
        version: str = row.version
        return version

    return publish


@pytest.fixture
def measure(begin: Begin, owner: UUID, model: str) -> Callable[[str, float], None]:
    """Record a version's accuracy on the hold-out set."""

    def measure(version: str, value: float) -> None:
        with begin() as session:
            session.execute(
                text(
                    "INSERT INTO metrics (version_id, name, value, dataset) SELECT v.id, 'accuracy', :value, 'holdout' "
                    "FROM versions v JOIN models m ON m.id = v.model_id "
                    "WHERE m.name = :model AND m.owner_id = :owner AND v.version = :version"
                ),
                {"value": value, "model": model, "owner": owner, "version": version},
            )

    return measure


@pytest.fixture
def grace(join: Join, begin: Begin, owner: UUID, model: str) -> Callable[..., Person]:
    """Somebody with rights of their own, to whom the model's owner has given some for it."""

    def grace(*granted: str, rights: tuple[str, ...] = ("models:read", "models:deploy")) -> Person:
        person = join(*rights)
        with begin() as session:
            for permission in granted:
                session.execute(
                    text(
                        "INSERT INTO grants (model_id, user_id, permission, granted_by) "
                        "SELECT id, :user, :permission, owner_id FROM models WHERE name = :model AND owner_id = :owner"
                    ),
                    {"user": person.id, "permission": permission, "model": model, "owner": owner},
                )
        return person

    return grace


@pytest.fixture
def deployer(ada: httpx2.Client, begin: Begin, owner: UUID) -> httpx2.Client:
    """Ada, who owns the model and uploaded it, with the right to deploy."""
    with begin() as session:
        session.execute(
            text("UPDATE users SET permissions = permissions || '{models:deploy}' WHERE id = :id"), {"id": owner}
        )
    return ada


def deploy(client: httpx2.Client, model: str, version: str, target: str = "production", **more: Any) -> httpx2.Response:
    return client.post(f"/api/v1/models/{model}/deployments", json={"version": version, "target": target, **more})


def gate(client: httpx2.Client, model: str, rule: str, target: str = "production", **parameters: Any) -> dict[str, Any]:
    answer = client.post(
        f"/api/v1/models/{model}/gates", json={"rule": rule, "target": target, "parameters": parameters}
    )
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def why_not(client: httpx2.Client, model: str, version: str, target: str = "production") -> dict[str, Any]:
    answer = client.get(f"/api/v1/models/{model}/versions/{version}/promotability", params={"target": target})
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def live(client: httpx2.Client, model: str, target: str = "production") -> list[str]:
    answer = client.get(f"/api/v1/models/{model}/deployments", params={"target": target, "status": "live"})
    return [each["version"] for each in answer.json()["items"]]


def test_refused_with_numbers_then_measured_approved_deployed_and_rolled_back(
    deployer: httpx2.Client,
    grace: Callable[..., Person],
    model: str,
    publish: Publish,
    measure: Callable[[str, float], None],
) -> None:
    first = publish()
    assert deploy(deployer, model, first).status_code == 201
    measure(first, 0.92)

    second = publish(p99_ms=5.3)
    latency = gate(deployer, model, "p99_below", ms=4)
    gate(deployer, model, "metric_not_worse", metric="accuracy", by=0.01)
    gate(deployer, model, "approved")
    gate(deployer, model, "signed", target="*")
    refused = problem(deploy(deployer, model, second), 409, "gate_failed")
    ada = deployer.get("/api/v1/me").json()["username"]
    wishes = [
        "p99 of onnx-fp32 on cpu: 5.3 ms → ≤ 4 ms",
        f"accuracy: unknown (none was recorded for {second}) → ≥ 0.91",
        f"approvals for production by people other than {ada}: 0 → ≥ 1",
    ]
    assert all(wish in str(refused["detail"]) for wish in wishes)
    assert [(each["rule"], each["state"]) for each in refused["details"]] == [  # type: ignore[attr-defined]
        ("p99_below", "failed"),
        ("metric_not_worse", "unknown"),
        ("approved", "failed"),
    ]
    assert why_not(deployer, model, second)["to_change"] == wishes
    assert why_not(deployer, model, second, "staging")["promotable"]
    assert live(deployer, model) == [first]

    gone = deployer.delete(f"/api/v1/models/{model}/gates/{latency['id']}")
    assert gone.status_code == 204
    measure(second, 0.91)
    approvals = f"/api/v1/models/{model}/versions/{second}/approvals"
    problem(deployer.post(approvals, json={}), 403, "own_upload")
    other = grace("models:deploy").client
    address = deployer.get(f"/api/v1/models/{model}").json()["id"]
    approved = other.post(approvals.replace(model, address), json={"comment": "looked at the hold-out set"})
    assert approved.status_code == 201, approved.text
    assert why_not(deployer, model, second)["promotable"]

    done = deploy(deployer, model, second, config={"replicas": 2}, reason="better")
    assert done.status_code == 201, done.text
    body = done.json()
    assert deployer.get(done.headers["location"]).json() == body
    assert (body["status"], body["config"], body["note"], body["deployed_by"]) == (
        "live",
        {"replicas": 2},
        "better",
        ada,
    )
    assert {each["rule"]: each["state"] for each in body["gates"]} == {
        "scan_clean": "passed",
        "published": "passed",
        "available": "passed",
        "metric_not_worse": "passed",
        "approved": "passed",
        "signed": "passed",
    }
    assert live(deployer, model) == [second]
    problem(deploy(deployer, model, second, config={"replicas": 2}), 409, "already_live")

    reason = {"reason": "confuses 3 and 8"}
    back = deployer.post(f"/api/v1/models/{model}/deployments/{body['id']}:rollback", json=reason)
    assert back.status_code == 201, back.text
    assert back.json()["version"] == first
    problem(deployer.post(f"/api/v1/models/{model}/deployments/{body['id']}:rollback", json=reason), 409, "not_live")
    problem(
        deployer.post(f"/api/v1/models/{model}/targets/production:rollback", json=reason),
        409,
        "nothing_to_roll_back_to",
    )
    history = deployer.get(f"/api/v1/models/{model}/deployments", params={"target": "production"}).json()["items"]
    assert [(each["version"], each["status"], each["reason"]) for each in history] == [
        (first, "live", None),
        (second, "rolled_back", "confuses 3 and 8"),
        (first, "superseded", f"{second} took its place"),
    ]
    assert history[1]["ended_by"] == ada


def test_an_approval_that_was_taken_back_counts_no_longer(
    deployer: httpx2.Client, grace: Callable[..., Person], join: Join, model: str, publish: Publish
) -> None:
    version = publish()
    gate(deployer, model, "approved", target="*")
    address = f"/api/v1/models/{deployer.get(f'/api/v1/models/{model}').json()['id']}/versions/{version}/approvals"
    reviewer = grace("models:read", rights=("models:review", "models:read")).client
    reader = grace("models:read", rights=("models:read",)).client
    ungranted = grace("models:read").client
    problem(reader.post(address, json={}), 403, "forbidden")
    problem(ungranted.post(address, json={}), 403, "not_granted")
    problem(join("models:review").client.post(address, json={}), 404, "model_not_found")
    given = reviewer.post(address, json={"target": "staging"}).json()
    assert reviewer.post(address, json={"target": "staging"}).json()["id"] == given["id"]
    assert why_not(deployer, model, version, "staging")["promotable"]
    assert not why_not(deployer, model, version, "production")["promotable"]
    problem(deployer.delete(f"{address}/{given['id']}"), 403, "not_your_approval")
    assert reviewer.delete(f"{address}/{given['id']}").json()["revoked_at"]
    problem(reviewer.delete(f"{address}/{given['id']}"), 404, "approval_not_found")
    assert not why_not(deployer, model, version, "staging")["promotable"]
    assert [bool(each["revoked_at"]) for each in deployer.get(address).json()["items"]] == [True]


def test_a_gate_that_cannot_be_judged_says_unknown_and_refuses(
    deployer: httpx2.Client, model: str, publish: Publish
) -> None:
    version = publish(p99_ms=None)
    gate(deployer, model, "p99_below", ms=100)
    gate(deployer, model, "licence_in", licences=["MIT"])
    refused = problem(deploy(deployer, model, version), 409, "gate_failed")
    states = [(each["rule"], each["state"], each["found"]) for each in refused["details"]]  # type: ignore[attr-defined]
    assert states == [("p99_below", "unknown", None), ("licence_in", "unknown", None)]
    assert deploy(deployer, model, version, "staging").status_code == 201


def test_gates_of_all_models_are_for_admins_and_hold_for_everybody(
    deployer: httpx2.Client, join: Join, model: str, publish: Publish
) -> None:
    version = publish()
    admin = join("admin").client
    wish = {"rule": "size_below", "parameters": {"bytes": SIZE - 1}, "target": "development"}
    problem(deployer.post("/api/v1/gates", json=wish), 403, "forbidden")
    made = admin.post("/api/v1/gates", json=wish).json()
    try:
        assert made["id"] in [each["id"] for each in deployer.get(f"/api/v1/models/{model}/gates").json()["items"]]
        refused = problem(deploy(deployer, model, version, "development"), 409, "gate_failed")
        assert f"{SIZE} bytes → ≤ {SIZE - 1} bytes" in str(refused["detail"])
        problem(deployer.delete(f"/api/v1/models/{model}/gates/{made['id']}"), 404, "gate_not_found")
    finally:
        assert admin.delete(f"/api/v1/gates/{made['id']}").status_code == 204
    assert deploy(deployer, model, version, "development").status_code == 201
    nonsense = {"rule": "p99_below", "parameters": {"ms": -1}}
    problem(deployer.post(f"/api/v1/models/{model}/gates", json=nonsense), 422, "invalid_gate")
    rules = deployer.get("/api/v1/gates/rules").json()
    assert "signed" in [each["name"] for each in rules["items"]]
    assert rules["always"] == ["scan_clean", "published", "available"]


def test_two_who_deploy_at_once_leave_one_live_and_a_history_without_gaps(
    deployer: httpx2.Client, model: str, publish: Publish
) -> None:
    versions = [publish() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda version: deploy(deployer, model, version), versions))
    assert [answer.status_code for answer in answers] == [201] * 4
    history = deployer.get(f"/api/v1/models/{model}/deployments").json()["items"]
    assert [each["status"] for each in history] == ["live", "superseded", "superseded", "superseded"]
    assert [each["previous"] for each in history] == [*(each["id"] for each in history[1:]), None]


def test_a_version_that_is_condemned_is_taken_down_and_what_was_before_can_go_up_again(
    deployer: httpx2.Client, begin: Begin, parts: Services, join: Join, model: str, publish: Publish
) -> None:
    first, second = publish(), publish()
    for version in (first, second):
        deploy(deployer, model, version)
    (down,) = deployer.get(f"/api/v1/models/{model}/deployments?status=live").json()["items"]
    with begin() as session:
        (row,) = deployments.live(session, model_id=UUID(down["links"]["version"].split("/")[4]))
        reviews.judge(session, row.version_id, "malicious")
        assert deployments.live(session, version_id=row.version_id) == []
    ended = deployer.get(down["links"]["self"]).json()
    assert (ended["status"], ended["ended_by"]) == ("ended", None)
    assert ended["reason"] == "The verdict of the version became malicious."
    problem(deploy(deployer, model, second), 409, "gate_failed")
    wish = {"reason": "1.1.0 was condemned"}
    back = deployer.post(f"/api/v1/models/{model}/targets/production:rollback", json=wish)
    assert (back.status_code, back.json()["version"]) == (201, first)
    newest, *_ = join("admin").client.get("/api/v1/audit", params={"subject": down["id"]}).json()["items"]
    assert (newest["action"], newest["actor"]) == ("deployment.ended", "slipway")


def test_reviewers_and_a_rollback_at_once_wait_for_each_other_but_never_in_a_circle(
    begin: Begin, submit: Submit, owner: UUID, join: Join, model: str
) -> None:
    """Many versions hold one file; each of the three changes several of them, and Postgres would end one in a deadlock."""
    sha256 = uuid4().hex * 2
    with begin() as session:
        runs = [submit(model=model, sha256=sha256) for _ in range(7)]
        # As they lie in the table, which is not the order of locks.
        ids = sorted((store.version_of(session, run_id) for run_id in runs), reverse=True)
        row = lookup.find_model(session, lookup.Viewer(user_id=owner), model)
    ada, grace, start = Actor(id=owner, name="ada"), join("models:review"), Barrier(4)

    def reset() -> UUID:
        with begin() as session:
            session.execute(text("DELETE FROM condemned"))
            session.execute(text("DELETE FROM deployments WHERE model_id = :id"), {"id": row.id})
            good = "UPDATE versions SET verdict = 'clean', published_at = now(), waived_until = now() + interval '1 day' WHERE id = :id"
            was = (
                "INSERT INTO deployments (model_id, version_id, target, deployed_by, status, ended_at, deployed_at)"
                " VALUES (:model, :id, 'production', :by, :status, :ended, now() + make_interval(secs => :place))"
            )
            for place, version_id in enumerate(ids):
                live = version_id == ids[-1]
                about = {"model": row.id, "id": version_id, "by": owner, "place": place}
                about |= {"status": "live" if live else "superseded", "ended": None if live else datetime.now(UTC)}
                session.execute(text(good), {"id": version_id})
                session.execute(text(was), about)
            version, until = registry.upload(session, ids[0]), datetime.now(UTC) + timedelta(days=1)
            return reviews.grant(
                session, version, sha256=sha256, rule="a.rule", reason="fine", by=grace.id, expires_at=until
            )

    def roll_back() -> None:
        with suppress(Conflict), begin() as session:  # when the condemnation was first, nothing is left
            start.wait()
            there = lookup.find_model(session, lookup.Viewer(user_id=owner), model, lock=True)
            deployments.roll_back(session, there, "production", reason="slow", actor=ada)

    def condemn() -> None:
        with begin() as session:
            start.wait()
            reviews.condemn(session, sha256, reason="evil", by=owner, actor=ada, version_id=ids[0])

    def revoke(waiver_id: UUID) -> None:
        with begin() as session:
            start.wait()
            reviews.revoke(session, waiver_id)

    with ThreadPoolExecutor(3) as pool:
        for _ in range(12):
            waiver_id = reset()
            at_once = [pool.submit(roll_back), pool.submit(condemn), pool.submit(revoke, waiver_id)]
            with begin() as session:
                registry.lock_version(session, ids[3])  # each gets some of the others, and waits
                start.wait()
                time.sleep(0.1)
            for done in at_once:
                done.result()
            with begin() as session:
                assert deployments.live(session, model_id=row.id) == []


def test_a_deployment_is_ended_by_who_may_and_once(
    deployer: httpx2.Client, grace: Callable[..., Person], model: str, publish: Publish
) -> None:
    version = publish()
    problem(deploy(deployer, model, version, config={"much": "x" * 16384}), 422, "invalid_field")
    body = {"model_name": model, "version": f"v{version}", "deployment_target": "staging", "deployed_by": "ci"}
    made = deployer.post("/api/v1/deploy", json=body)
    assert made.status_code == 201, made.text
    address = f"{made.json()['links']['self']}:end"
    problem(grace("models:read").client.post(address, json={"reason": "no"}), 403, "not_granted")
    ended = deployer.post(address, json={"reason": "over"}).json()
    assert (ended["status"], ended["reason"]) == ("ended", "over")
    problem(deployer.post(address, json={"reason": "over"}), 409, "not_live")
    problem(
        deployer.post(f"/api/v1/models/{model}/targets/staging:rollback", json={"reason": "again"}),
        409,
        "nothing_to_roll_back_to",
    )


def test_deployments_of_all_models_are_those_one_may_see_page_by_page(
    deployer: httpx2.Client, join: Join, model: str, publish: Publish
) -> None:
    version = publish()
    for target in ("development", "staging", "production"):
        deploy(deployer, model, version, target)
    pages, cursor = [], None
    while cursor is not None or not pages:
        page = deployer.get("/api/v1/deployments", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        pages.append([each["target"] for each in page["items"]])
        cursor = page["next"]
    assert pages == [["production", "staging"], ["development"]]
    assert join().client.get("/api/v1/deployments").json()["items"] == []


def test_what_was_published_is_signed_and_anybody_can_verify_it(
    deployer: httpx2.Client, begin: Begin, model: str, publish: Publish
) -> None:
    version = publish()
    found = deployer.get(f"/api/v1/models/{model}/versions/{version}/signatures").json()
    assert (found["sealed"], found["fault"]) == (True, None)
    (one,) = found["items"]
    assert (one["manifest"], one["valid"]) == ("manifest.json", True)
    (key,) = deployer.get("/api/v1/keys/signing").json()["items"]
    assert (key["key_id"], key["public_key"], key["current"]) == (one["key_id"], one["public_key"], True)

    address = f"/api/v1/models/{model}/versions/{version}/download"
    offer = deployer.get(address, params={"artifact": "manifest.json"}).json()
    content = httpx2.get(offer["url"]).content
    assert hashlib.sha256(content).hexdigest() == one["sha256"]
    signature = Signature(key_id=one["key_id"], value=one["signature"])
    assert verify(content, signature, [key["public_key"]])
    assert len(base64.b64decode(one["signature"])) == 64

    gate(deployer, model, "signed")
    assert why_not(deployer, model, version)["promotable"]
    with begin() as session:  # somebody in the database exchanges a file
        session.execute(
            text("UPDATE artifacts SET sha256 = repeat('b', 64) WHERE name = 'onnx-fp32' AND version_id = :id"),
            {"id": deployer.get(f"/api/v1/models/{model}/versions/{version}").json()["id"]},
        )
    assert why_not(deployer, model, version)["to_change"] == [
        "signature of the manifest: no signed manifest names onnx-fp32 as it is → valid"
    ]


@pytest.mark.parametrize(
    ("signer", "says"),
    [(None, "manifest.json is not signed"), (Signer("x" * 32), "is not trusted here")],
)
def test_what_is_unsigned_or_signed_by_strangers_is_not_sealed(
    deployer: httpx2.Client, model: str, publish: Publish, signer: Signer | None, says: str
) -> None:
    version = publish(signer=signer)
    found = deployer.get(f"/api/v1/models/{model}/versions/{version}/signatures").json()
    assert (found["sealed"], [each["valid"] for each in found["items"]]) == (False, [False] if signer else [])
    assert says in found["fault"]
    gate(deployer, model, "signed")
    problem(deploy(deployer, model, version), 409, "gate_failed")
