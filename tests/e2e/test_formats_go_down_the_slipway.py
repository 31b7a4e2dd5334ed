"""A real model in every form, from `slipway push` to promoted, pulled and used."""

from __future__ import annotations

import json
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import numpy as np
import onnxruntime
import pytest
from slipway import Client

if TYPE_CHECKING:
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
