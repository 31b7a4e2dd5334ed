"""What is handed out and to whom, what is counted of it, and how much anybody may have."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from api.deps import Services
from registry import quotas, reviews, store, usage
from registry.errors import Exhausted
from registry.store import Artifact
from shared.db import Begin
from shared.settings import Plan, Settings
from shared.storage import Bucket, Storage
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
from tests.integration.shelf_fixtures import Shelf, shelf
from tests.integration.upload_fixtures import CONTENT_TYPE, file, form, safetensors
from tests.integration.upload_fixtures import text as field

Join = Callable[..., Person]


def test_components_are_handed_out_with_their_digests_and_what_is_absent_is_said(
    shelf: Callable[..., Shelf], ada: httpx2.Client, join: Join
) -> None:
    on = shelf()
    answer = ada.get(f"{on.path}/download", params={"component": ["weights", "config", "code"]}).json()
    assert [(each["component"], each["name"]) for each in answer["files"]] == [
        ("weights", "onnx-fp32"),
        ("config", "config"),
    ]
    assert answer["components"] == ["weights", "config"]
    assert list(answer["missing"]) == ["code"]
    assert "inside what was uploaded" in answer["missing"]["code"]
    for each in answer["files"]:
        came = httpx2.get(each["url"])
        assert hashlib.sha256(came.content).hexdigest() == each["sha256"]
        assert len(came.content) == each["size"]

    full = ada.get(f"{on.path}/download", params={"component": "full"}).json()
    assert {each["component"] for each in full["files"]} == {"weights", "config", "datasets", "evidence", "source"}
    stranger = join().client
    theirs = stranger.get(f"{on.path}/download", params={"component": "full"}).json()
    assert {each["component"] for each in theirs["files"]} == {"weights", "config", "datasets", "evidence"}
    problem(stranger.get(f"{on.path}/download", params={"artifact": "source"}), 404, "artifact_not_found")
    both = {"artifact": "source", "component": "full"}
    problem(ada.get(f"{on.path}/download", params=both), 422, "invalid_field")
    problem(ada.get(f"{on.path}/download", params={"component": "bones"}), 422, "invalid_field")


def test_who_was_granted_reading_reads_and_who_was_granted_downloads_downloads(
    shelf: Callable[..., Shelf], join: Join, begin: Begin
) -> None:
    on, reader = shelf(), join()

    def change(statement: str, **more: str) -> None:
        with begin() as session:
            session.execute(text(statement), {"model": on.model.rpartition("/")[2], "user": reader.id, **more})

    change("UPDATE models SET visibility = 'private' WHERE id = :model")
    problem(reader.client.get(f"{on.path}/download"), 404, "model_not_found")
    grant = "INSERT INTO grants (model_id, user_id, permission, granted_by) VALUES (:model, :user, :right, :user)"
    change(grant, right="models:read")
    problem(reader.client.get(f"{on.path}/download"), 403, "not_granted")
    change(grant, right="models:download")
    assert reader.client.get(f"{on.path}/download").status_code == 200


def test_every_hand_out_is_counted_and_in_the_audit_trail(
    shelf: Callable[..., Shelf], ada: httpx2.Client, join: Join, begin: Begin
) -> None:
    on = shelf()
    reader = join()
    one = reader.client.get(f"{on.path}/download").json()
    ada.get(f"{on.path}/download", params={"component": ["weights", "config"]})
    ada.get(f"{on.path}/download", params={"component": "code"})  # nothing was handed out
    with begin() as session:
        usage.count(session, on.version_id, "prediction", 40)
        usage.count(session, on.version_id, "prediction", 2)
    trail = join("admin").client.get("/api/v1/audit", params={"subject": str(on.version_id)}).json()["items"]
    taken = [each for each in trail if each["action"] == "artifact.downloaded"]
    assert [(each["actor"], each["details"]["artifact"]) for each in taken if each["actor"] == reader.username] == [
        (reader.username, "onnx-fp32")
    ]
    assert taken[-1]["details"] == {"artifact": "onnx-fp32", "sha256": one["sha256"], "size": one["size"]}
    assert len(taken) == 3

    used = ada.get(f"{on.model}/usage", params={"days": 7}).json()
    assert (used["downloads"], used["predictions"], used["bytes"]) == (2, 42, 2 * one["size"] + len("threshold: 0.5"))
    assert [(each["version"], each["downloads"]) for each in used["by_version"]] == [("1.0.0", 2)]
    assert len(used["by_day"]) == 1
    body = ada.get(on.model).json()
    assert (body["request_count"], body["last_used"]) == (44, used["last_used"])
    listed = ada.get("/api/v1/models").json()["items"]
    assert [each["request_count"] for each in listed if each["id"] == str(body["id"])] == [44]


# -- quotas --------------------------------------------------------------------------------------------------------------


def upload(client: httpx2.Client, name: str, content: bytes, *, chunked: bool = False) -> httpx2.Response:
    body = form(field("name", name), file("model_file", "model.safetensors", content))
    pieces: bytes | Iterator[bytes] = iter([body]) if chunked else body
    return client.post("/api/v1/models/upload", content=pieces, headers={"Content-Type": CONTENT_TYPE})


def test_a_quota_refuses_before_the_bytes_come_and_again_when_they_are_recorded(join: Join, parts: Services) -> None:
    person, admin = join(), join("admin").client
    first, second = safetensors(600_000), safetensors(600_001)
    quota = f"/api/v1/users/{person.id}/quota"
    problem(person.client.put(quota, json={}), 403, "forbidden")
    problem(admin.put(quota, json={"plan": "gold"}), 422, "invalid_field")
    problem(admin.put("/api/v1/users/00000000-0000-4000-8000-000000000000/quota", json={}), 404, "user_not_found")
    assert admin.put(quota, json={"max_bytes": 1_000_000}).json()["bytes"] == {"used": 0, "allowed": 1_000_000}

    assert upload(person.client, "a", first).status_code == 202
    assert upload(person.client, "b", first).status_code == 202  # the same bytes count once
    refused = problem(upload(person.client, "a", second), 403, "quota_exceeded")
    assert refused["details"] == {"what": "bytes", "used": 600_000, "allowed": 1_000_000, "wanted": 600_001}
    problem(upload(person.client, "a", second, chunked=True), 403, "quota_exceeded")
    too_long = problem(upload(person.client, "a", safetensors(6 << 20)), 403, "quota_exceeded")
    assert too_long["details"] != refused["details"]  # judged by the request's length alone


def test_a_user_has_as_many_models_as_the_quota_allows(join: Join) -> None:
    person, admin = join(), join("admin").client
    admin.put(f"/api/v1/users/{person.id}/quota", json={"max_models": 1})
    assert upload(person.client, "a", safetensors(5000)).status_code == 202
    assert upload(person.client, "a", safetensors(5001)).status_code == 202  # a version is no model
    refused = problem(upload(person.client, "b", safetensors(5000)), 403, "quota_exceeded")
    assert refused["details"] == {"what": "models", "used": 1, "allowed": 1, "wanted": 1}
    problem(person.client.post("/api/v1/models", json={"name": "b"}), 403, "quota_exceeded")  # nor without a file
    account = person.client.get("/api/v1/me/usage").json()
    assert account == {
        "plan": "free",
        "models": {"used": 1, "allowed": 1},
        "bytes": {"used": 10_001, "allowed": None},
    }


def test_two_at_once_do_not_exceed_a_quota_together(begin: Begin, owner: UUID) -> None:
    plans = {"free": Plan(models=1)}
    gate, outcomes = threading.Barrier(2), []

    def add(model: str) -> None:
        intake = store.Intake(
            owner_id=owner,
            model=model,
            version=None,
            bump="minor",
            format="onnx",
            servable=True,
            filename="m.onnx",
            size=1,
            sha256="0" * 64,
            staging_key=f"{model}/model/m.onnx",
            declared={},
            side_files={},
        )
        gate.wait()
        try:
            with begin() as session:
                quotas.admit_version(session, owner, plans, model=model, files=[("0" * 64, 1)])
                store.add_version(session, intake)
            outcomes.append("in")
        except Exhausted:
            outcomes.append("out")

    threads = [threading.Thread(target=add, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["in", "out"]
    with begin() as session:
        assert quotas.account(session, owner, plans).models == quotas.Amount(used=1, allowed=1)
