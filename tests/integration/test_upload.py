"""Uploads over a real connection into real storage: what is taken, what is refused and when, and what is left behind."""

# ruff: noqa: F811 - fixtures are imported, and asked for by name

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import httpx2
import pytest

from api.deps import Services
from pipeline import store as runs
from registry import store
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Bucket
from tests.integration.api_fixtures import (  # noqa: F401 - fixtures
    Person,
    anonymous,
    app,
    join,
    parts,
    problem,
    served,
    url,
)
from tests.integration.upload_fixtures import (  # noqa: F401 - fixtures
    BOUNDARY,
    CONTENT_TYPE,
    SCRIPT,
    archive,
    file,
    form,
    left_in,
    onnx,
    safetensors,
    staging,
    text,
    versions_of,
)

MIB = 1 << 20
PATH = "/api/v1/models/upload"
Join = Callable[..., Person]


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return Settings(max_upload_size=32 * MIB, max_side_file_size=MIB, upload_rate_limit=1000)


def post(person: Person, body: bytes, **headers: str) -> httpx2.Response:
    return person.client.post(PATH, content=body, headers={"Content-Type": CONTENT_TYPE} | headers)


def token_of(person: Person) -> str:
    return person.client.headers["Authorization"].removeprefix("Bearer ")


def test_a_whole_form_becomes_a_version_a_run_and_stored_bytes(
    join: Join, begin: Begin, staging: Bucket, parts: Services
) -> None:
    ada, model, sides = join(), archive(*SCRIPT, padding=1000), {"config": b"a: 1\n", "calibration": archive("x.npy")}
    answer = post(
        ada,
        form(
            text("name", "Digits"),
            text("version", "v1.2"),
            text("framework", "onnx"),
            text("model_type", "classification"),
            text("description", "Handwritten\ndigits"),
            text("licence", "Apache-2.0"),
            text("tags", '["demo", "edge"]'),
            text("classes", '["zero", "one"]'),
            text("config", '{"threshold": 0.5}'),
            text("training_config", '{"epochs": 20}'),
            text("benchmark_dataset", "sklearn digits"),
            file("config_file", "config.yaml", sides["config"]),
            file("requirements_file", "requirements.txt", b""),
            file("calibration_file", "samples.npz", sides["calibration"]),
            file("card_file", "README.md", b"# Digits"),
            file("file", "C:\\models\\My digits.pt", model),
        ),
    )
    assert answer.status_code == 202, answer.text
    said, data = answer.json(), answer.json()["data"]
    framework_warning, shape_warning = data.pop("validation_warnings")
    assert "TorchScript" in framework_warning
    assert "input_shape" in shape_warning
    model_id = UUID(data.pop("model_id"))
    assert data == {
        "name": "Digits",
        "version": "1.2.0",
        "ordinal": 1,
        "framework": "onnx",
        "format": "torchscript",
        "file_size": len(model),
        "checksum": f"sha256:{hashlib.sha256(model).hexdigest()}",
    }
    assert said["success"] is True
    assert said["run"]["status"] == "queued"
    assert answer.headers["location"] == said["run"]["links"]["self"] == f"/api/v1/runs/{said['run']['id']}"
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["ratelimit"].startswith('"hour";r=999;')
    run = ada.client.get(answer.headers["location"]).json()
    assert [step["stage"] for step in run["steps"]] == [
        *("scan", "validate", "convert", "optimize", "benchmark", "promote")
    ], "no engine: nobody asked for one, and no worker could build it"

    with begin() as session:
        [row] = store.list_versions(session, model_id)
        assert runs.version_of(session, UUID(said["run"]["id"])) == row.id
    assert row.filename == "My digits.pt"
    assert row.staging_key.endswith("/model/My_digits.pt")
    assert row.declared == {
        "framework": "onnx",
        "model_type": "classification",
        "description": "Handwritten\ndigits",
        "licence": "Apache-2.0",
        "tags": ["demo", "edge"],
        "classes": ["zero", "one"],
        "config": {"threshold": 0.5},
        "training_config": {"epochs": 20},
        "benchmark_dataset": "sklearn digits",
    }
    assert staging.read(row.staging_key) == model
    assert row.side_files.keys() == {"config", "requirements", "calibration", "card"}
    for role, content in sides.items():
        kept = row.side_files[role]
        assert staging.read(kept["key"]) == content
        assert (kept["sha256"], kept["size"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert len(left_in(staging)) == 5


def test_a_format_that_needs_an_extra_is_planned_for_workers_that_have_it(join: Join, staging: Bucket) -> None:
    ada = join()
    answer = post(ada, form(text("name", "lite"), file("file", "model.tflite", b"\0\0\0\0TFL3" + bytes(64))))
    assert answer.status_code == 202, answer.text
    [warning] = answer.json()["data"]["validation_warnings"]
    assert "a worker with the extra 'tensorflow'" in warning
    run = ada.client.get(answer.headers["location"]).json()
    assert {step["stage"]: step["queue"] for step in run["steps"]} == {
        "scan": "scan",
        "validate": "cpu-tensorflow",
        "convert": "convert-tensorflow",
        "optimize": "convert",
        "benchmark": "bench-tensorflow",
        "promote": "default",
    }


def test_a_file_of_several_parts_arrives_byte_for_byte_whatever_comes_after_it(
    join: Join, begin: Begin, staging: Bucket
) -> None:
    ada, model = join(), safetensors(20 * MIB + 12345)
    body = form(file("model_file", "w.safetensors", model), text("name", "weights"), file("card_file", "R.md", b"#"))
    answer = post(ada, body)
    assert answer.status_code == 202, answer.text
    assert "stored and described" in answer.json()["data"]["validation_warnings"][0]
    with begin() as session:
        [row] = store.list_versions(session, UUID(answer.json()["data"]["model_id"]))
    assert (row.version, row.servable, row.size) == ("1.0.0", False, len(model))
    assert row.sha256 == staging.sha256(row.staging_key) == hashlib.sha256(model).hexdigest()
    stages = [step["stage"] for step in ada.client.get(answer.headers["location"]).json()["steps"]]
    assert "scan" in stages
    assert "convert" not in stages


def test_what_only_just_fits_is_taken_and_one_byte_more_is_not(join: Join, staging: Bucket, settings: Settings) -> None:
    ada = join()
    fits = form(text("name", "m"), file("model_file", "w.safetensors", safetensors(settings.max_upload_size)))
    assert post(ada, fits).status_code == 202
    kept = left_in(staging)
    beyond = form(text("name", "m"), file("model_file", "w.safetensors", safetensors(settings.max_upload_size + 1)))
    problem(post(ada, beyond), 413, "too_large")
    assert left_in(staging) == kept


MODEL = file("model_file", "m.onnx", onnx())
NAME = text("name", "m")

REFUSED: dict[str, tuple[bytes, int, str]] = {
    "no file": (form(NAME), 400, "missing_file"),
    "a form of nothing": (form(), 400, "missing_file"),
    "a file input left alone": (form(NAME, file("model_file", "", b"")), 400, "missing_file"),
    "a file sent as text": (form(NAME, text("model_file", "m.onnx")), 400, "missing_file"),
    "an empty file": (form(NAME, file("model_file", "m.onnx", b"")), 400, "empty_file"),
    "no extension": (form(NAME, file("model_file", "model", onnx())), 400, "unsupported_format"),
    "an unknown extension": (form(NAME, file("model_file", "m.exe", onnx())), 400, "unsupported_format"),
    "another format's name": (form(NAME, file("model_file", "m.h5", onnx())), 400, "content_mismatch"),
    "another content": (form(NAME, file("model_file", "m.onnx", b"MZ" * 99)), 400, "content_mismatch"),
    "a cut-off archive": (form(NAME, file("model_file", "m.pt", archive(*SCRIPT)[:-30])), 400, "content_mismatch"),
    "a package of no model": (form(NAME, file("model_file", "m.zip", archive("a.txt"))), 400, "content_mismatch"),
    "a side file of another kind": (form(NAME, file("card_file", "a.pdf", b"x"), MODEL), 400, "unsupported_format"),
    "a large side file": (form(NAME, file("card_file", "a.md", b"x" * (MIB + 1)), MODEL), 413, "too_large"),
    "no name": (form(MODEL), 422, "invalid_field"),
    "a blank name": (form(text("name", " "), MODEL), 422, "invalid_field"),
    "a wrong version": (form(NAME, text("version", "one"), MODEL), 422, "invalid_field"),
    "a wrong field after the file": (form(NAME, MODEL, text("tags", "a")), 422, "invalid_field"),
    "an unknown field": (form(NAME, text("licens", "MIT"), MODEL), 422, "invalid_field"),
    "an unknown file": (form(NAME, file("licence_file", "a.txt", b""), MODEL), 422, "invalid_field"),
    "a file for a field": (form(file("name", "a.txt", b"m"), MODEL), 422, "invalid_field"),
    "a field twice": (form(NAME, NAME, MODEL), 422, "invalid_field"),
    "two model files": (form(NAME, MODEL, file("file", "n.onnx", onnx())), 422, "invalid_field"),
    "a long field": (form(NAME, text("tags", "x" * (65 << 10)), MODEL), 422, "invalid_field"),
    "a long configuration": (form(NAME, text("config", "x" * (257 << 10)), MODEL), 422, "invalid_field"),
    "a hidden file name": (form(NAME, file("model_file", "a\u202e.onnx", onnx())), 422, "invalid_field"),
    "a body that stops": (form(NAME, MODEL)[:-10], 400, "malformed_multipart"),
    "another boundary": (form(NAME, MODEL).replace(BOUNDARY.encode(), b"border"), 400, "malformed_multipart"),
    "an empty body": (b"", 400, "malformed_multipart"),
    "too many parts": (form(*(text(f"f{i}", "") for i in range(65))), 400, "malformed_multipart"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_refused_leaves_nothing(why: str, join: Join, begin: Begin, staging: Bucket) -> None:
    ada = join()
    body, status, code = REFUSED[why]
    answer = post(ada, body)
    problem(answer, status, code)
    assert "ratelimit" in answer.headers
    assert left_in(staging) == []
    assert versions_of(begin, ada.id) == 0


def test_all_wrong_fields_are_listed(join: Join) -> None:
    answer = post(join(), form(text("version", "x"), text("tags", "x"), text("input_shape", "x")))
    problem(answer, 400, "missing_file")
    answer = post(join(), form(text("version", "x"), text("tags", "x"), text("input_shape", "x"), MODEL))
    listed = problem(answer, 422, "invalid_field")["details"]
    assert isinstance(listed, list)
    assert {each["field"] for each in listed} == {"version", "tags", "input_shape"}


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", "text/plain; boundary=x"])
def test_other_bodies_are_malformed(join: Join, content_type: str) -> None:
    answer = post(join(), form(NAME, MODEL), **{"Content-Type": content_type})
    problem(answer, 400, "malformed_multipart")


def test_nobody_uploads_without_the_right(join: Join, anonymous: httpx2.Client, staging: Bucket) -> None:
    body, headers = form(NAME, MODEL), {"Content-Type": CONTENT_TYPE}
    problem(anonymous.post(PATH, content=body, headers=headers), 401, "unauthenticated")
    problem(post(join("models:read"), body), 403, "forbidden")
    assert left_in(staging) == []


def test_uploads_are_counted_by_person_and_refused_beyond_the_limit(
    join: Join, parts: Services, monkeypatch: pytest.MonkeyPatch, staging: Bucket
) -> None:
    monkeypatch.setattr(parts.settings, "upload_rate_limit", 2)
    ada, grace = join(), join()
    problem(post(ada, form(NAME)), 400, "missing_file")
    assert post(ada, form(NAME, MODEL)).headers["ratelimit"].startswith('"hour";r=0;')
    refused = post(ada, form(NAME, MODEL))
    problem(refused, 429, "rate_limited")
    assert 3500 < int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["ratelimit-policy"] == '"hour";q=2;w=3600'
    assert post(grace, form(NAME, MODEL)).status_code == 202


def claim(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


@pytest.mark.parametrize("large", [False, True])
def test_announced_digests_are_held_against_what_arrives(join: Join, staging: Bucket, large: bool) -> None:
    ada, model = join(), onnx(padding=9 * MIB if large else 0)
    right, wrong = hashlib.sha256(model).hexdigest(), "0" * 64
    sent = file("model_file", "m.onnx", model)
    body = form(NAME, sent)
    for refused in (
        post(ada, form(NAME, sent, text("sha256", wrong))),
        post(ada, form(NAME, file("model_file", "m.onnx", model, f"Content-Digest: {claim(b'')}"))),
        post(ada, form(NAME, file("card_file", "a.md", b"#", f"Repr-Digest: {claim(b'')}"), sent)),
        post(ada, body, **{"Content-Digest": claim(b"")}),
    ):
        problem(refused, 400, "digest_mismatch")
    problem(post(ada, body, **{"Repr-Digest": "sha-256=:abc:"}), 400, "invalid_digest")
    assert left_in(staging) == []
    for taken in (
        post(ada, form(NAME, sent, text("sha256", right))),
        post(ada, form(NAME, file("model_file", "m.onnx", model, f"Content-Digest: {claim(model)}"))),
        post(ada, body, **{"Content-Digest": f"md5=:AAAA:, {claim(body)}"}),
        post(ada, body, **{"Repr-Digest": claim(model)}),
    ):
        assert taken.status_code == 202, taken.text


def test_versions_follow_each_other_and_never_change(join: Join, staging: Bucket) -> None:
    ada = join()
    first = post(ada, form(NAME, MODEL)).json()["data"]
    second = post(ada, form(NAME, text("bump", "major"), MODEL)).json()["data"]
    assert (first["version"], second["version"], second["ordinal"]) == ("1.0.0", "2.0.0", 2)
    kept = left_in(staging)
    other = file("model_file", "m.onnx", onnx(padding=7))
    problem(post(ada, form(NAME, text("version", "2"), other)), 409, "version_exists")
    side = file("config_file", "c.yaml", b"a: 1")
    problem(post(ada, form(NAME, text("version", "2"), MODEL, side)), 409, "version_exists")
    assert left_in(staging) == kept


def test_what_is_there_already_is_said_and_not_stored_again(join: Join, begin: Begin, staging: Bucket) -> None:
    ada = join()
    first = post(ada, form(NAME, text("version", "2"), MODEL)).json()
    kept = left_in(staging)
    again = post(ada, form(NAME, text("version", "v2.0"), MODEL))
    assert (again.status_code, again.json()["already_there"], first["already_there"]) == (200, True, False)
    assert again.json()["run"]["id"] == first["run"]["id"]
    assert again.json()["data"] == first["data"]
    assert (versions_of(begin, ada.id), left_in(staging)) == (1, kept)

    ada.client.post(f"{first['run']['links']['self']}/cancel")
    problem(post(ada, form(NAME, text("version", "2"), MODEL)), 409, "version_exists")


def test_of_two_uploads_of_one_version_at_once_one_is_taken_in(join: Join, begin: Begin, staging: Bucket) -> None:
    ada = join()
    body = form(NAME, text("version", "1.0.0"), file("model_file", "m.onnx", onnx(padding=9 * MIB)))
    with ThreadPoolExecutor(2) as pool:
        statuses = sorted(answer.status_code for answer in pool.map(lambda _: post(ada, body), range(2)))
    assert statuses == [200, 202], "the other one hears that it is there"
    assert versions_of(begin, ada.id) == 1
    assert len(left_in(staging)) == 1


def test_nobody_elses_name_is_in_the_way(join: Join) -> None:
    name = f"m-{uuid4().hex[:8]}"
    for person in (join(), join()):
        data = post(person, form(text("name", name), MODEL)).json()["data"]
        assert (data["version"], data["ordinal"]) == ("1.0.0", 1)
