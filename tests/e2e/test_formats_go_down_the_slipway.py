"""A real model in every form, from `slipway push` to promoted, pulled and used, here and in another instance."""

from __future__ import annotations

import json
import pickle
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import numpy as np
import onnxruntime
import psycopg
import pytest
from slipway import Client
from slipway.bundles import unpacked
from slipway.errors import BrokenBundle
from sqlalchemy.engine import make_url

from shared.signing import Signer
from stack.launcher import Stack

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("file", ["digits.onnx", "digits.pt", "digits.pt2"])
def test_a_model_is_promoted_pulled_and_still_knows_its_digits(
    file: str, digits: Path, client: Client, command: Command, tmp_path: Path
) -> None:
    name = file.replace(".", "-")
    pushed = command("push", digits / file, "--name", name, "--input-shape", "-1,1,8,8", "--watch", "--json")
    run = client.run(json.loads(pushed.stdout)["run"]["id"])
    assert run.status == "succeeded"
    assert [step.status for step in run.steps] == ["passed"] * 6
    assert [step.stage for step in run.steps] == ["scan", "validate", "convert", "optimize", "benchmark", "promote"]

    facts = {step.stage: step.report or {} for step in run.steps}
    assert facts["scan"]["verdict"] == "clean"
    assert sum(facts["scan"]["readers"].values()) >= (digits / file).stat().st_size, "every byte was understood"
    assert facts["scan"]["antivirus"]["complete"] is True
    assert facts["convert"]["verification"]["verified"] is True
    assert all(gate["passed"] for gate in facts["promote"]["gates"])
    rows = {row["name"]: row for row in facts["benchmark"]["rows"]}
    assert {"source", "onnx-fp32", "onnx-fp32-optimized", "onnx-int8-dynamic"} <= set(rows)
    for row in rows.values():
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["peak_memory"] > 0
        assert row["throughput_per_s"]["1"] > 0
    assert facts["benchmark"]["device"]["cpu"]
    assert '"key"' not in json.dumps(run.raw), "storage keys stay inside"

    heldout = np.load(digits / "digits-heldout.npz")
    for variant in ("onnx-fp32", "onnx-fp32-optimized", "onnx-int8-dynamic"):
        path = client.pull(name, to=tmp_path, artifact=variant)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (scores,) = session.run(None, {session.get_inputs()[0].name: heldout["images"]})
        assert np.mean(scores.argmax(1) == heldout["labels"]) > 0.97
    original = client.pull(name, to=tmp_path, artifact="source")
    assert original.read_bytes() == (digits / file).read_bytes()
    assert "onnx-fp32" in command("show", f"{name}@latest").stdout


def test_weights_alone_are_stored_and_described_but_not_servable(
    digits: Path, client: Client, command: Command, tmp_path: Path
) -> None:
    command("push", digits / "digits.safetensors", "--name", "weights", "--watch")
    version = client.version("weights")
    run = client.run(client.runs(model="weights", limit=1)[0].id)
    assert run.status == "succeeded"
    assert version.servable is False
    assert "upload it as .onnx" in run.facts("validate")["warnings"][0]
    assert [artifact.role for artifact in version.artifacts] == ["source", "manifest"]
    assert client.pull("weights", to=tmp_path, artifact="source").stat().st_size == version.size


def test_a_hostile_pickle_is_refused_kept_and_never_handed_out(
    client: Client, command: Command, tmp_path: Path, digits: Path
) -> None:
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return exec, (f"open({str(canary)!r}, 'w')",)

    evil = tmp_path / "evil.pt"
    with zipfile.ZipFile(digits / "digits.pt") as good, zipfile.ZipFile(evil, "w") as bad:
        for member in good.infolist():
            content = pickle.dumps(Payload(), 2) if member.filename.endswith("/data.pkl") else good.read(member)
            bad.writestr(member.filename, content)
    refused = command("push", evil, "--name", "evil", "--input-shape", "-1,1,8,8", "--watch", code=3)
    assert "exec" in refused.stdout + refused.stderr
    run = client.run(client.runs(model="evil", limit=1)[0].id)
    assert (run.status, run.code) == ("rejected", "malicious")
    assert [step.status for step in run.steps] == ["refused", *["skipped"] * 5]
    assert client.version("evil").verdict == "malicious"
    for artifact in ("source", "onnx-fp32"):
        where = f"{client.url}/api/v1/models/evil/versions/latest/download?artifact={artifact}"
        assert httpx2.get(where, headers={"Authorization": f"Bearer {client.token}"}).status_code == 423
    assert not canary.exists()


@pytest.mark.parametrize(
    ("filename", "content", "code"),
    [
        ("model.pkl", b"no pickle", "content_mismatch"),
        ("model.exe", b"MZ", "unsupported_format"),
        ("model.onnx", b"PK\x03\x04" + b"\0" * 64, "content_mismatch"),
        ("model.onnx", b"", "empty_file"),
    ],
)
def test_what_is_not_a_model_is_refused_before_there_is_a_run(
    filename: str, content: bytes, code: str, command: Command, client: Client, tmp_path: Path
) -> None:
    (tmp_path / filename).write_bytes(content)
    refused = command("push", tmp_path / filename, "--name", "nothing", code=2)
    assert code in refused.stderr
    assert not [model for model in client.models() if model.name == "nothing"]


def test_flower_wants_a_password_and_shows_model_run_and_stage(slipway: Stack, client: Client) -> None:
    url, settings = slipway.environment["FLOWER_URL"], slipway.environment
    assert httpx2.get(f"{url}/tasks").status_code == 401
    tasks = httpx2.get(f"{url}/api/tasks", auth=(settings["FLOWER_USER"], settings["FLOWER_PASSWORD"])).json()
    run = client.runs(limit=1)[0]
    shown = [task for identifier, task in tasks.items() if identifier.startswith(run.id)]
    assert shown
    assert f"model={run.model}@{run.version} run={run.id} stage=" in shown[0]["kwargs"]


@pytest.fixture
def elsewhere(slipway: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Another instance, whole: its own processes, database, broker, buckets and signing key. It trusts the first one."""
    here = slipway.environment
    monkeypatch.setenv("TRUSTED_KEYS", json.dumps([Signer(here["SIGNING_KEY"]).public_key]))
    with psycopg.connect(here["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE DATABASE elsewhere")
    given = {name: value for name, value in here.items() if name.startswith(("S3_", "CLAMD_"))} | {
        "DATABASE_URL": make_url(here["DATABASE_URL"]).set(database="elsewhere").render_as_string(hide_password=False),
        "REDIS_URL": here["REDIS_URL"].rsplit("/", 1)[0] + "/1",
        "S3_BUCKET_PREFIX": "elsewhere",
        "PATH": here["PATH"],
    }
    with Stack(tmp_path / "elsewhere", without=("flower",), given=given, quiet=True) as other:
        key = Path(other.environment["SLIPWAY_HOME"], "admin.key").read_text().strip()
        with Client(other.environment["SLIPWAY_URL"], key) as client:
            yield client


@pytest.mark.slow
@pytest.mark.timeout(900)  # two whole instances
def test_a_version_moves_to_another_instance_and_is_published_there_with_its_past_or_refused_where_it_was_touched(
    models: Path, client: Client, elsewhere: Client, slipway: Stack, tmp_path: Path
) -> None:
    first = client.wait(client.push(models / "digits.onnx", "moving", version="2.1.0", metrics={"accuracy": 0.98}))
    assert first.status == "succeeded"
    bundle, trusted = tmp_path / "moving.zip", [Signer(slipway.environment["SIGNING_KEY"]).public_key]
    client.bundles.export("moving@2.1.0", bundle, keys=trusted)

    with unpacked(bundle) as (_, parts):
        sent = {part: (path.name, path.read_bytes()) for part, path in parts.items()}
    document, signature = sent["bundle_file"][1], json.loads(sent["signature_file"][1])
    stranger = Signer("a key that nobody over there has heard of")
    resigned = signature | {"key_id": stranger.key_id, "signature": stranger.sign(document).value}
    touched = {
        "bundle_file": ("bundle.json", document.replace(b'"clean"', b'"CLEAN"')),
        "signature_file": ("bundle.sig", json.dumps(resigned).encode()),
        "model_file": (sent["model_file"][0], sent["model_file"][1][:-1] + b"!"),
    }
    with httpx2.Client(headers={"Authorization": f"Bearer {elsewhere.token}"}, timeout=60) as wire:
        for part, lie in touched.items():
            answer = wire.post(f"{elsewhere.url}/api/v1/bundles", files=sent | {part: lie})
            expected = (400, "digest_mismatch") if part == "model_file" else (403, "untrusted_bundle")
            assert (answer.status_code, answer.json()["code"]) == expected
    broken = tmp_path / "broken.zip"
    broken.write_bytes(bundle.read_bytes().replace(sent["model_file"][1], touched["model_file"][1]))
    with pytest.raises(BrokenBundle):
        elsewhere.bundles.send(broken, keys=trusted)
    assert list(elsewhere.models()) == []

    run = elsewhere.wait(elsewhere.bundles.send(bundle, keys=trusted))
    assert (run.status, [step.status for step in run.steps]) == ("succeeded", ["passed"] * 6)
    there, here = elsewhere.version("moving@2.1.0"), client.version("moving@2.1.0")
    assert (there.verdict, there.raw["aliases"]) == ("clean", ["default"])
    assert there.sha256 == here.sha256
    assert [each.value for each in elsewhere.metrics.history("moving@2.1.0")] == [0.98]
    assert elsewhere.signatures.of("moving@2.1.0").sealed
    origin = elsewhere.bundles.origin("moving@2.1.0")
    assert (origin.model, origin.version, origin.key_id) == ("moving", "2.1.0", signature["key_id"])
    canonical = next(each for each in origin.artifacts if each["name"] == "onnx-fp32")
    assert (canonical["outcome"], canonical["toolchain_same"]) == ("same", True)
    past = elsewhere.pull("moving@2.1.0", to=tmp_path / "past.json", artifact="imported-bundle.json")
    assert past.read_bytes() == document
    assert elsewhere.pull("moving@2.1.0", to=tmp_path, artifact="source").read_bytes() == sent["model_file"][1]
    heldout = np.load(models / "digits-heldout.npz")
    served = onnxruntime.InferenceSession(elsewhere.pull("moving@2.1.0", to=tmp_path / "best.onnx"))
    (scores,) = served.run(None, {served.get_inputs()[0].name: heldout["images"]})
    assert np.mean(scores.argmax(1) == heldout["labels"]) > 0.97
    again = elsewhere.bundles.export("moving@2.1.0", tmp_path / "again.zip")
    assert again.document["model"]["name"] == "moving"
