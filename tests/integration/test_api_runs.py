"""Runs as clients read and move them."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import text

from pipeline import engine, store
from pipeline.run import Broke, Claimed, Passed, Refused
from shared.db import Begin
from tests.integration.api_fixtures import ada, app, parts, problem, served, url

Submit = Callable[..., UUID]

MADE = {
    "name": "model.onnx",
    "role": "canonical",
    "key": "runs/secret-key/model.onnx",
    "sha256": "a" * 64,
    "size": 7,
    "media_type": "application/octet-stream",
    "meta": {"variant": "onnx-fp32"},
}
PUBLISHED = {key: MADE[key] for key in ("role", "key", "sha256", "size", "media_type", "meta")} | {"name": "onnx-fp32"}


def move(begin: Begin, run_id: UUID, stage: str, *reports: Any, attempt: int = 1) -> None:
    """Claim the step and, with a report, pass it."""
    with begin() as session:
        engine.send(session, run_id, Claimed(stage=stage, attempt=attempt, worker="w"))
    for report in reports:
        with begin() as session:
            engine.send(session, run_id, Passed(stage=stage, attempt=attempt, report=report))


def finish(begin: Begin, run_id: UUID) -> None:
    move(begin, run_id, "scan", {"facts": {"verdict": "clean"}, "files": [MADE]})
    move(begin, run_id, "promote", {"facts": {"published": [PUBLISHED]}, "files": []})


def test_a_run_shows_its_steps_reports_and_files_but_never_a_storage_key(
    ada: httpx2.Client, submit: Submit, begin: Begin
) -> None:
    run_id = submit(model="digits")
    fresh = ada.get(f"/api/v1/runs/{run_id}").json()
    assert (fresh["status"], fresh["stage"], fresh["model"], fresh["version"]) == ("queued", "scan", "digits", "1.0.0")
    assert [(step["stage"], step["status"], step["report"]) for step in fresh["steps"]] == [
        ("scan", "queued", None),
        ("promote", "pending", None),
    ]
    finish(begin, run_id)
    answer = ada.get(f"/api/v1/runs/{run_id}")
    done = answer.json()
    assert (done["status"], done["stage"], done["code"]) == ("succeeded", None, None)
    assert done["finished_at"]
    assert done["steps"][0]["report"] == {"verdict": "clean"}
    assert done["artifacts"] == [
        {key: MADE[key] for key in ("role", "sha256", "size", "media_type", "meta")} | {"name": "onnx-fp32"}
    ]
    assert done["steps"][1]["report"]["published"][0]["name"] == "onnx-fp32"
    assert "secret-key" not in answer.text
    assert ada.get(done["links"]["model"]).json()["name"] == "digits"
    assert ada.get(done["links"]["version"]).json()["run"] == str(run_id)


def test_a_poll_with_the_etag_is_304_until_something_happens(ada: httpx2.Client, submit: Submit, begin: Begin) -> None:
    path = f"/api/v1/runs/{submit()}"
    first = ada.get(path)
    assert first.headers["retry-after"] == "1"
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    for sent in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        again = ada.get(path, headers={"If-None-Match": sent})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    finish(begin, UUID(first.json()["id"]))
    changed = ada.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert "retry-after" not in changed.headers


def test_runs_are_listed_newest_first_page_by_page_and_filtered(
    ada: httpx2.Client, submit: Submit, begin: Begin
) -> None:
    made = [str(submit(model=name)) for name in ("one", "two", "one", "two", "one")]
    finish(begin, UUID(made[0]))
    assert [run["id"] for run in ada.get("/api/v1/runs").json()["items"]] == made[::-1]

    seen: list[str] = []
    path = "/api/v1/runs?limit=2"
    while path:
        page = ada.get(path)
        body = page.json()
        seen += [run["id"] for run in body["items"]]
        link = page.links.get("next")
        path = link["url"] if link else ""
        assert bool(body["next"]) == bool(path)
    assert seen == made[::-1]

    def ids(**wanted: str) -> list[str]:
        return [run["id"] for run in ada.get("/api/v1/runs", params=wanted).json()["items"]]

    assert ids(model="two") == [made[3], made[1]]
    assert ids(status="succeeded") == [made[0]]
    assert ids(model="one", status="queued") == [made[4], made[2]]
    problem(ada.get("/api/v1/runs", params={"status": "lost"}), 422, "invalid_field")
    problem(ada.get("/api/v1/runs", params={"limit": 101}), 422, "invalid_field")
    problem(ada.get("/api/v1/runs", params={"cursor": "x"}), 400, "invalid_cursor")


def test_a_run_is_cancelled_once(ada: httpx2.Client, submit: Submit) -> None:
    run_id = submit()
    answer = ada.post(f"/api/v1/runs/{run_id}/cancel")
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/api/v1/runs/{run_id}"
    assert (answer.json()["status"], answer.json()["code"]) == ("cancelled", "cancelled")
    problem(ada.post(f"/api/v1/runs/{run_id}/cancel"), 409, "illegal_transition")


def test_a_failed_run_is_retried_from_where_it_stopped_or_from_a_stage(
    ada: httpx2.Client, submit: Submit, begin: Begin
) -> None:
    run_id = submit("scan", "convert", "promote")
    path = f"/api/v1/runs/{run_id}/retry"
    problem(ada.post(path), 409, "illegal_transition")
    move(begin, run_id, "scan", {"facts": {"verdict": "clean"}, "files": []})
    ada.post(f"/api/v1/runs/{run_id}/cancel")
    problem(ada.post(path, json={"from": "promote"}), 409, "illegal_transition")
    problem(ada.post(path, json={"from": 3}), 422, "invalid_field")

    plain = ada.post(path)
    assert (plain.status_code, plain.json()["status"], plain.json()["stage"]) == (202, "queued", "convert")
    ada.post(f"/api/v1/runs/{run_id}/cancel")
    back = ada.post(path, json={"from": "scan"}).json()
    assert (back["status"], back["stage"]) == ("queued", "scan")
    assert [step["status"] for step in back["steps"]] == ["queued", "pending", "pending"]


def test_a_run_whose_bytes_have_left_staging_is_not_retried(ada: httpx2.Client, submit: Submit, begin: Begin) -> None:
    run_id = submit()
    ada.post(f"/api/v1/runs/{run_id}/cancel")
    with begin() as session:
        store.note_cleaned(session, run_id)
    problem(ada.post(f"/api/v1/runs/{run_id}/retry"), 409, "bytes_gone")


def test_a_rejected_run_says_why(ada: httpx2.Client, submit: Submit, begin: Begin) -> None:
    run_id = submit()
    move(begin, run_id, "scan")
    with begin() as session:
        report = {"facts": {"verdict": "malicious"}, "files": []}
        engine.send(session, run_id, Refused(stage="scan", attempt=1, code="malware", detail="Eicar", report=report))
    run = ada.get(f"/api/v1/runs/{run_id}").json()
    assert (run["status"], run["stage"], run["code"], run["detail"]) == ("rejected", "scan", "malware", "Eicar")
    assert [step["status"] for step in run["steps"]] == ["refused", "skipped"]
    problem(ada.post(f"/api/v1/runs/{run_id}/retry"), 409, "illegal_transition")


def test_a_step_s_log_is_lines_of_text_that_can_be_continued(ada: httpx2.Client, submit: Submit, begin: Begin) -> None:
    run_id = submit()
    move(begin, run_id, "scan")
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    with begin() as session:
        store.add_logs(session, run_id, "scan", 1, [(at, "first"), (at, "sec\nond")])
        engine.send(session, run_id, Broke(stage="scan", attempt=1, code="worker_lost"))
        store.add_logs(session, run_id, "scan", 2, [(at, "third")])
    path = f"/api/v1/runs/{run_id}/steps/scan/log"
    answer = ada.get(path)
    assert answer.headers["content-type"].startswith("text/plain")
    stamp = at.isoformat()
    assert answer.text == f"{stamp} first\n{stamp} sec ond\n{stamp} third\n"
    assert ada.get(path, params={"attempt": 2}).text == f"{stamp} third\n"
    with begin() as session:
        store.add_logs(session, run_id, "scan", 2, [(at, "fourth")])
    more = ada.get(answer.links["next"]["url"])
    assert more.text == f"{stamp} fourth\n"
    assert ada.get(more.links["next"]["url"]).text == ""
    problem(ada.get(f"/api/v1/runs/{run_id}/steps/polish/log"), 404, "step_not_found")
    problem(ada.get(path, params={"after": -1}), 422, "invalid_field")
