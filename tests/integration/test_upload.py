"""Uploads over a real connection into real storage: what is taken, what is refused and when, and what is left behind."""

# ruff: noqa: F811 - fixtures are imported, and asked for by name

from __future__ import annotations

import base64
import hashlib
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import api.lingering
import api.upload
from api.deps import Services
from pipeline import store as runs
from pipeline.staging import sweep_staging
from registry import store
from registry.store import Viewer
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Bucket, Storage
from tests.integration.api_fixtures import (  # noqa: F401 - fixtures
    Person,
    Served,
    anonymous,
    app,
    join,
    parts,
    problem,
    served,
    url,
)
from tests.integration.upload_fixtures import (
    BOUNDARY,
    CONTENT_TYPE,
    SCRIPT,
    Wire,
    archive,
    file,
    file_head,
    form,
    onnx,
    safetensors,
    text,
)

MIB = 1 << 20
PATH = "/api/v1/models/upload"
Join = Callable[..., Person]


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return Settings(max_upload_size=32 * MIB, max_side_file_size=MIB, upload_rate_limit=1000)


@pytest.fixture
def staging(storage: Storage, settings: Settings) -> Bucket:
    """The staging bucket, empty at first."""
    bucket = storage.bucket(settings.bucket("staging"))
    sweep_staging(bucket, lambda _: set(), timedelta(seconds=-60))
    assert left_in(bucket) == []
    return bucket


def left_in(bucket: Bucket) -> list[str]:
    return [stored.key for stored in bucket.list()] + [unfinished.key for unfinished in bucket.multiparts()]


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def versions_of(begin: Begin, person: Person) -> int:
    with begin() as session:
        found = store.list_models(session, Viewer(user_id=person.id))
        return sum(len(store.list_versions(session, model.id)) for model in found)


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
    assert [step["stage"] for step in run["steps"]] == [stage.name for stage in parts.stages]

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
    "a later format": (form(NAME, file("model_file", "m.h5", onnx())), 400, "unsupported_format"),
    "another content": (form(NAME, file("model_file", "m.onnx", b"MZ" * 99)), 400, "content_mismatch"),
    "a cut-off archive": (form(NAME, file("model_file", "m.pt", archive(*SCRIPT)[:-30])), 400, "content_mismatch"),
    "a torch pickle": (form(NAME, file("model_file", "m.pt", archive("data.pkl"))), 400, "unsupported_format"),
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
    assert versions_of(begin, ada) == 0


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
    problem(post(ada, form(NAME, text("version", "2"), MODEL)), 409, "version_exists")
    assert left_in(staging) == kept


def test_of_two_uploads_of_one_version_at_once_one_wins(join: Join, begin: Begin, staging: Bucket) -> None:
    ada = join()
    body = form(NAME, text("version", "1.0.0"), file("model_file", "m.onnx", onnx(padding=9 * MIB)))
    with ThreadPoolExecutor(2) as pool:
        statuses = sorted(answer.status_code for answer in pool.map(lambda _: post(ada, body), range(2)))
    assert statuses == [202, 409]
    assert versions_of(begin, ada) == 1
    assert len(left_in(staging)) == 1


def test_a_length_that_is_too_large_is_refused_before_a_byte_is_sent(join: Join, url: str, settings: Settings) -> None:
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=2 * settings.max_upload_size, Expect="100-continue")
        answer = wire.answer()
    assert (answer.status, answer.body["code"]) == (413, "too_large")
    assert answer.headers["connection"] == "close"


def test_a_client_that_may_go_on_is_told_so(join: Join, url: str, staging: Bucket) -> None:
    body = form(NAME, MODEL)
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=len(body), Expect="100-continue")
        assert wire.socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(body)
        assert wire.answer().status == 202


@pytest.mark.parametrize("announced", [True, False])
def test_a_client_that_sends_everything_before_it_listens_still_gets_its_refusal(
    join: Join, url: str, settings: Settings, announced: bool
) -> None:
    """Closing at once would make the kernel reset the connection, and this client would never learn why."""
    size, ada = 4 * settings.max_upload_size, join()
    with Wire(url, token_of(ada)) as wire:
        wire.begin(length=size if announced else None)
        start = text("name", "m") + file_head("model_file", "m.safetensors") + safetensors(size)
        for at in range(0, size, MIB):
            (wire.send if announced else wire.send_chunk)(start[at : at + MIB])
        answer = wire.answer()
        assert (answer.status, answer.body["code"]) == (413, "too_large")
        if not announced:
            wire.send(b"0\r\n\r\n")
        assert wire.is_closed()


def test_a_client_that_sends_on_for_ever_is_cut_off_after_its_refusal(
    join: Join, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.lingering, "LINGER", 0.3)
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=1 << 50)
        assert wire.answer().body["code"] == "too_large"
        with pytest.raises(ConnectionError):
            wire.send_all(bytes(65536) for _ in range(1 << 17))


def test_a_wrong_extension_is_refused_while_the_bytes_are_still_coming(join: Join, url: str) -> None:
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=30 * MIB)
        wire.send(file_head("model_file", "m.exe"))
        assert wire.answer().body["code"] == "unsupported_format"


def test_a_wrong_field_is_refused_before_the_models_bytes(join: Join, url: str) -> None:
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=30 * MIB)
        wire.send(text("version", "one") + file_head("model_file", "m.onnx"))
        assert wire.answer().body["code"] == "invalid_field"


def test_a_wrong_content_is_refused_by_its_first_bytes(join: Join, url: str, staging: Bucket) -> None:
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=30 * MIB)
        wire.send(file_head("model_file", "m.safetensors") + b"\x80\x04" + bytes(70 << 10))
        assert wire.answer().body["code"] == "content_mismatch"
    assert left_in(staging) == []


@pytest.mark.parametrize("sent", [0, 1, 200, 5 * MIB, 21 * MIB])
def test_an_upload_that_is_broken_off_leaves_nothing(
    join: Join, served: Served, begin: Begin, staging: Bucket, sent: int
) -> None:
    ada = join()
    under_way = served.server.server_state.tasks
    body = form(NAME, file("card_file", "a.md", b"#"), file("model_file", "w.safetensors", safetensors(24 * MIB)))
    with Wire(served.url, token_of(ada)) as wire:
        wire.begin(length=len(body))
        wire.send(body[:sent])
        wait_for(lambda: under_way)
        if sent > 20 * MIB:
            wait_for(lambda: list(staging.multiparts()))  # two parts are full: something is in storage
    wait_for(lambda: not under_way)
    assert left_in(staging) == []
    assert versions_of(begin, ada) == 0


def test_a_client_that_falls_silent_is_sent_away(
    join: Join, url: str, staging: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.upload, "SILENCE", 0.3)
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=30 * MIB)
        wire.send(NAME + file_head("model_file", "w.safetensors") + safetensors(20 * MIB))
        answer = wire.answer()
    assert (answer.status, answer.body["code"]) == (408, "upload_stalled")
    assert left_in(staging) == []


def test_an_upload_may_not_take_for_ever(
    join: Join, url: str, staging: Bucket, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.settings, "upload_timeout", 1)
    with Wire(url, token_of(join())) as wire:
        wire.begin(length=30 * MIB)
        wire.send(NAME + file_head("model_file", "w.safetensors") + safetensors(20 * MIB))
        for _ in range(20):
            time.sleep(0.1)
            wire.send(b"x")
        answer = wire.answer()
    assert (answer.status, answer.body["code"]) == (408, "upload_timeout")
    assert left_in(staging) == []


def test_however_the_connection_cuts_a_body_the_same_version_comes_out(join: Join, url: str, begin: Begin) -> None:
    ada, model = join(), archive(*SCRIPT, padding=30_000)
    parts_sent = [text("version", "1.0.0"), file("config_file", "c.json", b"{}"), file("model_file", "m.pt", model)]
    seen = set()
    for seed in range(6):
        dice = random.Random(seed)
        dice.shuffle(parts_sent)
        body = form(text("name", f"m{seed}"), *parts_sent)
        with Wire(url, token_of(ada)) as wire:
            wire.begin(length=None)
            while body:
                size = dice.choice((1, 2, 3, 100, 5000, 70_000))
                wire.send_chunk(body[:size])
                body = body[size:]
            wire.send(b"0\r\n\r\n")
            data = wire.answer().body["data"]
        assert isinstance(data, dict)
        seen.add((data["checksum"], data["file_size"], data["version"], data["format"]))
    assert seen == {(f"sha256:{hashlib.sha256(model).hexdigest()}", len(model), "1.0.0", "torchscript")}


fragments = st.sampled_from(
    [
        NAME,
        MODEL,
        form(),
        f"--{BOUNDARY}\r\n".encode(),
        b"\r\n",
        b"\r\n\r\n",
        b"--",
        text("config", "{}"),
        b'"; filename="',
    ]
)


@given(body=st.lists(fragments | st.binary(max_size=50), max_size=12).map(b"".join))
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
def test_garbage_is_the_clients_fault(body: bytes, grumbling: Person) -> None:
    answer = post(grumbling, body)
    assert answer.status_code == 202 or 400 <= answer.status_code < 500, answer.text


@pytest.fixture
def grumbling(join: Join) -> Person:
    return join()


def test_nobody_elses_name_is_in_the_way(join: Join) -> None:
    name = f"m-{uuid4().hex[:8]}"
    for person in (join(), join()):
        data = post(person, form(text("name", name), MODEL)).json()["data"]
        assert (data["version"], data["ordinal"]) == ("1.0.0", 1)
