"""What is not yours does not exist: every address with an id, asked for by strangers."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import insert

from api.reference import METHODS
from pipeline import store
from registry import deployments, lookup, people, reviews, rollouts
from registry.audit import Actor
from registry.lookup import Viewer
from registry.rollouts import Rules
from registry.tables import alias_moves, aliases
from shared.db import Begin
from tests.integration.api_fixtures import (
    Person,
    ada,
    anonymous,
    app,
    join,
    parts,
    problem,
    served,
    url,
)

Join = Callable[..., Person]
BODIES = {
    "variants": {"variants": ["onnx-fp16"]},
    "cpu": {"variant": "onnx-fp16"},
    "metrics": {"metrics": [{"name": "accuracy", "value": 0.9}]},
    "status": {"status": "training"},
    "activate": {"version": "1.0.0"},
    "production": {"version": "1.0.0"},
    "1.0.0": {"release_notes": "theirs"},
    "gates": {"rule": "signed"},
    "deployments": {"version": "1.0.0", "target": "staging"},
    "rollback": {"reason": "not theirs"},
    "end": {"reason": "not theirs"},
    "rollouts": {"version": "1.0.0", "target": "staging"},
    "stop": {"reason": "not theirs"},
    "promote": {"reason": "not theirs"},
    "lineage": {"relation": "code", "reference": "https://git.example/code"},
    "rating": {"score": 5},
    "licence-check": {"licence": "MIT"},
    "exports": {"format": "triton"},
}
"""What an address wants to be told before it looks whose it is, by its last part."""
QUERIES = {"compare": "?versions=1.0.0&versions=1.1.0"}


@pytest.fixture
def ids(submit: Callable[..., UUID], begin: Begin, owner: UUID, ada: httpx2.Client) -> dict[str, str]:
    """A value of ada's for every id that a path may have."""
    run_id = submit("scan", "promote", model="theirs")
    submit(model="theirs")
    with begin() as session:
        row, _ = store.find(session, Viewer(user_id=owner), run_id)
        pointed = {"model_id": row.model_id, "name": "production", "version_id": row.version_id}
        session.execute(insert(aliases).values(pointed))
        session.execute(insert(alias_moves).values(pointed))
        model = lookup.find_model(session, Viewer(user_id=owner), str(row.model_id))
        version = lookup.find_version(session, row.model_id, "1.0.0")
        by = Actor(id=owner, name="ada")
        deployed = deployments.deploy(session, model, version, "staging", config={}, note="", evidence=[], actor=by)
        candidate = lookup.find_version(session, row.model_id, "1.1.0")
        rollout = rollouts.start(
            session,
            model,
            "staging",
            control=deployed,
            candidate=candidate,
            kind="canary",
            weight=0.1,
            sticky="none",
            rules=Rules(),
            note="",
            actor=by,
        )
    key = ada.post("/api/v1/keys", json={"name": "mine"}).json()["id"]
    assert ada.patch(f"/api/v1/models/{row.model_id}", json={"card": "# Mine"}).status_code == 200
    return {
        "run_id": str(run_id),
        "stage": "scan",
        "model": str(row.model_id),
        "version": "1.0.0",
        "alias": "production",
        "device": "cpu",
        "key_id": key,
        "edge_id": "00000000-0000-4000-8000-000000000000",
        "version_id": str(row.version_id),
        "deployment_id": str(deployed.id),
        "rollout_id": str(rollout.id),
        "target": "staging",
        "gate_id": "00000000-0000-4000-8000-000000000000",
        "approval_id": "00000000-0000-4000-8000-000000000000",
        "waiver_id": "00000000-0000-4000-8000-000000000000",
        "user": str(owner),
        "role": "reader",
        "username": "nobody",
        "permission": "models:download",
        "user_id": str(owner),
    }


def addresses(app: FastAPI) -> list[tuple[str, str]]:
    return [
        (method, path)
        for path, methods in app.openapi()["paths"].items()
        for method in METHODS
        if method in methods and "{" in path
    ]


def reviewers_only(path: str) -> bool:
    return path.startswith(("/api/v1/quarantine", "/api/v1/waivers"))


def admins_only(path: str) -> bool:
    return path.startswith(("/api/v1/gates/", "/api/v1/roles", "/api/v1/users/{user_id}/", "/api/v1/users/{user}/"))


def call(client: httpx2.Client, method: str, path: str) -> httpx2.Response:
    last = re.split("[/:]", path)[-1]
    sends = method in ("post", "put", "patch")
    otherwise = {"name": "other"} if path.startswith("/api/v1/keys/") else {}
    parts: dict[str, Any] = {"json": BODIES.get(last, otherwise)} if sends else {}
    return client.request(method.upper(), path + QUERIES.get(last, ""), **parts)


def test_every_address_with_an_id_is_404_for_strangers_and_401_without_a_token(
    app: FastAPI, ids: dict[str, str], ada: httpx2.Client, anonymous: httpx2.Client, join: Join
) -> None:
    stranger = join(*(right for right in people.PERMISSIONS if right not in ("admin", "models:review"))).client
    walked = addresses(app)
    assert len(walked) >= 10
    for method, path in walked:
        address = path.format(**ids)
        theirs = call(stranger, method, address)
        closed = reviewers_only(path) or admins_only(path)
        assert theirs.status_code == (403 if closed else 404), (method, path, theirs.text)
        assert theirs.headers["content-type"] == "application/problem+json"
        problem(call(anonymous, method, address), 401, "unauthenticated")
    later = (
        "download",
        "events",
        "bundle",
        "import",
        "triton",
    )  # what there is only of a version that has come further
    found = [path for method, path in walked if method == "get" and not path.endswith(later)]
    for path in found:
        if reviewers_only(path) or admins_only(path):
            problem(ada.get(path.format(**ids)), 403, "forbidden")  # not even their owner's
            continue
        # the same addresses are there for their owner, so the 404 meant the stranger
        assert call(ada, "get", path.format(**ids)).status_code == 200, path


def test_a_stranger_s_404_says_what_an_unknown_id_s_says(join: Join, ids: dict[str, str]) -> None:
    stranger = join().client
    unknown = "00000000-0000-4000-8000-000000000000"
    theirs = problem(stranger.get(f"/api/v1/runs/{ids['run_id']}"), 404, "run_not_found")
    nobodys = problem(stranger.get(f"/api/v1/runs/{unknown}"), 404, "run_not_found")
    assert str(theirs["detail"]).replace(ids["run_id"], unknown) == nobodys["detail"]


def test_lists_hold_nothing_of_others(join: Join, ids: dict[str, str], ada: httpx2.Client) -> None:
    stranger = join().client
    for path in ("/api/v1/runs", "/api/v1/models", "/api/v1/keys"):
        assert stranger.get(path).json()["items"] == []
        assert len(ada.get(path).json()["items"]) >= 1


def test_an_admin_sees_what_is_everybodys(join: Join, ids: dict[str, str]) -> None:
    admin = join("admin").client
    assert admin.get(f"/api/v1/runs/{ids['run_id']}").status_code == 200
    assert admin.get(f"/api/v1/models/{ids['model']}/versions/1.0.0").status_code == 200


def test_rights_that_are_missing_are_403_before_anything_is_looked_up(join: Join, ids: dict[str, str]) -> None:
    reader = join("models:read").client
    problem(reader.post(f"/api/v1/runs/{ids['run_id']}/cancel"), 403, "forbidden")
    problem(reader.get(f"/api/v1/models/{ids['model']}/versions/1.0.0/download"), 403, "forbidden")
    nobody = join("models:predict").client
    for path in ("/api/v1/runs", "/api/v1/models", f"/api/v1/runs/{ids['run_id']}/events"):
        problem(nobody.get(path), 403, "forbidden")


def test_a_reviewer_sees_what_is_in_quarantine_and_nothing_else_of_others(
    app: FastAPI, join: Join, ids: dict[str, str], begin: Begin
) -> None:
    reviewer = join("models:review", "models:read").client
    bodies = {
        "condemn": {"reason": "not theirs to condemn"},
        "waivers": {"rule": "r", "reason": "not theirs", "days": 1},
    }
    for method, path in addresses(app):
        if reviewers_only(path):
            body = bodies.get(path.rpartition("/")[2])
            answer = reviewer.request(method.upper(), path.format(**ids), json=body)
            assert answer.status_code == 404, (method, path, answer.text)  # pending: no reviewer's business
    assert reviewer.get(f"/api/v1/runs/{ids['run_id']}").status_code == 404
    with begin() as session:
        reviews.judge(session, UUID(ids["version_id"]), "unknown")
    assert reviewer.get(f"/api/v1/quarantine/{ids['version_id']}").status_code == 200
    assert reviewer.get(f"/api/v1/runs/{ids['run_id']}").status_code == 200
    assert reviewer.get(f"/api/v1/models/{ids['model']}").status_code == 404
