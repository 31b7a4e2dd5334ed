"""Quarantine and review on real parts: an unknown file from its upload to the reviewer's decision, and what it changes."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import hashlib
import io
import os
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
import pyzipper
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pipeline import engine, reviewing, store
from pipeline.reviewing import Reviewer
from pipeline.run import Purpose, Run, Status, Step
from pipeline.sandbox import Zygote
from pipeline.stage import AntivirusVerdict, Report, Stage
from pipeline.stages import scan
from registry import audit, reviews
from registry import store as registry
from registry.audit import Actor
from shared.db import Begin
from shared.settings import Settings
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
from tests.integration.review_fixtures import (
    END,
    REASON,
    Yard,
    events_of,
    known_gadget,
    reviewer,
    unheard_of,
    waivable,
    waive_all,
    yard,
    zygote,
)
from workers.relay import clean
from workers.tasks import Tools, work

Join = Callable[..., Person]


def actions(client: httpx2.Client, subject: object) -> list[str]:
    return [each["action"] for each in client.get("/api/v1/audit", params={"subject": str(subject)}).json()["items"]]


def test_an_unknown_file_is_reviewed_waived_and_goes_on_to_success(
    yard: Yard, reviewer: Person, ada: httpx2.Client, join: Join
) -> None:
    content = unheard_of()
    run_id = yard.upload(content)
    assert yard.work(run_id) == "refused"
    yard.clean()  # the bytes are in quarantine storage now, and staging is empty
    version = yard.version(run_id)
    assert (version.verdict, yard.load(run_id).code) == ("unknown", "unknown_content")

    listed = reviewer.client.get("/api/v1/quarantine", params={"verdict": "unknown", "status": "waiting"}).json()
    mine = next(each for each in listed["items"] if each["id"] == str(version.id))
    assert {stop["severity"] for stop in mine["stops"]} == {"unknown"}
    seen = reviewer.client.get(f"/api/v1/quarantine/{version.id}").json()
    assert any("acme" in each["message"] for each in seen["findings"])
    assert seen["files"] == [{"role": "model", "name": "model.onnx", "sha256": version.sha256, "size": version.size}]

    taken = reviewer.client.get(f"/api/v1/quarantine/{version.id}/download")
    assert (taken.status_code, taken.headers["content-type"]) == (200, "application/zip")
    assert content not in taken.content
    with pyzipper.AESZipFile(io.BytesIO(taken.content)) as archive:
        assert all(member.flag_bits & 1 for member in archive.infolist())
        with pytest.raises(RuntimeError):
            archive.read("model/model.onnx")
        archive.setpassword(b"infected")
        assert archive.read("model/model.onnx") == content

    answer = waive_all(yard, reviewer.client, run_id)
    body = answer.json()
    assert body["resumed"] is True
    assert answer.headers["location"] == f"/api/v1/runs/{run_id}"
    assert reviewer.client.get(answer.headers["location"]).json()["status"] == "queued"
    assert yard.load(run_id).status is Status.QUEUED
    assert yard.version(run_id).verdict == "unknown", "nothing is clean before the scan has looked again"

    assert yard.work(run_id) == "passed"
    facts = yard.facts(run_id)
    assert facts["verdict"] == "clean"
    assert all(each["waived"] for each in facts["findings"] if each["severity"] == "unknown")
    assert yard.work(run_id, stage=END) == "passed"
    assert yard.load(run_id).status is Status.SUCCEEDED
    yard.clean()
    after = yard.version(run_id)
    assert (after.verdict, yard.quarantine.read(after.original_key)) == ("clean", content)
    shown = ada.get(f"/api/v1/models/{after.model_id}/versions/1.0.0").json()["waivers"]
    assert {(each["rule"], each["counts"]) for each in shown} == {(rule, True) for rule in waivable(yard, run_id)}
    kinds = [each["kind"] for each in events_of(yard, run_id)]
    assert kinds == ["submitted", "claimed", "refused", "resumed", "claimed", "passed", "claimed", "passed"]

    admin = join("admin").client
    assert actions(admin, after.id) == [
        "alias.moved",
        "verdict.changed",
        *["waiver.granted"] * len(shown),
        "quarantine.downloaded",
        "verdict.changed",
    ]
    check = admin.get("/api/v1/audit/check").json()
    assert check["intact"] is True
    problem(reviewer.client.get("/api/v1/audit"), 403, "forbidden")


def test_a_run_that_is_resumed_before_the_cleanup_came_reads_from_staging(yard: Yard, reviewer: Person) -> None:
    yard.clean()
    run_id = yard.upload(unheard_of())
    yard.work(run_id)
    waive_all(yard, reviewer.client, run_id)
    assert yard.clean() == 0, "the run is live again, so its bytes stay where they are"
    assert (yard.work(run_id), yard.version(run_id).original_key) == ("passed", None)


def test_one_waiver_of_two_leaves_the_run_where_it_is(yard: Yard, reviewer: Person) -> None:
    run_id = yard.upload(unheard_of() + b"\x93nobody knows this")
    yard.work(run_id)
    rules = waivable(yard, run_id)
    assert len(rules) > 1
    version = yard.version(run_id).id
    body = {"rule": rules[0], "reason": REASON, "days": 1}
    answer = reviewer.client.post(f"/api/v1/quarantine/{version}/waivers", json=body).json()
    assert answer["resumed"] is False
    assert [stop["rule"] for stop in answer["remaining"]] == rules[1:]
    assert yard.load(run_id).status is Status.REJECTED


@pytest.mark.parametrize("permissions", [("admin",), ("models:review", "models:read", "models:upload")])
def test_nobody_waives_what_they_have_uploaded_not_even_an_admin(
    yard: Yard, join: Join, begin: Begin, permissions: tuple[str, ...]
) -> None:
    content = unheard_of()
    run_id = yard.upload(content)
    yard.work(run_id)
    version = yard.version(run_id)
    me = join(*permissions)
    with begin() as session:  # the same bytes, uploaded by the reviewer under another name
        intake = registry.Intake(
            owner_id=me.id,
            model="mine",
            version=None,
            bump="minor",
            format="onnx",
            servable=True,
            filename="other.onnx",
            size=3,
            sha256=version.sha256,
            staging_key="k",
            declared={},
            side_files={},
        )
        registry.add_version(session, intake)
    body = {"rule": waivable(yard, run_id)[0], "reason": REASON, "days": 1}
    refused = problem(me.client.post(f"/api/v1/quarantine/{version.id}/waivers", json=body), 403, "own_upload")
    assert "Ask another reviewer" in str(refused["hint"])
    assert yard.load(run_id).status is Status.REJECTED
    with begin() as session:
        assert reviews.waivers_for(session, [version.sha256]) == []


def test_what_is_malicious_cannot_be_waived(yard: Yard, reviewer: Person) -> None:
    run_id = yard.upload(known_gadget())
    yard.work(run_id)
    version = yard.version(run_id)
    assert version.verdict == "malicious"
    stops = {stop["rule"]: stop["severity"] for stop in yard.facts(run_id)["stops"]}
    address = f"/api/v1/quarantine/{version.id}/waivers"
    for rule, severity in stops.items():
        answer = reviewer.client.post(address, json={"rule": rule, "reason": REASON, "days": 1})
        if severity == "malicious":
            assert "malicious" in str(problem(answer, 409, "not_waivable")["detail"])
        else:
            assert answer.json()["resumed"] is False
    assert yard.load(run_id).status is Status.REJECTED


def test_a_waiver_is_for_its_file_and_its_rule_only(yard: Yard, reviewer: Person) -> None:
    first, second = yard.upload(unheard_of()), yard.upload(unheard_of())
    for run_id in (first, second):
        yard.work(run_id)
    waive_all(yard, reviewer.client, first)
    again = yard.upload(unheard_of())
    assert (yard.work(first), yard.work(again)) == ("passed", "refused")
    version = yard.version(second).id
    other = {"rule": "pickle.gadget", "reason": REASON, "days": 1}
    problem(reviewer.client.post(f"/api/v1/quarantine/{version}/waivers", json=other), 409, "nothing_to_waive")
    twice = {"rule": waivable(yard, first)[0], "reason": REASON, "days": 1}
    address = f"/api/v1/quarantine/{yard.version(first).id}/waivers"
    assert reviewer.client.post(address, json=twice).status_code == 409


def test_the_same_bytes_pass_under_a_waiver_that_counts_and_not_under_one_that_is_over(
    yard: Yard, reviewer: Person, begin: Begin
) -> None:
    content = unheard_of()
    first = yard.upload(content)
    yard.work(first)
    waive_all(yard, reviewer.client, first)
    assert yard.work(yard.upload(content)) == "passed"
    digest = hashlib.sha256(content).hexdigest()
    with begin() as session:
        session.execute(text("UPDATE waivers SET expires_at = now() WHERE sha256 = :d"), {"d": digest})
    assert yard.work(yard.upload(content)) == "refused"


@pytest.mark.parametrize(
    "wrong",
    [
        {"days": 0},
        {"days": 1000},
        {},
        {"days": 1, "expires_at": "2100-01-01T00:00:00Z"},
        {"expires_at": "2000-01-01T00:00:00Z"},
        {"expires_at": "2100-01-01T00:00:00Z"},
        {"expires_at": "2027-01-01T00:00:00"},
        {"days": 1, "reason": "because"},
        {"days": 1, "sha256": "x"},
    ],
)
def test_a_waiver_needs_a_reason_and_an_end(yard: Yard, reviewer: Person, wrong: dict[str, Any]) -> None:
    run_id = yard.upload(unheard_of())
    yard.work(run_id)
    body = {"rule": waivable(yard, run_id)[0], "reason": REASON, **wrong}
    answer = reviewer.client.post(f"/api/v1/quarantine/{yard.version(run_id).id}/waivers", json=body)
    problem(answer, 422, "invalid_field")


def test_a_condemned_file_never_passes_again_wherever_it_comes_from(
    yard: Yard, reviewer: Person, ada: httpx2.Client, join: Join, begin: Begin
) -> None:
    content = unheard_of()
    first, second = yard.upload(content), yard.upload(content)
    yard.work(first)
    waive_all(yard, reviewer.client, first)
    assert (yard.work(first), yard.work(second)) == ("passed", "passed")
    yard.work(first, stage=END)
    version = yard.version(first)
    download = f"/api/v1/models/{version.model_id}/versions/1.0.0/download"
    assert ada.get(download).status_code == 200

    address = f"/api/v1/quarantine/{version.id}/condemn"
    done = reviewer.client.post(address, json={"reason": "It opens a shell after all."})
    assert (done.status_code, done.json()["sha256"]) == (200, version.sha256)
    problem(ada.get(download), 423, "quarantined")
    assert yard.version(second).verdict == "malicious"
    third = yard.upload(content)
    assert (yard.work(third), yard.load(third).code) == ("refused", "condemned")
    assert "after all" not in str(yard.load(third).detail), "the reason is not for everybody who holds the file"
    body = {"rule": waivable(yard, third)[0], "reason": REASON, "days": 1}
    waivers = f"/api/v1/quarantine/{yard.version(third).id}/waivers"
    problem(reviewer.client.post(waivers, json=body), 409, "condemned")

    again = reviewer.client.post(address, json={"reason": "Saying it twice changes nothing."})
    assert again.json() == done.json()
    listed = reviewer.client.get("/api/v1/quarantine", params={"status": "condemned"}).json()["items"]
    assert str(version.id) in {each["id"] for each in listed}
    assert actions(join("admin").client, version.id)[:2] == ["verdict.changed", "file.condemned"]


def test_a_file_that_is_condemned_while_it_is_scanned_stays_malicious(
    yard: Yard, reviewer: Person, begin: Begin
) -> None:
    run_id = yard.upload(b"plain text, nothing else\n" + uuid4().hex.encode())
    version = yard.version(run_id)
    with begin() as session:
        who = {"by": reviewer.id, "actor": Actor(id=reviewer.id, name=reviewer.username)}
        reviews.condemn(session, version.sha256, reason="known elsewhere", version_id=version.id, **who)
    with begin() as session:
        assert reviews.judge(session, version.id, "clean") == "malicious"


def test_a_side_file_is_waived_and_condemned_by_its_own_digest(yard: Yard, reviewer: Person, begin: Begin) -> None:
    run_id = yard.upload(b"plain text\n" + uuid4().hex.encode())
    side = b"key: AKIA" + b"ABCDEFGHIJKLMNOP\n" + uuid4().hex.encode()
    digest = hashlib.sha256(side).hexdigest()
    version = yard.version(run_id)
    key = version.staging_key.replace("/model/model.onnx", "/config/config.txt")
    yard.staging.put(key, side)
    with begin() as session:
        file = {"name": "config.txt", "key": key, "sha256": digest, "size": len(side)}
        registry.keep_original(session, version.id, None, {"config": file})  # type: ignore[arg-type]
    yard.work(run_id)
    yard.clean()
    stops = {(stop["rule"], stop["sha256"]) for stop in yard.facts(run_id)["stops"]}
    assert digest in {sha256 for _, sha256 in stops}
    with pyzipper.AESZipFile(
        io.BytesIO(reviewer.client.get(f"/api/v1/quarantine/{version.id}/download").content)
    ) as archive:
        archive.setpassword(b"infected")
        assert archive.read("config/config.txt") == side
    waive_all(yard, reviewer.client, run_id)
    assert yard.work(run_id) == "passed"
    body = {"reason": "A key that works.", "sha256": digest}
    assert reviewer.client.post(f"/api/v1/quarantine/{version.id}/condemn", json=body).status_code == 200
    assert yard.version(run_id).verdict == "malicious"
    problem(
        reviewer.client.post(f"/api/v1/quarantine/{version.id}/condemn", json={**body, "sha256": "0" * 64}),
        409,
        "no_such_file",
    )


def test_a_revoked_waiver_has_its_versions_scanned_again_at_once(
    yard: Yard, reviewer: Person, ada: httpx2.Client, join: Join
) -> None:
    run_id = yard.upload(unheard_of())
    yard.work(run_id)
    waive_all(yard, reviewer.client, run_id)
    yard.work(run_id)
    yard.work(run_id, stage=END)
    yard.clean()
    version = yard.version(run_id)
    waiver = reviewer.client.get(f"/api/v1/quarantine/{version.id}").json()["waivers"][0]
    answer = reviewer.client.delete(f"/api/v1/waivers/{waiver['id']}").json()
    assert answer["waiver"]["counts"] is False
    (look,) = map(UUID, answer["runs"])
    assert ada.get(f"/api/v1/runs/{look}").json()["purpose"] == "rescan"
    problem(ada.post(f"/api/v1/runs/{look}/cancel"), 403, "forbidden")
    assert yard.work(look) == "refused"
    yard.clean()
    assert yard.version(run_id).verdict == "unknown"
    problem(ada.get(f"/api/v1/models/{version.model_id}/versions/1.0.0/download"), 423, "quarantined")
    problem(reviewer.client.delete(f"/api/v1/waivers/{waiver['id']}"), 404, "waiver_not_found")

    waive_all(yard, reviewer.client, look)  # on second thoughts: the re-scan is resumed, not the run before it
    assert yard.work(look) == "passed"
    yard.clean()
    after = yard.version(run_id)
    assert (after.verdict, after.published_at) == ("clean", version.published_at)
    assert yard.load(run_id).status is Status.SUCCEEDED


def test_the_quarantine_is_read_page_by_page(yard: Yard, reviewer: Person) -> None:
    runs = [yard.upload(unheard_of()) for _ in range(3)]
    for run_id in runs:
        yard.work(run_id)
    found: list[str] = []
    page = reviewer.client.get("/api/v1/quarantine", params={"limit": 2, "verdict": "unknown"})
    while True:
        found += [each["id"] for each in page.json()["items"]]
        if page.json()["next"] is None:
            break
        page = reviewer.client.get(page.headers["link"].partition(">")[0].removeprefix("<"))
    assert len(found) == len(set(found))
    assert {str(yard.version(run_id).id) for run_id in runs} <= set(found)


def test_bytes_that_are_gone_are_said_to_be_gone(yard: Yard, reviewer: Person) -> None:
    run_id = yard.upload(unheard_of())
    yard.work(run_id)
    version = yard.version(run_id)
    yard.staging.delete([version.staging_key])
    problem(reviewer.client.get(f"/api/v1/quarantine/{version.id}/download"), 409, "bytes_missing")


def test_the_audit_trail_shows_what_was_changed_removed_or_put_between(begin: Begin, settings: Settings) -> None:
    with begin() as session:
        for number in range(5):
            audit.append(session, audit.SLIPWAY, "test.done", f"thing-{number}", {"number": number, "text": "é\n"})
    with begin() as session:
        whole = audit.verify(session, ())
    assert whole.broken_at is None
    assert whole.entries >= 5
    last = whole.entries
    for statement in (
        "UPDATE audit SET actor = 'nobody' WHERE id = :id",
        "UPDATE audit SET details = '{}' WHERE id = :id",
        "UPDATE audit SET at = at + interval '1 microsecond' WHERE id = :id",
        "DELETE FROM audit WHERE id = :id",
    ):
        with pytest.raises(DBAPIError, match="append-only"), begin() as session:
            session.execute(text(statement), {"id": last - 1})

        def forge(statement: str = statement) -> None:
            with begin() as session:
                session.execute(text("ALTER TABLE audit DISABLE TRIGGER append_only"))  # what only its owner can
                session.execute(text(statement), {"id": last - 1})
                chain = audit.verify(session, ())
                assert chain.faults == (
                    audit.Fault(
                        what="removed" if statement.startswith("DELETE") else "changed", first=last - 1, last=last - 1
                    ),
                )
                assert chain.entries == last - 2
                raise ZeroDivisionError  # and take it back

        with pytest.raises(ZeroDivisionError):
            forge()
    with begin() as session:
        assert audit.verify(session, ()) == whole


def test_entries_of_many_at_once_stand_in_one_row(begin: Begin) -> None:
    import threading

    def write(name: str) -> None:
        for _ in range(5):
            with begin() as session:
                audit.append(session, Actor(id=None, name=name), "test.raced", name, {})

    threads = [threading.Thread(target=write, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with begin() as session:
        assert audit.verify(session, ()).broken_at is None
        assert len(audit.entries(session, action="test.raced", limit=100)) == 30


def test_the_audit_trail_is_read_page_by_page_and_filtered(join: Join, begin: Begin) -> None:
    with begin() as session:
        for _ in range(3):
            audit.append(session, audit.SLIPWAY, "test.paged", "paged", {})
    admin = join("admin").client
    first = admin.get("/api/v1/audit", params={"action": "test.paged", "limit": 2})
    rest = admin.get(first.headers["link"].partition(">")[0].removeprefix("<")).json()
    ids = [each["id"] for each in (*first.json()["items"], *rest["items"])]
    assert ids == sorted(ids, reverse=True)
    assert (len(ids), rest["next"]) == (3, None)
