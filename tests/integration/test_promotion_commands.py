"""Going live from the command line: the client's own commands against the real API."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx2
import pytest
import structlog
from slipway import Client, Refused
from slipway.cli import app as commands
from typer.testing import CliRunner, Result

from api.deps import Services
from registry import rollouts
from registry.rollouts import Tally
from shared.db import Begin
from tests.integration.api_fixtures import Person, ada, app, join, parts, served, url
from tests.integration.test_promotion import deployer, grace, model, publish

Slipway = Callable[..., Result]


@pytest.fixture(autouse=True)
def log_elsewhere() -> Iterator[None]:
    """The server shares this process: what it logs must not stand in a command's output."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    yield
    structlog.configure(**before)


@pytest.fixture
def slipway(
    deployer: httpx2.Client, owner: UUID, parts: Services, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Slipway:
    """Run a command as the model's owner, or with somebody's `token`."""
    monkeypatch.setenv("SLIPWAY_URL", url)
    monkeypatch.setenv("SLIPWAY_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("NO_COLOR", "1")

    def slipway(*arguments: str, as_: UUID | None = None) -> Result:
        monkeypatch.setenv("SLIPWAY_TOKEN", parts.tokens.issue(str(as_ or owner)))
        return CliRunner().invoke(commands, list(arguments), prog_name="slipway", env={"COLUMNS": "200"})

    return slipway


def test_why_not_approve_deploy_roll_back(
    slipway: Slipway, deployer: httpx2.Client, grace: Callable[..., Person], model: str, publish: Callable[..., str]
) -> None:
    first, second = publish(), publish()
    assert slipway("deploy", f"{model}@{first}", "--to", "production").exit_code == 0
    added = slipway("gates", "add", "p99_below", "ms=4", "--model", model, "--target", "production", "-q")
    assert added.exit_code == 0, added.stderr
    assert slipway("gates", "add", "approved", "--model", model).exit_code == 0
    listed = slipway("gates", "list", model)
    assert "p99_below" in listed.stdout
    assert "ms=4" in listed.stdout
    assert "licence_in" in slipway("gates", "rules", "-q").stdout.split()

    no = slipway("why-not", f"{model}@{second}", "production")
    assert (no.exit_code, "p99 of onnx-fp32 on cpu: 5.3 ms → ≤ 4 ms" in no.stdout) == (3, True), no.stdout
    assert "2 facts would have to change" in no.stdout
    refused = slipway("deploy", f"{model}@{second}", "--to", "production")
    assert (refused.exit_code, "gate_failed" in refused.stderr) == (3, True), refused.stderr
    assert slipway("gates", "remove", added.stdout.strip(), "--model", model).exit_code == 0
    assert slipway("approve", f"{model}@{second}").exit_code == 4

    other = grace("models:deploy")
    address = deployer.get(f"/api/v1/models/{model}").json()["id"]
    theirs = f"{address}@{second}"
    assert slipway("approve", theirs, "production", "-m", "fine", as_=other.id).exit_code == 0
    assert slipway("approve", theirs, "production", "--revoke", as_=other.id).exit_code == 0
    assert slipway("approve", theirs, "production", "--revoke", as_=other.id).exit_code == 5
    assert slipway("approve", theirs, "production", as_=other.id).exit_code == 0
    assert slipway("why-not", f"{model}@{second}", "production").exit_code == 0

    deployed = slipway("deploy", f"{model}@{second}", "--to", "production", "--config", '{"replicas": 2}', "--json")
    assert json.loads(deployed.stdout)["config"] == {"replicas": 2}
    assert slipway("deploy", f"{model}@{second}", "--to", "production", "--config", "[]").exit_code == 2
    back = slipway("rollback", model, "--target", "production", "--reason", "confuses 3 and 8", "-q")
    assert (back.exit_code, back.stdout) == (0, f"{first}\n"), back.stderr
    shown = slipway("deployments", model, "--all").stdout
    assert [word in shown for word in ("live", "rolled_back", "superseded", "confuses 3 and 8")] == [True] * 4
    assert slipway("undeploy", model, "--target", "production", "--reason", "over").exit_code == 0
    assert slipway("undeploy", model, "--target", "production", "--reason", "over").exit_code == 5
    assert "Nothing is deployed" in slipway("deployments", model).stdout
    assert slipway("signatures", f"{model}@{second}", "-q").stdout == "sealed\n"


def test_the_sdk_says_what_the_gates_found(
    deployer: httpx2.Client, owner: UUID, parts: Services, url: str, model: str, publish: Callable[..., str]
) -> None:
    version = publish()
    with Client(url, parts.tokens.issue(str(owner))) as client:
        client.gates.add("licence_in", {"licences": ["MIT"]}, target="staging", name=model)
        with pytest.raises(Refused) as caught:
            client.deployments.deploy(f"{model}@{version}", "staging")
        assert caught.value.details[0]["state"] == "unknown"
        found = client.gates.why_not(f"{model}@{version}", "staging")
        assert found.to_change == ("licence: unknown (none was declared) → MIT",)
        done = client.deployments.deploy(f"{model}@{version}", "development", reason="to look at it")
        assert client.deployments.live(model, "development").id == done.id
        assert client.deployments.get(model, done.id) == done
        assert {outcome.state for outcome in done.gates} == {"passed"}
        seal = client.signatures.of(f"{model}@{version}")
        (key,) = client.signatures.trusted()
        assert (seal.sealed, key.current, seal.signatures[0].key_id) == (True, True, key.key_id)


def test_a_rollout_from_the_command_line(
    slipway: Slipway, begin: Begin, parts: Services, model: str, publish: Callable[..., str]
) -> None:
    first, second = publish(), publish()
    assert slipway("deploy", f"{model}@{first}", "--to", "production").exit_code == 0
    begun = slipway(
        "rollout", "start", f"{model}@{second}", "latency_ms=50", "auto_promote=false", "--weight", "0.2", "-q"
    )
    assert begun.exit_code == 0, begun.stderr
    rollout = UUID(begun.stdout.strip())
    with begin() as session:
        rollouts.add(session, rollout, "control", Tally(requests=8000, errors=80))
        rollouts.add(session, rollout, "candidate", Tally(requests=2000, errors=30))
    shown = slipway("rollout", "show", model).stdout
    assert f"{second} beside {first}, canary of 20 %, running" in shown
    assert "●" in shown
    assert "Undecided: errors 1.5 % (30 of 2,000) against 1 % (80 of 8,000)" in shown
    assert slipway("rollout", "list", model, "-q").stdout.split() == [str(rollout)]
    again = slipway("rollout", "start", f"{model}@{second}")
    assert (again.exit_code != 0, "rollout_running" in again.stderr) == (True, True)

    with begin() as session:
        (row,) = [row for row in rollouts.running(session) if row.id == rollout]
    receipt = parts.receipts.issue(row.candidate_id, rollout_id=rollout, arm="candidate", label="seven")
    assert slipway("feedback", receipt, "--label", "nine", "-q").stdout == "wrong\n"
    twice = slipway("feedback", receipt, "--right")
    assert (twice.exit_code != 0, "prediction_judged" in twice.stderr) == (True, True)

    stopped = slipway("rollout", "stop", model, "--reason", "cameras are late")
    assert (stopped.exit_code, "stopped" in stopped.stdout, "cameras are late" in stopped.stdout) == (0, True, True)
    assert "rollout_not_found" in slipway("rollout", "promote", model, "--reason", "now").stderr
