"""The workflows that other services document, done here with the requests that stand for theirs (docs/specifications.md)."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx2
import pytest

if TYPE_CHECKING:
    from stack.launcher import Stack

Person = Callable[..., httpx2.Client]
PASSWORD = "correct horse battery staple"
PRODUCTION = "models:read", "models:upload", "models:download", "models:delete", "models:deploy"


@pytest.fixture(scope="module")
def admin(slipway: Stack, key: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"{slipway.environment['SLIPWAY_URL']}/api/v1", timeout=30) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


@pytest.fixture(scope="module")
def person(admin: httpx2.Client) -> Iterator[Person]:
    """Register somebody with these permissions, sign them in, and give their client."""
    clients: list[httpx2.Client] = []

    def person(*permissions: str) -> httpx2.Client:
        login = {"username": f"user-{uuid4().hex[:8]}", "password": PASSWORD}
        done(admin.post("/auth/register", json={**login, "permissions": permissions}))
        token = done(admin.post("/auth/login", json=login))["access_token"]
        client = httpx2.Client(base_url=admin.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        clients.append(client)
        return client

    yield person
    for client in clients:
        client.close()


@pytest.fixture
def onnx(digits: Path) -> tuple[str, bytes]:
    return "digits.onnx", (digits / "digits.onnx").read_bytes()


def done(answer: httpx2.Response) -> Any:
    """The body of an answer that must be a good one."""
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def pushed(
    client: httpx2.Client, address: str, fields: Mapping[str, str], **files: tuple[str, bytes]
) -> httpx2.Response:
    """The answer to a form, once the run that it began has succeeded."""
    answer = client.post(address, data=dict(fields), files=files)
    assert answer.status_code == 202, answer.text
    run = answer.headers["location"].removeprefix("/api/v1")
    until = time.monotonic() + 240
    while not (now := done(client.get(run)))["finished_at"]:
        assert time.monotonic() < until, f"{run} was not over in time"
        time.sleep(0.5)
    assert now["status"] == "succeeded", now
    return answer


def given_up(client: httpx2.Client, uploaded: httpx2.Response) -> None:
    """Cancel the run that an upload began: nobody waits for its end."""
    done(client.post(f"{uploaded.headers['location'].removeprefix('/api/v1')}/cancel"))


def test_from_an_upload_service(person: Person, onnx: tuple[str, bytes]) -> None:
    """A form with all its fields; the list and its filters; deployed, and only when it no longer is, deleted."""
    ada = person(*PRODUCTION)
    form = {
        "name": "YOLO11 Nano Traffic",
        "version": "1.0.0",
        "model_type": "classification",
        "framework": "onnx",
        "description": "Lightweight model for traffic monitoring",
        "classes": json.dumps([str(digit) for digit in range(10)]),
        "input_shape": "[-1, 1, 8, 8]",
        "config": '{"confidence_threshold": 0.5, "iou_threshold": 0.45}',
        "tags": '["traffic", "real-time", "edge"]',
        "benchmark_dataset": "digits",
        "training_config": '{"epochs": 3}',
    }
    files = {"model_file": onnx, "config_file": ("config.yaml", b"confidence_threshold: 0.5\n")}
    answer = pushed(ada, "/models/upload", form, **files).json()
    data = answer["data"]
    named = {"model_id", "name", "version", "framework", "file_size", "checksum", "validation_warnings"}
    assert named <= data.keys()
    assert (data["name"], data["version"], data["file_size"]) == (form["name"], form["version"], len(onnx[1]))
    assert answer["data"]["checksum"].startswith("sha256:")

    model = f"/models/{answer['data']['model_id']}"
    filters: dict[str, Any] = {
        "page": 1,
        "size": 20,
        "model_type": "classification",
        "framework": "onnx",
        "status": "approved",
    }
    listed = done(ada.get("/models", params={**filters, "search": "traffic"}))
    assert [each["name"] for each in listed["items"]] == ["YOLO11 Nano Traffic"]
    assert listed["total"] == 1
    assert done(ada.get(f"{model}/versions/1.0.0"))["quality"]["score"] > 0, "it was benchmarked"

    live = done(ada.post(f"{model}/deployments", json={"version": "1.0.0", "target": "production"}))
    assert done(ada.get("/models", params={"stage": "production"}))["items"][0]["id"] == answer["data"]["model_id"]
    assert ada.delete(model).status_code == 409
    done(ada.post(f"{model}/deployments/{live['id']}:end", json={"reason": "the pilot is over"}))
    done(ada.delete(model))
    assert ada.get(model).status_code == 404


def test_from_a_version_registry(person: Person, onnx: tuple[str, bytes]) -> None:
    """A model first, then two versions with metrics; the default; deployed, compared, rolled back."""
    ada = person(*PRODUCTION)
    told = {"name": "image_classifier", "description": "MLP image classifier", "model_type": "classification"}
    assert done(ada.post("/models", json=told))["latest"] is None
    model = "/models/image_classifier"
    shapes = {"input_shape": "[-1,1,8,8]", "output_shape": "[-1,10]"}
    pushed(ada, f"{model}/versions", {"version": "v1", "format": "onnx", "accuracy": "0.85", **shapes}, file=onnx)
    fields = {"version": "v2", "accuracy": "0.95", "release_notes": "Trained for longer.", **shapes}
    pushed(ada, f"{model}/versions", fields, file=onnx)

    assert done(ada.get(f"{model}/versions/default"))["version"] == "1.0.0", "the first that was published"
    assert [one["version"] for one in done(ada.get(f"{model}/versions"))["items"]] == ["2.0.0", "1.0.0"]
    assert [one["version"] for one in done(ada.get(f"{model}/versions", params={"is_default": True}))["items"]] == [
        "1.0.0"
    ]
    assert [
        one["value"] for one in done(ada.get(f"{model}/versions/v2/metrics", params={"name": "accuracy"}))["items"]
    ] == [0.95]
    compared = done(ada.get(f"{model}/compare", params={"versions": ["v1", "v2"]}))
    (accuracy,) = (row for row in compared["metrics"] if row["name"] == "accuracy" and row["values"] == [0.85, 0.95])
    assert accuracy["dataset"] is None

    order = {
        "model_name": "image_classifier",
        "version": "v1",
        "deployment_target": "production",
        "deployed_by": "admin",
    }
    done(ada.post("/deploy", json=order))
    done(ada.post("/deploy", json={**order, "version": "v2"}))
    back = done(ada.post(f"{model}/targets/production:rollback", json={"reason": "v2 is slower on our cameras"}))
    assert (back["version"], back["status"]) == ("1.0.0", "live")
    history = done(ada.get(f"{model}/deployments"))["items"]
    assert [(one["version"], one["status"]) for one in history] == [
        ("1.0.0", "live"),
        ("2.0.0", "rolled_back"),
        ("1.0.0", "superseded"),
    ]
    assert history[1]["reason"] == "v2 is slower on our cameras"
    done(ada.put(f"{model}/versions/v2/status", json={"status": "deprecated", "reason": "too slow"}))
    assert done(ada.get(f"{model}/versions", params={"status": "deprecated"}))["items"][0]["version"] == "2.0.0"


def test_from_a_package_registry(person: Person, admin: httpx2.Client, onnx: tuple[str, bytes], slipway: Stack) -> None:
    """A key with a budget uploads a package; it is searched for, downloaded by component, rated, checked, and reset is not for everybody."""
    ada = person(*PRODUCTION)
    key = done(ada.post("/keys", json={"name": "ci", "calls": 1000}))
    assert key["calls_remaining"] == 1000
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("digits.onnx", onnx[1])
        archive.writestr("README.md", "# Digits\n\nHandwritten digits.\n")
        archive.writestr("LICENSE", "MIT License\n\nPermission is hereby granted, free of charge …\n")
    fields = {
        "name": "my-model",
        "version": "1.0.0",
        "description": "My awesome model",
        "licence": "MIT",
        "input_shape": "[-1,1,8,8]",
        "dataset_url": "https://data.example.org/digits",
        "code_url": "https://git.example.org/ada/digits",
    }
    with httpx2.Client(base_url=ada.base_url, headers={"Authorization": f"Bearer {key['key']}"}, timeout=30) as ci:
        answer = pushed(ci, "/models/upload", fields, file=("package.zip", package.getvalue())).json()
    assert done(ada.get("/keys"))["items"][0]["calls_remaining"] < 1000
    model = f"/models/{answer['data']['model_id']}"

    found = done(ada.post("/models:query", json=[{"name": "my-model", "version": "1.0.0"}, {"regex": "^my-.*"}]))
    assert [(one["name"], one["version"], one["licence"]) for one in found["items"]] == [("my-model", "1.0.0", "MIT")]
    weights = done(ada.get(f"{model}/versions/1.0.0/download", params={"component": "weights"}))
    assert weights["expires_in"] == 300
    assert weights["components"] == ["weights"]
    with httpx2.Client() as anybody:
        assert len(anybody.get(weights["files"][0]["url"]).content) == weights["files"][0]["size"]
    assert done(ada.get(f"{model}/usage"))["downloads"] >= 1

    done(ada.patch(model, json={"visibility": "public"}))
    grace = person("models:read")
    done(grace.put(f"{model}/rating", json={"score": 5}))
    assert done(grace.get(model))["rating"] == 5
    lineage = done(grace.get(f"{model}/versions/1.0.0/lineage"))
    assert {(edge["relation"]) for edge in lineage["edges"]} >= {"dataset", "code"}
    asked = {"licence": "GPL-3.0", "model_id": answer["data"]["model_id"]}
    assert done(grace.post("/licence-check", json=asked))["compatible"] is True
    score = done(grace.get(f"{model}/versions/1.0.0/score"))
    assert 0 < score["net_score"] <= 1

    assert (
        done(admin.get(f"{slipway.environment['SLIPWAY_URL']}/health", params={"detailed": True}))["metrics"][
            "total_requests"
        ]
        > 0
    )
    assert done(admin.get("/logs", params={"level": "WARNING", "limit": 10}))["limit"] == 10
    assert grace.get("/logs").status_code == 403
    assert grace.delete("/reset").status_code == 403
    done(admin.delete(model, params={"purge": True}))


def test_from_a_platform_of_endpoints(person: Person, onnx: tuple[str, bytes]) -> None:
    """What is no model is told which are; each model has an endpoint that says what it takes; no path is ever shown."""
    ada = person(*PRODUCTION, "models:predict")
    refused = ada.post("/models/upload", data={"name": "notes"}, files={"file": ("notes.exe", b"MZ")})
    assert refused.status_code == 400
    assert ".onnx" in refused.json()["detail"], "the formats are listed"
    assert {"code", "detail", "timestamp"} <= refused.json().keys()
    fields = {"name": "digits", "description": "digits"}
    answer = done(pushed(ada, "/models/upload", fields, file=onnx))
    model = done(ada.get(f"/models/{answer['data']['model_id']}"))
    assert model["is_active"] is True
    endpoint, who = model["endpoint_url"], {"Authorization": ada.headers["authorization"]}
    schema = done(httpx2.get(f"{endpoint}/schema", headers=who))
    told = done(httpx2.post(f"{endpoint}/infer", json=schema["examples"]["v2"], headers=who, timeout=30))
    assert told["outputs"]
    simple = done(ada.get("/models/digits/endpoint"))["predict_url"]
    predicted = done(httpx2.post(simple, json=schema["examples"]["predict"], headers=who))
    assert predicted["predictions"]
    assert predicted["processing_time"] > 0
    wrong = httpx2.post(simple, json={"inputs": {"nonsense": [1]}}, headers=who)
    assert (wrong.status_code, wrong.json()["code"]) == (400, "unknown_input")
    assert httpx2.post(simple, json=schema["examples"]["predict"]).status_code == 401
    rules = done(ada.patch("/models/digits/endpoint", json={"requests_per_minute": 0}))
    assert rules["requests_per_minute"] == 0
    until = time.monotonic() + 20
    while (limited := httpx2.post(simple, json=schema["examples"]["predict"], headers=who)).status_code != 429:
        assert time.monotonic() < until, limited.text
        time.sleep(0.2)
    assert int(limited.headers["retry-after"]) >= 1
    while (used := done(ada.get("/models/digits")))["request_count"] == 0:
        assert time.monotonic() < until, used
        time.sleep(0.2)
    patched = done(ada.patch("/models/digits", json={"is_active": False}))
    assert patched["is_active"] is False
    assert done(ada.get("/models", params={"is_active": True}))["items"] == []
    assert "key" not in json.dumps(done(ada.get("/models/digits/versions/latest/artifacts")))


def test_from_a_manager_of_numbered_versions(person: Person, onnx: tuple[str, bytes]) -> None:
    """The same name again is the next version; activate one; nobody else sees any of it; deleted is not gone."""
    ada, eve = person(*PRODUCTION), person("models:read")
    fields = {"name": "my_classifier", "model_type": "sklearn", "description": "A classifier"}
    first = pushed(ada, "/models/upload", fields, file=onnx).json()
    given_up(ada, ada.post("/models/upload", data=fields, files={"file": onnx}))
    model = f"/models/{first['data']['model_id']}"
    assert [one["ordinal"] for one in done(ada.get(f"{model}/versions"))["items"]] == [2, 1]
    listed = done(ada.get("/models", params={"skip": 0, "limit": 10}))
    assert (listed["total"], len(listed["items"])) == (1, 1)

    done(ada.put(f"{model}/activate", json={"version": "1"}))
    assert done(ada.get(f"{model}/versions/default"))["ordinal"] == 1
    assert done(ada.put(model, json={"description": "Updated description"}))["description"] == "Updated description"

    for method, address in (("GET", model), ("PUT", model), ("DELETE", model), ("GET", f"{model}/versions")):
        assert eve.request(method, address, json={} if method == "PUT" else None).status_code in (403, 404), address
    assert eve.get(model).status_code == 404
    assert done(eve.get("/models"))["items"] == []

    done(ada.delete(model))
    assert ada.get(model).status_code == 404
    done(ada.post(f"{model}:restore"))
    assert done(ada.get(model))["name"] == "my_classifier"
