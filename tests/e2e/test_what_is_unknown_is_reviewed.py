"""A real model with something unknown beside it: refused, fetched, waived by somebody else, and then promoted."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx2
import pytest
import pyzipper
from slipway import Client

if TYPE_CHECKING:
    from stack.launcher import Stack

REASON = "The key in the configuration is the one of the documentation."


@pytest.fixture
def reviewer(client: Client) -> Iterator[httpx2.Client]:
    name, password = f"grace-{uuid4().hex[:8]}", uuid4().hex
    with httpx2.Client(base_url=client.url, timeout=60) as wire:
        user = {"username": name, "password": password, "permissions": ["models:read", "models:review"]}
        wire.post(
            "/api/v1/auth/register", json=user, headers={"Authorization": f"Bearer {client.token}"}
        ).raise_for_status()
        token = wire.post("/api/v1/auth/login", json={"username": name, "password": password}).json()["access_token"]
        wire.headers["Authorization"] = f"Bearer {token}"
        yield wire


def test_a_model_with_an_unknown_side_file_waits_for_a_reviewer_and_is_promoted(
    digits: Path, client: Client, reviewer: httpx2.Client, slipway: Stack, tmp_path: Path
) -> None:
    config = tmp_path / "config.txt"
    config.write_text("key: AKIA" + "ABCDEFGHIJKLMNOP\n")
    pushed = client.push(digits / "digits.onnx", "reviewed", config=config)
    run = client.wait(pushed.id, timeout=120)
    assert (run.status, run.code) == ("rejected", "unknown_content")

    waiting = reviewer.get("/api/v1/quarantine", params={"status": "waiting"}).json()["items"]
    found = next(each for each in waiting if each["model"] == "reviewed")
    address = f"/api/v1/quarantine/{found['id']}"
    with pyzipper.AESZipFile(io.BytesIO(reviewer.get(f"{address}/download").content)) as archive:
        archive.setpassword(b"infected")
        assert archive.read("model/digits.onnx") == (digits / "digits.onnx").read_bytes()
        assert archive.read("config/config.txt") == config.read_bytes()

    (stop,) = found["stops"]
    body = {"rule": stop["rule"], "reason": REASON, "days": 7}
    with httpx2.Client(base_url=client.url, headers={"Authorization": f"Bearer {client.token}"}) as own:
        assert own.post(f"{address}/waivers", json=body).json()["code"] == "own_upload"
    waived = reviewer.post(f"{address}/waivers", json=body)
    assert (waived.status_code, waived.headers["location"]) == (202, f"/api/v1/runs/{run.id}")

    run = client.wait(run.id, timeout=280)
    assert run.status == "succeeded", run.raw
    gates = {gate["gate"]: gate["passed"] for gate in run.facts("promote")["gates"]}
    assert gates == dict.fromkeys(("scan_clean", "verified", "benchmarked", "reviewers_agree", "outputs_clean"), True)
    assert client.pull("reviewed", to=tmp_path, artifact="onnx-fp32").stat().st_size > 0

    assert int(operator(slipway, "rescan", "--all").split()[0]) >= 1, "this version, and what others let in before"
    look = client.wait(client.runs(model="reviewed", limit=1)[0].id, timeout=120)
    assert (look.status, look.raw["purpose"]) == ("succeeded", "rescan")
    assert client.version("reviewed").verdict == "clean"

    reason = {"reason": "On second thoughts the key works."}
    assert reviewer.post(f"{address}/condemn", json=reason | {"sha256": stop["sha256"]}).status_code == 200
    locked = httpx2.get(
        f"{client.url}/api/v1/models/reviewed/versions/latest/download",
        headers={"Authorization": f"Bearer {client.token}"},
    )
    assert (locked.status_code, locked.json()["code"]) == (423, "quarantined")
    assert "intact" in operator(slipway, "audit")


def operator(slipway: Stack, *words: str) -> str:
    """What the operator's command says."""
    done = subprocess.run(
        [sys.executable, "-m", "workers.admin", *words],
        env={**os.environ, **slipway.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
