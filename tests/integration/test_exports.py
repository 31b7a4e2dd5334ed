"""A version leaves for another server: whole, with digests that hold, and not a day longer in storage than it may."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import httpx2
import pytest
import yaml
from fastapi import FastAPI
from sqlalchemy import text
from structlog.testing import capture_logs

from api.app import create_app
from api.deps import Services
from pipeline import garbage
from registry import reviews
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
    serving,
    signed_in,
    url,
)
from tests.integration.shelf_fixtures import Shelf, artifact, shelf

Join = Callable[..., Person]
TENSORS = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": [None, 4], "example": [1, 4]}],
    "outputs": [{"name": "scores", "dtype": "float32", "shape": [None, 2], "example": [1, 2]}],
}


def graph() -> bytes:
    """A linear classifier of any batch."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "w")
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["scores"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 2])],
        [weights],
    )
    opsets = [helper.make_opsetid("", 17)]
    content: bytes = helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()
    return content


@pytest.fixture
def on(shelf: Callable[..., Shelf], parts: Services, begin: Begin) -> Shelf:
    """A version whose canonical form really is an ONNX file."""
    made = shelf(b"source", "digits.onnx", "onnx")
    form = artifact(parts.registry, "onnx-fp32", "canonical", graph())
    with begin() as session:
        session.execute(
            text(
                "UPDATE artifacts SET key = :key, sha256 = :sha256, size = :size, meta = CAST(:meta AS jsonb) "
                "WHERE version_id = :id AND name = 'onnx-fp32'"
            ),
            {"key": form.key, "sha256": form.sha256, "size": form.size, "meta": json.dumps(TENSORS)}
            | {"id": made.version_id},
        )
    return replace(made, made={**made.made, "onnx-fp32": form})


def held(parts: Services, version: Shelf) -> dict[str, bytes]:
    return {one.key: parts.exports.read(one.key) for one in parts.exports.list(f"{version.version_id}/")}


def test_a_repository_lies_in_storage_under_the_address_that_was_told_with_digests_that_hold(
    on: Shelf, ada: httpx2.Client, parts: Services
) -> None:
    answer = ada.post(f"{on.path}/exports", json={"format": "triton"})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    bucket, _, prefix = told["address"].removeprefix("s3://").partition("/")
    assert (bucket, told["variant"], told["device"]) == (parts.exports.name, "onnx-fp32", "cpu")
    found = {key.removeprefix(f"{prefix}/"): content for key, content in held(parts, on).items()}
    assert {each["path"]: (each["sha256"], each["size"]) for each in told["files"]} == {
        path: (hashlib.sha256(content).hexdigest(), len(content)) for path, content in found.items()
    }
    assert sorted(found) == ["digits/1/model.onnx", "digits/config.pbtxt", "digits/labels.txt"]
    endpoint = parts.settings.s3_endpoint_url
    assert told["commands"] == [f"tritonserver --model-repository=s3://{endpoint}/{bucket}/{prefix}"]

    import onnxruntime

    opened = onnxruntime.InferenceSession(found["digits/1/model.onnx"])
    assert [(one.name, one.shape[1:]) for one in opened.get_inputs()] == [("x", [4])]
    assert b"dims: [4]" in found["digits/config.pbtxt"]
    assert ada.post(f"{on.path}/exports", json={"format": "triton"}).json()["address"] == told["address"]


def test_a_manifest_names_what_was_stored_or_what_the_user_has_stored(
    on: Shelf, ada: httpx2.Client, parts: Services
) -> None:
    own = "s3://models/digits"
    theirs = ada.post(f"{on.path}/exports", json={"format": "kserve", "storage_uri": own}).json()
    model = yaml.safe_load(theirs["manifest"])["spec"]["predictor"]["model"]
    assert (model["storageUri"], theirs["files"], theirs["expires_at"]) == (own, [], None)
    assert held(parts, on) == {}
    ours = ada.post(f"{on.path}/exports", json={"format": "kserve"}).json()
    assert yaml.safe_load(ours["manifest"])["spec"]["predictor"]["model"]["storageUri"] == ours["address"]
    assert len(held(parts, on)) == 3


def test_the_archive_unpacks_to_the_same_repository_and_both_are_in_the_trail(
    on: Shelf, ada: httpx2.Client, parts: Services, begin: Begin
) -> None:
    ada.post(f"{on.path}/exports", json={"format": "triton"}).raise_for_status()
    came = ada.get(f"{on.path}/exports/triton")
    assert came.headers["content-disposition"].endswith("digits-1.0.0-triton.zip")
    with zipfile.ZipFile(io.BytesIO(came.content)) as archive:
        assert archive.testzip() is None
        unpacked = {name: archive.read(name) for name in archive.namelist()}
    assert unpacked == {key.split("/", 2)[2]: content for key, content in held(parts, on).items()}
    with begin() as session:
        trail = session.execute(
            text("SELECT details FROM audit WHERE action = 'version.exported' AND subject = :id ORDER BY id"),
            {"id": str(on.version_id)},
        ).scalars()
        told = [(each["variant"], each["sha256"], "address" in each) for each in trail]
    assert told == [("onnx-fp32", on.made["onnx-fp32"].sha256, kept) for kept in (True, False)]


def test_only_who_may_download_exports_and_only_what_is_clean_served_and_there(
    on: Shelf, ada: httpx2.Client, join: Join, begin: Begin
) -> None:
    def ask(client: httpx2.Client = ada, **wish: str) -> httpx2.Response:
        return client.post(f"{on.path}/exports", json={"format": "triton", **wish})

    problem(ask(join("models:read").client), 403, "forbidden")
    assert ask(join().client).status_code == 201  # the shelf's model is public
    problem(ask(variant="onnx-int8-dynamic"), 404, "artifact_not_found")
    problem(ask(variant="golden.npz"), 404, "artifact_not_found")
    problem(ask(storage_uri="s3://mine/digits"), 422, "invalid_field")
    problem(ada.get(f"{on.path}/exports/triton", params={"device": "tpu"}), 422, "invalid_field")
    with begin() as session:
        session.execute(text("UPDATE versions SET servable = false WHERE id = :id"), {"id": on.version_id})
    problem(ask(), 409, "not_servable")
    with begin() as session:
        reviews.judge(session, on.version_id, "malicious")
    problem(ask(), 423, "quarantined")
    problem(ada.get(f"{on.path}/exports/triton"), 423, "quarantined")


def test_bytes_that_are_not_what_was_recorded_leave_by_no_door(on: Shelf, ada: httpx2.Client, parts: Services) -> None:
    parts.registry.put(on.made["onnx-fp32"].key, b"somebody was here")
    problem(ada.post(f"{on.path}/exports", json={"format": "triton"}), 503, "object_altered")
    assert held(parts, on) == {}
    with capture_logs() as told, pytest.raises(httpx2.RemoteProtocolError):
        ada.get(f"{on.path}/exports/triton")
    assert "http.failed" in [each["event"] for each in told]


def test_what_only_we_can_read_is_not_put_before_another_server(on: Shelf, parts: Services, ada: httpx2.Client) -> None:
    sealed = replace(parts, settings=parts.settings.model_copy(update={"s3_encryption": "envelope"}))
    token = ada.headers["authorization"].removeprefix("Bearer ")
    with serving(create_app(sealed)) as running, signed_in(running.url, token) as client:
        problem(client.post(f"{on.path}/exports", json={"format": "triton"}), 409, "encrypted_here")
        assert client.get(f"{on.path}/exports/triton").status_code == 200
    assert held(parts, on) == {}


def test_exports_go_with_their_time_and_at_once_with_the_clean_verdict(
    on: Shelf, ada: httpx2.Client, parts: Services, begin: Begin
) -> None:
    def export() -> None:
        ada.post(f"{on.path}/exports", json={"format": "triton"}).raise_for_status()

    export()
    parts.exports.put("somebody-elses.txt", b"not of our making")
    garbage.expire(begin, parts.exports, timedelta(days=7))  # what other tests have condemned
    assert len(held(parts, on)) == 3
    assert garbage.expire(begin, parts.exports, -timedelta(seconds=9)) >= 3  # storage rounds its clock
    assert held(parts, on) == {}

    def delete(moment: str) -> None:
        with begin() as session:
            session.execute(
                text(f"UPDATE models SET deleted_at = {moment} WHERE id = :id"), {"id": on.model.rpartition("/")[2]}
            )

    export()
    delete("now()")
    assert garbage.expire(begin, parts.exports, timedelta(days=7)) == 3, "its model is gone, if not for good"
    delete("NULL")
    export()
    with begin() as session:
        reviews.judge(session, on.version_id, "malicious")
    assert garbage.expire(begin, parts.exports, timedelta(days=7)) == 3
    assert [one.key for one in parts.exports.list()] == ["somebody-elses.txt"]


def test_an_endpoint_has_rules_of_its_own_and_only_its_owner_opens_a_private_one(
    on: Shelf, ada: httpx2.Client, join: Join, begin: Begin, parts: Services
) -> None:
    path = f"{on.model}/endpoint"
    with begin() as session:
        may = '{"models:deploy"}'
        session.execute(text("UPDATE users SET permissions = permissions || CAST(:may AS text[])"), {"may": may})
    first = ada.get(path)
    said = first.json()
    base = parts.settings.serving_address
    assert said["url"] == ada.get(on.model).json()["endpoint_url"] == f"{base}/v2/models/{said['owner']}/digits"
    assert (said["auth_required"], said["requests_per_minute"], said["timeout"]) == (True, None, 30.0)
    assert ada.get("/api/v1/me").json()["serving_url"] == base

    changed = ada.patch(path, json={"requests_per_minute": 5, "timeout": 0.25}, headers={"If-Match": '"1"'})
    assert changed.status_code == 200, changed.text
    assert (changed.headers["etag"], changed.json()["timeout"], changed.json()["own_timeout"]) == ('"2"', 0.25, True)
    problem(ada.patch(path, json={"timeout": 9}, headers={"If-Match": first.headers["etag"]}), 412, "endpoint_changed")
    assert ada.patch(path, json={"timeout": None}).json()["timeout"] == 30.0
    problem(ada.patch(path, json={"timeout": 0}), 422, "invalid_field")
    problem(join().client.patch(path, json={}), 403, "forbidden")

    grace = join("models:read", "models:deploy")
    ada.patch(on.model, json={"visibility": "private"}).raise_for_status()
    for right in ("models:read", "models:deploy"):
        given = ada.put(f"{on.model}/grants/{grace.username}/{right}", json={})
        assert given.is_success, given.text
    problem(grace.client.patch(path, json={"auth_required": False}), 403, "not_granted")
    assert grace.client.patch(path, json={"requests_per_minute": 6}).status_code == 200
    assert ada.patch(path, json={"auth_required": False}).json()["auth_required"] is False
    with begin() as session:
        told = session.execute(
            text("SELECT details FROM audit WHERE action = 'endpoint.changed' ORDER BY id DESC LIMIT 1")
        ).scalar_one()
    assert told == {"auth_required": {"from": True, "to": False}, "open_to_everybody": True}

    ada.patch(on.model, json={"visibility": "public"}).raise_for_status()
    assert ada.get(path).json()["auth_required"] is False
    ada.patch(on.model, json={"visibility": "private"}).raise_for_status()
    assert ada.get(path).json()["auth_required"] is True, "who makes a model private closes it to strangers"
