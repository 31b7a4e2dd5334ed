"""Versions after they are let in: aliases and their history, status, metrics, numbers that must be true, comparison."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from slipway import Client
from slipway.cli import app as command_line
from sqlalchemy import text
from typer.testing import CliRunner

from registry import audit, people, reviews
from shared.db import Begin
from tests.integration.api_fixtures import Person, app, join, parts, problem, served, url
from tests.integration.api_fixtures import ada as reader
from tests.integration.test_api_runs import move
from tests.integration.upload_fixtures import onnx

Submit = Callable[..., UUID]
Join = Callable[..., Person]
Publish = Callable[..., None]

IMAGE = {"name": "image", "dtype": "float32", "shape": [None, 1, 8, 8]}
SCORES = {"name": "scores", "dtype": "float32", "shape": [None, 2]}
CLASSES = ["cat", "dog"]


@pytest.fixture
def ada(reader: httpx2.Client, owner: UUID, begin: Begin) -> httpx2.Client:
    """The owner, who may deploy too."""
    with begin() as session:
        everything = [*people.EVERYDAY, "models:deploy"]
        session.execute(text("UPDATE users SET permissions = :all WHERE id = :id"), {"all": everything, "id": owner})
    return reader


@pytest.fixture
def name() -> str:
    return f"m-{uuid4().hex[:8]}"


@pytest.fixture
def publish(begin: Begin, submit: Submit, name: str) -> Publish:
    """Have a version of the model published; what validation found, its outputs and size may be told."""

    def publish(version: str | None = None, *, outputs: Any = (SCORES,), size: int = 3, model: str = name) -> None:
        run_id = submit("validate", "benchmark", "promote", model=model, version=version)
        sha256 = uuid4().hex * 2
        canonical = {
            "name": "onnx-fp32",
            "role": "canonical",
            "key": f"sha256/{sha256[:2]}/{sha256}/onnx-fp32.onnx",
            "sha256": sha256,
            "size": size,
            "media_type": "application/octet-stream",
            "meta": {"toolchain": {"onnx": "1.20"}},
        }
        row = {"name": "onnx-fp32", "role": "canonical", "p50_ms": 0.2, "speedup": 1.5, "verdict": "faster"}
        facts: dict[str, Any] = {
            "validate": {"verdict": "clean", "inputs": [IMAGE], "outputs": list(outputs), "classes": CLASSES},
            "benchmark": {"rows": [row], "device": {"cpu": "slow"}},
            "promote": {"published": [canonical]},
        }
        for stage, learned in facts.items():
            move(begin, run_id, stage, {"facts": learned, "files": []})

    return publish


def grant(begin: Begin, model_id: str, person: Person, *permissions: str) -> None:
    with begin() as session:
        for permission in permissions:
            session.execute(
                text(
                    "INSERT INTO grants (model_id, user_id, permission, granted_by)"
                    " SELECT id, :user, :permission, owner_id FROM models WHERE id = :model"
                ),
                {"user": person.id, "permission": permission, "model": model_id},
            )


def renamed(port: dict[str, Any]) -> list[dict[str, Any]]:
    return [port | {"name": "probabilities"}]


def condemn(begin: Begin, client: httpx2.Client, here: str) -> None:
    with begin() as session:
        reviews.judge(session, UUID(client.get(here).json()["id"]), "malicious")


def test_the_first_version_that_is_published_is_the_default_until_another_is_activated(
    ada: httpx2.Client, publish: Publish, submit: Submit, name: str, begin: Begin
) -> None:
    here = f"/api/v1/models/{name}"
    submit(model=name)  # 1.0.0 waits
    problem(ada.get(f"{here}/versions/default"), 404, "version_not_found")
    publish()
    publish()
    assert ada.get(f"{here}/versions/default").json()["version"] == "1.1.0"
    [first] = ada.get(f"{here}/aliases/default/history").json()["items"]
    assert (first["version"], first["previous"], first["moved_by"]) == ("1.1.0", None, None)

    moved = ada.put(f"{here}/activate", json={"version": "v1.2", "reason": "better", "expected": "1.1.0"})
    assert (moved.status_code, moved.json()["version"], moved.json()["name"]) == (200, "1.2.0", "default")
    assert ada.get(f"{here}/versions/default").json()["is_default"] is True
    listed = ada.get(f"{here}/versions").json()["items"]
    assert [(one["version"], one["aliases"]) for one in listed] == [
        ("1.2.0", ["default"]),
        ("1.1.0", []),
        ("1.0.0", []),
    ]
    page = ada.get(f"{here}/versions", params={"limit": 2})
    following = ada.get(page.links["next"]["url"])
    assert [one["version"] for one in (*page.json()["items"], *following.json()["items"])] == [
        "1.2.0",
        "1.1.0",
        "1.0.0",
    ]
    assert (following.json()["next"], following.links) == (None, {})
    problem(ada.get(f"{here}/versions", params={"cursor": "MQ"}), 400, "invalid_cursor")

    def versions(**wanted: Any) -> list[str]:
        return [one["version"] for one in ada.get(f"{here}/versions", params=wanted).json()["items"]]

    assert versions(is_default=True) == ["1.2.0"]
    assert versions(is_default=False, status="approved") == ["1.1.0"]
    assert versions(status="testing") == ["1.0.0"]
    problem(ada.get(f"{here}/versions?status=nice"), 422, "invalid_field")
    problem(ada.put(f"{here}/activate", json={"version": "1.0.0"}), 409, "not_published")
    with begin() as session:
        [told, *_] = audit.entries(session, action="alias.moved", subject=moved.json()["version_id"])
        assert told.details["reason"] == "better"
        assert not audit.verify(session, ()).faults


def test_production_moves_with_a_reason_is_remembered_and_rolls_back_past_what_is_no_longer_clean(
    ada: httpx2.Client, publish: Publish, name: str, begin: Begin
) -> None:
    for _ in range(4):
        publish()
    here = f"/api/v1/models/{name}/aliases/production"

    def to(version: str, **more: Any) -> httpx2.Response:
        return ada.put(here, json={"version": version, "reason": f"to {version}"} | more)

    first = to("1.0.0", expected=None)
    assert (first.status_code, first.json()["protected"], first.json()["version"]) == (200, True, "1.0.0")
    assert ada.get(first.json()["links"]["version"]).json()["aliases"] == ["default", "production"]
    problem(to("1.1.0", expected=None), 412, "alias_moved")
    noon = datetime.now(UTC)
    assert to("1.1.0").status_code == to("2").status_code == 200  # the second upload
    assert len(ada.get(f"{here}/history").json()["items"]) == 2  # to where it is already is no move
    assert to("1.2.0", expected="1.1.0").json()["version"] == "1.2.0"
    assert to("production").json()["version"] == "1.2.0"
    assert to("1.3.0").json()["version"] == "1.3.0"

    assert ada.get(here, params={"at": noon.isoformat()}).json()["version"] == "1.0.0"
    problem(ada.get(here, params={"at": "2020-05-03T12:00Z"}), 404, "alias_not_found")
    page = ada.get(f"{here}/history", params={"limit": 3})
    assert [(one["previous"], one["version"]) for one in page.json()["items"]] == [
        ("1.2.0", "1.3.0"),
        ("1.1.0", "1.2.0"),
        ("1.0.0", "1.1.0"),
    ]
    assert [one["version"] for one in ada.get(page.links["next"]["url"]).json()["items"]] == ["1.0.0"]

    condemn(begin, ada, f"/api/v1/models/{name}/versions/1.2.0")
    problem(to("1.2.0"), 409, "not_clean")
    back = ada.post(f"{here}:rollback", json={"reason": "wrong on rotated scans"})
    assert (back.status_code, back.json()["version"], back.json()["reason"]) == (200, "1.1.0", "wrong on rotated scans")
    assert ada.post(f"{here}:rollback", json={"reason": "and again"}).json()["version"] == "1.0.0"
    problem(ada.post(f"{here}:rollback", json={"reason": "further"}), 409, "nothing_to_roll_back_to")

    tag = ada.get(here).headers["etag"]
    assert ada.put(here, json={"version": "1.1.0"}, headers={"If-Match": tag}).status_code == 200
    problem(ada.delete(here, headers={"If-Match": tag}), 412, "alias_moved")
    problem(ada.delete(here, headers={"If-Match": "W/x"}), 412, "precondition_failed")
    assert ada.delete(here, params={"reason": "withdrawn"}).status_code == 204
    problem(ada.get(here), 404, "alias_not_found")
    problem(ada.get(f"/api/v1/models/{name}/versions/production"), 404, "version_not_found")
    assert [one["name"] for one in ada.get(f"/api/v1/models/{name}/aliases").json()["items"]] == ["default"]
    assert ada.post(f"{here}:rollback", json={"reason": "needed after all"}).json()["version"] == "1.1.0"


def test_who_may_move_an_alias(ada: httpx2.Client, publish: Publish, name: str, join: Join, begin: Begin) -> None:
    publish()
    model = ada.get(f"/api/v1/models/{name}").json()["id"]
    here, wish = f"/api/v1/models/{model}/aliases", {"version": "1.0.0"}
    grace = join("models:read", "models:upload")
    problem(grace.client.put(f"{here}/champion", json=wish), 404, "model_not_found")
    grant(begin, model, grace, "models:read")
    problem(grace.client.put(f"{here}/champion", json=wish), 403, "not_granted")
    grant(begin, model, grace, "models:upload")
    assert grace.client.put(f"{here}/champion", json=wish).json()["moved_by"] == grace.username
    problem(grace.client.put(f"{here}/production", json=wish), 403, "forbidden")
    grant(begin, model, grace, "models:deploy")
    problem(grace.client.delete(f"{here}/production"), 403, "forbidden")  # the grant narrows, it gives no right
    for bad in ("v1", "latest", "Production"):
        problem(ada.put(f"{here}/{bad}", json=wish), 422, "invalid_alias")


def test_two_who_move_an_alias_at_once_do_not_overwrite_each_other(
    ada: httpx2.Client, publish: Publish, name: str
) -> None:
    for _ in range(3):
        publish()
    here = f"/api/v1/models/{name}/aliases/champion"
    ada.put(here, json={"version": "1.0.0"})

    def to(version: str) -> int:
        return ada.put(here, json={"version": version, "expected": "1.0.0"}).status_code

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(to, ["1.1.0", "1.2.0"])) == [200, 412]
    assert len(ada.get(f"{here}/history").json()["items"]) == 2


def test_a_number_that_says_less_than_what_changed_is_not_relied_upon(
    ada: httpx2.Client, publish: Publish, name: str
) -> None:
    here = f"/api/v1/models/{name}"
    publish("1.0.0")
    publish("1.0.1", outputs=renamed(SCORES))
    publish("2.0.0", outputs=renamed(SCORES))
    publish("2.0.1", outputs=renamed(SCORES))
    for path in ("aliases/champion", "aliases/production", "activate"):
        refused = problem(ada.put(f"{here}/{path}", json={"version": "1.0.1"}), 409, "version_breaks_contract")
        assert "output scores is called probabilities now: that takes 2.0.0" in str(refused["detail"])
        assert refused["hint"]
    status = f"{here}/versions/1.0.1/status"
    assert ada.put(status, json={"status": "deprecated"}).status_code == 200
    problem(ada.put(status, json={"status": "approved"}), 409, "version_breaks_contract")
    for version in ("2.0.0", "2.0.1"):
        assert ada.put(f"{here}/activate", json={"version": version}).status_code == 200


def test_a_version_s_status_moves_legally_and_its_release_notes_may_be_said_anew(
    ada: httpx2.Client, publish: Publish, submit: Submit, name: str
) -> None:
    here = f"/api/v1/models/{name}/versions"
    submit(model=name)
    publish()
    refused = problem(ada.put(f"{here}/1.0.0/status", json={"status": "approved"}), 409, "illegal_status")
    assert "published and clean" in str(refused["detail"])
    refused = problem(ada.put(f"{here}/1.1.0/status", json={"status": "training"}), 409, "illegal_status")
    assert refused["details"] == {"status": "approved", "allowed": ["testing", "deprecated", "archived"]}
    problem(ada.put(f"{here}/default/status", json={"status": "archived"}), 409, "version_has_alias")
    publish()
    ada.put(f"/api/v1/models/{name}/activate", json={"version": "1.2.0"})
    gone = ada.put(f"{here}/1.1.0/status", json={"status": "archived", "reason": "replaced"})
    assert (gone.json()["status"], gone.headers["etag"]) == ("archived", '"2"')
    problem(ada.put(f"/api/v1/models/{name}/activate", json={"version": "1.1.0"}), 409, "version_archived")

    read = ada.get(f"{here}/1.2.0")
    assert (read.json()["release_notes"], read.json()["revision"], read.headers["etag"]) == ("", 1, '"1"')
    body, seen = {"release_notes": "Sees rotated digits."}, {"If-Match": read.headers["etag"]}
    changed = ada.patch(f"{here}/1.2.0", json=body, headers=seen)
    assert (changed.json()["release_notes"], changed.headers["etag"]) == ("Sees rotated digits.", '"2"')
    problem(ada.patch(f"{here}/1.2.0", json=body, headers=seen), 412, "version_changed")
    problem(ada.put(f"{here}/1.2.0/status", json={"status": "testing"}, headers=seen), 412, "version_changed")


def test_metrics_are_a_history_of_which_the_latest_show(ada: httpx2.Client, publish: Publish, name: str) -> None:
    publish()
    here = f"/api/v1/models/{name}/versions/1.0.0"
    told = [
        {"name": "accuracy", "value": 0.9, "dataset": "a", "at": "2026-05-03T12:00:00Z"},
        {"name": "accuracy", "value": 0.8, "dataset": "a", "at": "2026-05-02T12:00:00Z"},
        {"name": "accuracy", "value": 0.7, "dataset": "b"},
        {"name": "loss", "value": 12.5},
    ]
    assert ada.post(f"{here}/metrics", json={"metrics": told}).status_code == 201
    again = ada.post(f"{here}/metrics", json={"metrics": [{"name": "f1_score", "value": 1}]})
    assert [one["name"] for one in again.json()["items"]] == ["f1"]

    def seen(items: list[dict[str, Any]]) -> list[tuple[str, str | None, float]]:
        return [(one["name"], one["dataset"], one["value"]) for one in items]

    assert seen(ada.get(here).json()["metrics"]) == [
        ("accuracy", "a", 0.9),
        ("accuracy", "b", 0.7),
        ("f1", None, 1.0),
        ("loss", None, 12.5),
    ]
    page = ada.get(f"{here}/metrics", params={"name": "accuracy", "limit": 2})
    assert seen(page.json()["items"]) == [("accuracy", "b", 0.7), ("accuracy", "a", 0.9)]
    assert seen(ada.get(page.links["next"]["url"]).json()["items"]) == [("accuracy", "a", 0.8)]
    assert len(ada.get(f"{here}/metrics", params={"dataset": "a"}).json()["items"]) == 2
    for bad in ({"name": "accuracy", "value": 95}, {"name": "Loss!", "value": 1}):
        problem(ada.post(f"{here}/metrics", json={"metrics": [bad]}), 422, "invalid_metric")
    for bad in ({"name": "loss", "value": "NaN"}, {"name": "loss", "value": 1, "at": "2999-01-01T00:00:00Z"}):
        problem(ada.post(f"{here}/metrics", json={"metrics": [bad]}), 422, "invalid_field")


def test_versions_are_compared_also_across_models(
    ada: httpx2.Client, publish: Publish, name: str, join: Join, begin: Begin
) -> None:
    publish("1.0.0")
    publish("1.0.1", outputs=renamed(SCORES), size=9)
    other = f"{name}-other"
    publish("1.0.0", model=other)
    for version, value in (("1.0.0", 0.9), ("1.0.1", 0.95)):
        metrics = [{"name": "accuracy", "value": value, "dataset": "a"}]
        ada.post(f"/api/v1/models/{name}/versions/{version}/metrics", json={"metrics": metrics})
    username = ada.get("/api/v1/me").json()["username"]
    wanted = {"versions": ["1.0.1", "1.0.0", f"{username}/{other}"]}
    body = ada.get(f"/api/v1/models/{name}/compare", params=wanted).json()
    assert [one["label"] for one in body["versions"]] == [
        f"{username}/{name}@1.0.1",
        f"{username}/{name}@1.0.0",
        f"{username}/{other}@1.0.0",
    ]
    assert [one["variants"][0]["size"] for one in body["versions"]] == [9, 3, 3]
    assert body["versions"][0]["benchmarks"][0]["p50_ms"] == 0.2
    assert body["versions"][0]["contract"]["classes"] == CLASSES
    assert body["versions"][0]["toolchain"] == {"onnx": "1.20"}
    assert body["metrics"] == [{"name": "accuracy", "dataset": "a", "values": [0.95, 0.9, None]}]
    same_line, across = body["contracts"]
    assert (same_line["before"], same_line["needed"], same_line["fits"]) == (f"{username}/{name}@1.0.0", "major", False)
    assert same_line["changes"][0]["what"] == "output scores is called probabilities now"
    assert (across["before"], across["fits"]) == (f"{username}/{name}@1.0.1", None)
    assert body["differs"] == []

    problem(ada.get(f"/api/v1/models/{name}/compare?versions=1.0.0"), 422, "invalid_field")
    problem(ada.get(f"/api/v1/models/{name}/compare?versions=1.0.0&versions=1"), 422, "invalid_field")
    grace = join()
    publish("1.0.0", model=f"{name}-third")
    model = ada.get(f"/api/v1/models/{name}").json()["id"]
    grant(begin, model, grace, "models:read")
    hidden = {"versions": ["1.0.0", f"{username}/{other}@1.0.0"]}
    problem(grace.client.get(f"/api/v1/models/{model}/compare", params=hidden), 404, "model_not_found")


def test_a_version_is_uploaded_to_a_model_that_is_there_also_by_somebody_with_a_grant(
    ada: httpx2.Client, publish: Publish, name: str, join: Join, begin: Begin, parts: Any
) -> None:
    parts.staging.ensure()
    username = ada.get("/api/v1/me").json()["username"]
    here = f"/api/v1/models/{username}~{name}"
    grace = join()

    def send(client: httpx2.Client, **fields: str) -> httpx2.Response:
        files = {"file": ("digits.onnx", onnx(), "application/octet-stream")}
        return client.post(f"{here}/versions", data=fields, files=files)

    problem(send(ada), 404, "model_not_found")
    publish("1.0.0")
    problem(send(grace.client), 404, "model_not_found")
    grant(begin, ada.get(here).json()["id"], grace, "models:read")
    problem(send(grace.client), 403, "not_granted")
    grant(begin, ada.get(here).json()["id"], grace, "models:upload")
    problem(send(grace.client, name="other"), 422, "invalid_field")
    refused = problem(send(grace.client, version="v1.0.1", classes='["dog", "cat"]'), 409, "version_breaks_contract")
    assert "class 0 was cat and is dog: that takes 2.0.0" in str(refused["detail"])

    taken = send(
        grace.client,
        version="v2",
        format="tensorrt",
        accuracy="0.95",
        f1_score="0.9",
        benchmark_dataset="digits-test",
        output_shape="[1, 2]",
        classes='["dog", "cat"]',
        release_notes="The order of the classes is new.",
        training_config='{"epochs": 3}',
    )
    assert taken.status_code == 202, taken.text
    assert taken.json()["data"]["version"] == "2.0.0"
    assert taken.json()["data"]["validation_warnings"] == ["format is declared as tensorrt, but the file is ONNX."]
    version = ada.get(f"{here}/versions/2.0.0").json()
    assert (version["owner"], version["uploaded_by"]) == (username, grace.username)
    assert version["release_notes"] == "The order of the classes is new."
    assert "release_notes" not in version["declared"]
    assert version["training_config"] == {"epochs": 3}
    assert (version["classes"], version["outputs"]) == (["dog", "cat"], None)
    assert [(one["name"], one["value"], one["dataset"]) for one in version["metrics"]] == [
        ("accuracy", 0.95, "digits-test"),
        ("f1", 0.9, "digits-test"),
    ]
    run = taken.headers["location"]
    assert version["run"] == taken.json()["run"]["id"]  # the owner sees what happens to their model
    assert ada.get(run).status_code == grace.client.get(run).status_code == 200


def test_the_sdk_and_the_command_line_do_all_of_it(
    ada: httpx2.Client,
    publish: Publish,
    name: str,
    owner: UUID,
    parts: Any,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    publish("1.0.0")
    publish("1.0.1", outputs=renamed(SCORES))
    publish("2.0.0", outputs=renamed(SCORES))
    token = parts.tokens.issue(str(owner))
    for variable, value in (("SLIPWAY_URL", url), ("SLIPWAY_TOKEN", token), ("COLUMNS", "200"), ("NO_COLOR", "1")):
        monkeypatch.setenv(variable, value)

    def slipway(*arguments: str, exit_code: int = 0) -> str:
        done = CliRunner().invoke(command_line, arguments)
        assert done.exit_code == exit_code, (arguments, done.output)
        # The server's log shares the process, and with it the stream.
        return "\n".join(line for line in done.output.splitlines() if " [info " not in line)

    assert slipway("promote", f"{name}@1.0.0", "production", "-m", "first", "--expected", "nowhere", "-q") == "1.0.0"
    assert "alias_moved" in slipway(
        "promote", f"{name}@2.0.0", "production", "-m", "late", "--expected", "nowhere", exit_code=6
    )
    assert "that takes 2.0.0" in slipway("promote", f"{name}@1.0.1", "production", "-m", "patch", exit_code=6)
    assert "→ 2.0.0" in slipway("promote", f"{name}@2.0.0", "production", "--reason", "better")
    assert slipway("rollback", name, "production", "--reason", "worse after all", "-q") == "1.0.0"
    assert "worse after all" in slipway("alias", "history", name, "production")
    assert slipway("activate", f"{name}@latest", "-q") == "2.0.0"
    assert slipway("alias", "list", name, "-q") == "default 2.0.0\nproduction 1.0.0"
    assert "alias_not_found" in slipway("alias", "at", name, "production", "2020-05-03", exit_code=5)
    slipway("metrics", "add", f"{name}@production", "accuracy=0.9", "loss=1.5", "--dataset", "a", "--at", "2026-05-03")
    assert "no metric" in slipway("metrics", "add", f"{name}@production", "accuracy", exit_code=2)
    assert slipway("metrics", "list", f"{name}@1", "-q", "--name", "loss") == "loss 1.5 (a)"
    assert slipway("status", f"{name}@1.0.1", "archived", "-m", "broken", "-q") == "archived"
    slipway("note", f"{name}@2.0.0", "Sees rotated digits.")
    assert "Sees rotated digits." in slipway("show", f"{name}@default")
    table = slipway("compare", f"{name}@production", f"{name}@1.0.1", f"{name}@default")
    assert re.search(r"accuracy \(a\) +0.9 +– +–", table)
    assert "a major change, which its number does not say" in table
    assert "output scores is called probabilities now" in table
    assert slipway("alias", "remove", name, "production", "-q") == ""

    with Client(url, token) as client:
        username = client.me().username
        shown = client.version(f"{username}/{name}@default")
        assert (shown.version, shown.aliases, shown.release_notes) == ("2.0.0", ("default",), "Sees rotated digits.")
        assert [one.version for one in client.versions(name, is_default=True)] == ["2.0.0"]
        assert [one.version for one in client.aliases.history(name, "production", limit=None)][:2] == [None, "1.0.0"]
        (tmp_path / "digits.onnx").write_bytes(onnx())
        parts.staging.ensure()
        run = client.push(
            tmp_path / "digits.onnx", f"{username}/{name}", bump="major", metrics={"f1": 0.5}, release_notes="Third."
        )
        pushed = client.version(f"{name}@3.0.0")
        assert (run.version, pushed.release_notes) == ("3.0.0", "Third.")
        assert [(one.name, one.value) for one in pushed.metrics] == [("f1", 0.5)]
        assert not client.versions.compare(f"{name}@1.0.0", f"{name}@1.0.1").honest
