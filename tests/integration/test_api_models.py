"""Models, versions, artifacts and downloads as clients see them."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import text

from pipeline import engine, store
from pipeline.run import Refused
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Storage
from tests.integration.api_fixtures import (
    Person,
    ada,
    app,
    join,
    parts,
    problem,
    served,
    url,
)
from tests.integration.test_api_runs import move

Submit = Callable[..., UUID]
SHA = "b" * 64


def entry(name: str, role: str, key: str, size: int = 3) -> dict[str, Any]:
    return {
        "name": name,
        "role": role,
        "key": key,
        "sha256": SHA,
        "size": size,
        "media_type": "application/octet-stream",
        "meta": {},
    }


FAST, CANONICAL, MANIFEST = "onnx-int8-dynamic", "onnx-fp32", "manifest.json"
PUBLISHED = [
    entry(CANONICAL, "canonical", f"sha256/bb/{SHA}/onnx-fp32.onnx"),
    entry(FAST, "variant", f"sha256/bb/{SHA}/onnx-int8-dynamic.onnx"),
    entry(MANIFEST, "manifest", f"sha256/bb/{SHA}/manifest.json"),
]
OPTIMIZED = {"variants": [{"name": FAST, "verified": True, "withheld": False}]}
TERM = {"term": "agreement", "points": 40.0, "of": 40, "because": "0 of 310 decisions differ"}
MEASURED = {
    "quality": {"of": FAST, "score": 100.0, "terms": [TERM]},
    "rows": [
        {"name": "source", "role": "source", "speedup": 9.0},
        {"name": CANONICAL, "role": "canonical", "speedup": 1.4},
        {"name": FAST, "role": "variant", "speedup": 2.1},
    ],
}


def promote(begin: Begin, run_id: UUID) -> None:
    facts = {
        "scan": {"verdict": "clean"},
        "optimize": OPTIMIZED,
        "benchmark": MEASURED,
        "promote": {"published": PUBLISHED},
    }
    for stage, learned in facts.items():
        move(begin, run_id, stage, {"facts": learned, "files": []})


STAGES = ("scan", "optimize", "benchmark", "promote")


def test_models_are_listed_with_their_latest_version_and_filtered(ada: httpx2.Client, submit: Submit) -> None:
    for name in ("digits", "faces", "digits"):
        submit(model=name)
    listed = ada.get("/api/v1/models").json()
    assert [(model["name"], model["latest"]["version"]) for model in listed["items"]] == [
        ("faces", "1.0.0"),
        ("digits", "1.1.0"),
    ]
    assert (listed["next"], listed["total"]) == (None, None)
    assert listed["items"][0]["owner"].startswith("ada-")

    def names(**wanted: Any) -> list[str]:
        return [model["name"] for model in ada.get("/api/v1/models", params=wanted).json()["items"]]

    assert names(search="DIG") == ["digits"]
    assert names(search="100%") == []
    assert names(status="testing") == names()
    assert names(status="archived") == []
    assert names(framework="pytorch") == []


def test_the_model_list_is_read_by_cursor_by_page_or_by_skip(ada: httpx2.Client, submit: Submit) -> None:
    made = [f"m{number}" for number in range(5)]
    for name in made:
        submit(model=name)
    newest_first = made[::-1]

    def page(**wanted: Any) -> tuple[list[str], int | None]:
        body = ada.get("/api/v1/models", params=wanted).json()
        return [model["name"] for model in body["items"]], body["total"]

    seen: list[str] = []
    address = "/api/v1/models?limit=2"
    while address:
        answer = ada.get(address)
        seen += [model["name"] for model in answer.json()["items"]]
        address = answer.links["next"]["url"] if "next" in answer.links else ""
    assert seen == newest_first
    assert page(page=2, size=2) == (newest_first[2:4], 5)
    assert page(skip=3, limit=10) == (newest_first[3:], 5)
    assert page(skip=0, limit=1) == (newest_first[:1], 5)
    problem(ada.get("/api/v1/models", params={"page": 1, "skip": 2}), 422, "invalid_field")


def test_a_model_is_found_by_name_and_id_and_its_versions_by_semver_ordinal_and_latest(
    ada: httpx2.Client, submit: Submit
) -> None:
    runs = [submit(model="digits") for _ in range(3)]
    model = ada.get("/api/v1/models/digits").json()
    assert ada.get(f"/api/v1/models/{model['id']}").json() == model
    assert model["latest"]["ordinal"] == 3
    versions = ada.get(model["links"]["versions"]).json()["items"]
    assert [(each["version"], each["run"]) for each in versions] == [
        ("1.2.0", str(runs[2])),
        ("1.1.0", str(runs[1])),
        ("1.0.0", str(runs[0])),
    ]
    for reference, version in (("1.1.0", "1.1.0"), ("v1.1", "1.1.0"), ("2", "1.1.0"), ("latest", "1.2.0")):
        found = ada.get(f"/api/v1/models/digits/versions/{reference}").json()
        assert found["version"] == version
        assert found["verdict"] == "pending"
        assert [one["name"] for one in found["artifacts"]] == ["source"]
        assert ada.get(found["links"]["self"]).json() == found
        assert ada.get(found["links"]["run"]).json()["version"] == version
    for reference in ("9", "9.9.9", "newest", "1.0.0.0"):
        problem(ada.get(f"/api/v1/models/digits/versions/{reference}"), 404, "version_not_found")
    problem(ada.get("/api/v1/models/nothing"), 404, "model_not_found")


def test_nothing_that_clients_see_tells_where_bytes_are_stored(
    ada: httpx2.Client, submit: Submit, begin: Begin
) -> None:
    run_id = submit(*STAGES, model="digits", key="secret-place/model/model.onnx")
    promote(begin, run_id)
    with begin() as session:
        side = '{"config": {"name": "c.yaml", "key": "secret-place/config", "sha256": "c", "size": 1}}'
        session.execute(
            text("UPDATE versions SET side_files = CAST(:side AS jsonb) WHERE id = :id"),
            {"side": side, "id": store.version_of(session, run_id)},
        )
    for path in ("", "/versions", "/versions/latest", "/versions/latest/artifacts"):
        answer = ada.get(f"/api/v1/models/digits{path}")
        assert answer.status_code == 200
        assert "secret-place" not in answer.text
        assert "sha256/bb" not in answer.text
        assert '"key"' not in answer.text
    assert ada.get("/api/v1/models/digits/versions/latest").json()["side_files"] == {
        "config": {"name": "c.yaml", "sha256": "c", "size": 1}
    }


def test_bytes_are_handed_out_only_when_the_scan_found_them_clean(
    ada: httpx2.Client, submit: Submit, begin: Begin
) -> None:
    run_id = submit(model="digits")
    path = "/api/v1/models/digits/versions/1.0.0/download"
    for artifact in (None, "source"):
        wanted = {"artifact": artifact} if artifact else {}
        problem(ada.get(path, params=wanted), 423, "not_yet_scanned")
    move(begin, run_id, "scan")
    with begin() as session:
        report = {"facts": {"verdict": "malicious"}, "files": []}
        engine.send(session, run_id, Refused(stage="scan", attempt=1, code="malware", report=report))
    problem(ada.get(path, params={"artifact": "source"}), 423, "quarantined")


def test_the_source_is_downloaded_from_where_it_rests_under_its_own_name(
    ada: httpx2.Client, submit: Submit, begin: Begin, storage: Storage, settings: Settings
) -> None:
    staging, quarantine = (storage.bucket(settings.bucket(room)) for room in ("staging", "quarantine"))
    staging.put("up/model/model.onnx", b"new", "application/octet-stream")
    run_id = submit(model="digits", key="up/model/model.onnx")
    move(begin, run_id, "scan", {"facts": {"verdict": "clean"}, "files": []})
    path = "/api/v1/models/digits/versions/1.0.0/download"

    said = ada.get(path).json()  # nothing is published yet, so the default is the source
    assert (said["name"], said["filename"], said["size"], said["expires_in"]) == ("source", "model.onnx", 3, 300)
    assert httpx2.get(said["url"]).content == b"new"

    quarantine.put("kept/model.onnx", b"old", "application/octet-stream")
    with begin() as session:
        session.execute(
            text("UPDATE versions SET original_key = 'kept/model.onnx' WHERE id = :id"),
            {"id": store.version_of(session, run_id)},
        )
    got = httpx2.get(ada.get(path, params={"artifact": "source"}).json()["url"])
    assert got.content == b"old"
    assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''model.onnx"


def test_the_default_download_is_the_fastest_verified_variant(
    ada: httpx2.Client, submit: Submit, begin: Begin, storage: Storage, settings: Settings
) -> None:
    registry = storage.bucket(settings.bucket("registry"))
    for each in PUBLISHED:
        registry.put(each["key"], each["name"][-3:].encode(), "application/octet-stream")
    run_id = submit(*STAGES, model="digits")
    promote(begin, run_id)
    path = "/api/v1/models/digits/versions/latest/download"
    said = ada.get(path).json()
    assert (said["name"], said["filename"]) == (FAST, "digits-1.0.0-onnx-int8-dynamic.onnx")
    assert httpx2.get(said["url"]).content == b"mic"
    manifest = ada.get(path, params={"artifact": MANIFEST}).json()
    assert (manifest["filename"], httpx2.get(manifest["url"]).content) == ("digits-1.0.0-manifest.json", b"son")
    problem(ada.get(path, params={"artifact": "onnx-fp16"}), 404, "artifact_not_found")
    listed = ada.get("/api/v1/models/digits/versions/latest/artifacts").json()["items"]
    assert [one["name"] for one in listed] == ["source", CANONICAL, MANIFEST, FAST]


def test_a_published_version_shows_its_quality_and_what_that_is_made_of(
    ada: httpx2.Client, submit: Submit, begin: Begin
) -> None:
    run_id = submit(*STAGES, model="digits")
    path = "/api/v1/models/digits/versions/latest"
    assert ada.get(path).json()["quality"] is None
    promote(begin, run_id)
    assert ada.get(path).json()["quality"] == {"of": FAST, "score": 100.0, "terms": [TERM]}


def test_a_public_model_is_open_to_all_but_its_runs_are_not(
    ada: httpx2.Client, submit: Submit, begin: Begin, join: Callable[..., Person]
) -> None:
    run_id = submit(*STAGES, model="digits")
    promote(begin, run_id)
    model = ada.get("/api/v1/models/digits").json()["id"]
    with begin() as session:
        session.execute(text("UPDATE models SET visibility = 'public' WHERE id = :id"), {"id": model})
    stranger = join().client
    version = stranger.get(f"/api/v1/models/{model}/versions/latest").json()
    assert (version["version"], version["run"]) == ("1.0.0", None)
    assert stranger.get(version["links"]["download"]).json()["name"] == FAST
    source = {"artifact": "source"}
    problem(stranger.get(version["links"]["download"], params=source), 404, "artifact_not_found")
    assert ada.get(version["links"]["download"], params=source).json()["name"] == "source"
    problem(stranger.get(f"/api/v1/runs/{run_id}"), 404, "run_not_found")
