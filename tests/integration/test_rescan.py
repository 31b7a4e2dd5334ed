"""New rules over what was let in: a hit takes the verdict back, with everything that was made of the file."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import text

from pipeline.readers.allowed import Allowed
from pipeline.run import Status
from pipeline.stage import Stage
from pipeline.stages import scan
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Storage
from tests.integration.api_fixtures import Person, ada, app, join, parts, problem, served, url
from tests.integration.review_fixtures import (
    END,
    Yard,
    reviewer,
    unheard_of,
    waive_all,
    yard,
    zygote,
)
from workers.relay import Relay
from workers.rescan import current_rules, queue

OPINION = "tests.second_opinion:examine"
STRICTER = current_rules([OPINION])
STAGES = (scan.STAGE, END)
ARTIFACT = {
    "name": "onnx-fp32",
    "role": "canonical",
    "key": "k",
    "sha256": "1" * 64,
    "size": 1,
    "media_type": "a/b",
    "meta": {},
}


@pytest.fixture
def later(yard: Yard) -> Yard:
    """The same yard once a second opinion is asked, which is a new rule."""
    return replace(yard, tools=replace(yard.tools, options={"second_opinions": (OPINION,)}))


def publishing(ctx: Any) -> Any:
    return replace(END.run(ctx), facts={"published": [ARTIFACT]})


PUBLISH = replace(END, run=publishing)


def let_in(yard: Yard, content: bytes) -> UUID:
    run_id = yard.upload(content)
    assert (yard.work(run_id), yard.work(run_id, stage=PUBLISH)) == ("passed", "passed")
    yard.clean()
    return run_id


def looks(yard: Yard, run_id: UUID) -> list[UUID]:
    """The live re-scans of a run's version."""
    with yard.tools.begin() as session:
        return list(
            session.execute(
                text("SELECT id FROM runs WHERE version_id = :id AND purpose = 'rescan' AND status = 'queued'"),
                {"id": yard.version(run_id).id},
            ).scalars()
        )


@pytest.fixture(autouse=True)
def _quiet(begin: Begin) -> None:
    """Nothing of the tests before is due."""
    with begin() as session:
        session.execute(text("UPDATE versions SET verdict = 'malicious' WHERE verdict = 'clean'"))


def test_stricter_rules_take_back_what_was_let_in_and_all_that_was_made_of_it(
    yard: Yard, later: Yard, ada: httpx2.Client, join: Callable[..., Person]
) -> None:
    good, bad = let_in(yard, b"fine\n" + uuid4().hex.encode()), let_in(yard, b"forbidden\n" + uuid4().hex.encode())
    downloads = {
        run_id: f"/api/v1/models/{yard.version(run_id).model_id}/versions/1.0.0/download" for run_id in (good, bad)
    }
    for address in downloads.values():
        for artifact in ("source", "onnx-fp32"):
            assert ada.get(address, params={"artifact": artifact}).status_code == 200

    assert queue(yard.tools.begin, STAGES, current_rules([])) == 0, "judged by these rules already"
    assert queue(yard.tools.begin, STAGES, STRICTER) == 2
    assert queue(yard.tools.begin, STAGES, STRICTER) == 0, "each is queued once"
    for run_id, outcome in ((good, "passed"), (bad, "refused")):
        (look,) = looks(yard, run_id)
        assert later.work(look) == outcome
    yard.clean()

    assert ada.get(downloads[good]).status_code == 200
    for artifact in ("source", "onnx-fp32"):
        problem(ada.get(downloads[bad], params={"artifact": artifact}), 423, "quarantined")
    assert yard.version(bad).verdict == "unknown"
    assert yard.load(bad).status is Status.SUCCEEDED, "what happened has happened"
    newest = ada.get("/api/v1/runs", params={"status": "rejected"}).json()["items"][0]
    assert (newest["purpose"], newest["code"]) == ("rescan", "unknown_content")
    trail = join("admin").client.get("/api/v1/audit", params={"subject": str(yard.version(bad).id)}).json()["items"]
    assert (trail[0]["action"], trail[0]["details"]["to"]) == ("verdict.changed", "unknown")
    assert queue(yard.tools.begin, STAGES, STRICTER) == 0, "nothing is looked at twice by the same rules"


def test_a_name_that_lost_its_place_on_the_list_locks_the_version_before_any_byte_is_fetched(
    yard: Yard, ada: httpx2.Client, join: Callable[..., Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = let_in(yard, b"ccollections\nOrderedDict\n(tR.")
    kept = let_in(yard, b"fine\n" + uuid4().hex.encode())
    version = yard.version(run_id)
    assert {"reader": "pickle", "name": "collections OrderedDict", "path": "model.onnx"} in yard.facts(run_id)[
        "summary"
    ]["names"]
    yard.quarantine.delete([version.original_key])
    monkeypatch.setattr("pipeline.readers.pickle.frameworks", Allowed)
    for name in ("TENSORS", "SCRIPT"):
        monkeypatch.setattr(f"pipeline.readers.pickle.{name}", Allowed())
    assert queue(yard.tools.begin, STAGES, "pickle/9") == 2
    assert (yard.version(run_id).verdict, yard.version(kept).verdict) == ("unknown", "clean")
    problem(ada.get(f"/api/v1/models/{version.model_id}/versions/1.0.0/download"), 423, "quarantined")
    trail = join("admin").client.get("/api/v1/audit", params={"subject": str(version.id)}).json()["items"]
    assert trail[0]["details"]["names"][0]["name"] == "collections OrderedDict"
    assert trail[0]["details"]["run"] == str(looks(yard, run_id)[0])


def test_a_re_scan_that_finds_nothing_changes_nothing_but_the_rules(yard: Yard, later: Yard) -> None:
    run_id = let_in(yard, b"fine\n" + uuid4().hex.encode())
    before = yard.version(run_id)
    queue(yard.tools.begin, STAGES, STRICTER)
    (look,) = looks(yard, run_id)
    assert later.work(look) == "passed"
    after = yard.version(run_id)
    assert after.ruleset == STRICTER
    same = ("verdict", "published_at", "status", "original_key", "side_files")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]


def test_a_version_whose_waiver_has_ended_is_looked_at_and_locked(
    yard: Yard, reviewer: Person, ada: httpx2.Client, begin: Begin
) -> None:
    run_id = yard.upload(unheard_of())
    yard.work(run_id)
    waive_all(yard, reviewer.client, run_id)
    assert (yard.work(run_id), yard.work(run_id, stage=END)) == ("passed", "passed")
    yard.clean()
    version = yard.version(run_id)
    assert queue(yard.tools.begin, STAGES, version.ruleset) == 0
    with begin() as session:  # time goes by
        for table, column in (("waivers", "expires_at"), ("versions", "waived_until")):
            session.execute(text(f"UPDATE {table} SET {column} = now() WHERE sha256 = :d"), {"d": version.sha256})
    shown = ada.get(f"/api/v1/models/{version.model_id}/versions/1.0.0").json()
    assert shown["verdict"] == "clean"
    assert {each["counts"] for each in shown["waivers"]} == {False}
    assert queue(yard.tools.begin, STAGES, version.ruleset) == 1
    (look,) = looks(yard, run_id)
    assert yard.work(look) == "refused"
    problem(ada.get(f"/api/v1/models/{version.model_id}/versions/1.0.0/download"), 423, "quarantined")


def test_the_relay_looks_by_itself_unless_it_is_told_not_to(yard: Yard, settings: Settings) -> None:
    run_id = let_in(yard, b"fine\n" + uuid4().hex.encode())
    for interval, found in ((0.0, 0), (3600.0, 1)):
        relay = Relay(
            settings.model_copy(
                update={"rescan_interval": interval, "second_opinions": (OPINION,), "sweep_interval": 0.0}
            )
        )
        for _ in range(2):
            relay._keep_house()
        relay.close()
        assert len(looks(yard, run_id)) == found


def test_versions_whose_run_goes_on_are_left_to_it(yard: Yard) -> None:
    run_id = yard.upload(b"fine\n" + uuid4().hex.encode())
    yard.work(run_id)
    assert yard.version(run_id).verdict == "clean"
    assert queue(yard.tools.begin, STAGES, STRICTER) == 0


@pytest.mark.parametrize(("word", "says"), [(b"crash", "stumbles"), (b"babble", "no sense")])
def test_a_second_opinion_that_stumbles_or_babbles_is_unknown(later: Yard, word: bytes, says: str) -> None:
    run_id = later.upload(word + b"\n" + uuid4().hex.encode())
    assert later.work(run_id) == "refused"
    (finding, *_) = later.facts(run_id)["findings"]
    assert (finding["rule"], finding["severity"]) == ("opinion.second_opinion", "unknown")
    assert says in finding["message"]


def test_a_second_opinion_takes_nothing_away(later: Yard) -> None:
    content = unheard_of()
    run_id = later.upload(content)
    assert later.work(run_id) == "refused"
    found = {each["rule"]: each["severity"] for each in later.facts(run_id)["findings"]}
    assert found["opinion.second_opinion"] == "info"
    assert "unknown" in found.values()
    assert later.facts(run_id)["ruleset"].endswith(" +second_opinion")


def test_the_operator_s_command_queues_looks_and_checks_the_trail(
    yard: Yard, environment: dict[str, str], begin: Begin
) -> None:
    run_id = let_in(yard, b"fine\n" + uuid4().hex.encode())

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "workers.admin", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    assert command("rescan").stdout.startswith("0 re-scans")
    assert command("rescan", "--all").stdout.startswith("1 re-scans")
    assert len(looks(yard, run_id)) == 1
    audited = command("audit")
    assert (audited.returncode, "intact" in audited.stdout) == (0, True)
    with begin() as session:
        session.execute(text("ALTER TABLE audit DISABLE TRIGGER append_only"))
        session.execute(text("UPDATE audit SET subject = 'another' WHERE id = 1"))
    broken = command("audit")
    assert (broken.returncode, "Entry 1: changed" in broken.stderr) == (1, True)


def test_a_second_opinion_that_is_not_there_stops_the_worker_at_its_start(environment: dict[str, str]) -> None:
    for name, says in (
        ("nowhere.at_all:examine", "cannot be imported"),
        ("pipeline.opinions.picklescan:examine", "needs picklescan"),
        ("pipeline.readers:nothing", "no such public function"),
    ):
        started = subprocess.run(
            [sys.executable, "-m", "workers", "cpu", "1"],
            env=environment | {"SECOND_OPINIONS": f'["{name}"]'},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert started.returncode != 0
        assert says in started.stderr
