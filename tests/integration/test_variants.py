"""A published version gets more variants, is rebuilt and has variants pinned; what was done once is not done twice."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import text

from pipeline import engine, evidence, planning, store
from pipeline.run import Purpose, Run
from pipeline.sandbox import Zygote
from pipeline.stage import discover
from registry import audit, people, promotion
from registry import store as registry
from shared.db import Begin
from shared.settings import Settings
from shared.signing import Signer
from shared.storage import Bucket, Storage
from tests.integration.api_fixtures import Person, app, join, parts, problem, served, signed_in, url
from tests.integration.review_fixtures import Quiet
from workers.relay import clean
from workers.tasks import Tools, work

STAGES = {stage.name: stage for stage in discover()}
FP32, DYNAMIC = "onnx-fp32", "onnx-int8-dynamic"
HERE = "/api/v1/models/{}/versions/1.0.0"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.*LeafSpec.*:FutureWarning"),
]


@dataclass(frozen=True, kw_only=True)
class Yard:
    """All stages as they are, worked off in this process."""

    tools: Tools
    model: bytes

    def intake(
        self, owner: UUID, *, name: str | None = None, without: tuple[str, ...] = ("tensorrt",), variants: Any = None
    ) -> UUID:
        """Submit the digits model; `variants` limits what the intake makes, so that something is left to add."""
        key = f"{uuid4()}/model/digits.onnx"
        self.tools.staging.put(key, self.model)
        intake = registry.Intake(
            owner_id=owner,
            model=name or f"digits-{uuid4().hex[:8]}",
            version=None,
            bump="minor",
            format="onnx",
            servable=True,
            filename="digits.onnx",
            size=len(self.model),
            sha256=hashlib.sha256(self.model).hexdigest(),
            staging_key=key,
            declared={},
            side_files={},
        )
        plan = planning.intake(list(STAGES.values()), servable=True, without=without)
        request = {} if variants is None else {"variants": variants}
        with self.tools.begin() as session:
            row = registry.add_version(session, intake)
            return engine.submit(session, version_id=row.id, owner_id=owner, plan=plan, request=request).id

    def work(self, run_id: UUID) -> Run:
        """Until the run is over."""
        while not (run := self.load(run_id)).status.terminal:
            work(self.tools, STAGES[run.step.stage], run_id, run.attempt)
        return run

    def clean(self) -> None:
        while clean(self.tools.begin, self.tools.staging, self.tools.quarantine, linger=0.0):
            pass

    def load(self, run_id: UUID) -> Run:
        with self.tools.begin() as session:
            return store.load(session, run_id)

    def facts(self, run_id: UUID, stage: str) -> dict[str, Any]:
        with self.tools.begin() as session:
            found: dict[str, Any] = store.reports(session, run_id)[stage]["facts"]
            return found

    def version(self, run_id: UUID) -> Any:
        with self.tools.begin() as session:
            return registry.upload(session, store.version_of(session, run_id))

    def here(self, run_id: UUID) -> str:
        row = self.version(run_id)
        return f"/api/v1/models/{row.model}/versions/{row.version}"


@pytest.fixture(scope="module")
def yard(
    begin: Begin,
    storage: Storage,
    settings: Settings,
    zygote: Zygote,
    digits: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Yard:
    shelter = tmp_path_factory.getbasetemp().parent
    scratch = tmp_path_factory.mktemp("scratch")
    for above in (scratch, *scratch.parents):
        if above.is_relative_to(shelter):
            above.chmod(0o711)  # the sandbox child, who is nobody, passes through
    buckets = {room: storage.bucket(settings.bucket(room)) for room in ("staging", "registry", "quarantine")}  # type: ignore[arg-type]
    tools = Tools(
        begin=begin,
        signer=Signer(settings.signing_key.get_secret_value()),
        sandbox=zygote,
        scanner=Quiet(),
        scratch=scratch,
        lease=60,
        options={"benchmark_rounds": 2},
        worker="yard",
        **buckets,
    )
    return Yard(tools=tools, model=(digits / "digits.onnx").read_bytes())


@pytest.fixture(scope="module")
def keeper(begin: Begin, settings: Settings) -> UUID:
    with begin() as session:
        name = f"keeper-{uuid4().hex[:8]}"
        return people.register(session, username=name, password_hash=None, permissions=people.EVERYDAY).id


@pytest.fixture(scope="module")
def published(yard: Yard, keeper: UUID) -> UUID:
    """The intake of a version with all but one of its variants; staging is empty again."""
    run_id = yard.intake(keeper, variants=["onnx-fp32-optimized"])
    assert yard.work(run_id).status == "succeeded"
    yard.clean()
    return run_id


@pytest.fixture
def client(keeper: UUID, parts: Any, url: str) -> Iterator[httpx2.Client]:
    with signed_in(url, parts.tokens.issue(str(keeper))) as client:
        yield client


def names(client: httpx2.Client, here: str) -> dict[str, str]:
    return {one["name"]: one["sha256"] for one in client.get(f"{here}/artifacts").json()["items"]}


def test_a_variant_comes_later_and_nothing_that_was_there_changes(
    yard: Yard, published: UUID, client: httpx2.Client, begin: Begin
) -> None:
    here = yard.here(published)
    before = names(client, here)
    assert DYNAMIC not in before
    answer = client.post(f"{here}/variants", json={"variants": [DYNAMIC]})
    assert answer.status_code == 202, answer.text
    run = answer.json()
    assert answer.headers["location"] == f"/api/v1/runs/{run['id']}"
    assert run["purpose"] == "variant"
    assert [step["stage"] for step in run["steps"]] == ["optimize", "benchmark", "promote"]
    again = client.post(f"{here}/variants", json={"variants": [DYNAMIC]})
    assert problem(again, 409, "run_under_way")["details"] == {"run": run["id"]}
    over = yard.work(UUID(run["id"]))
    assert over.status == "succeeded", over
    after = names(client, here)
    assert {name: after[name] for name in before} == before
    samples = yard.facts(UUID(run["id"]), "benchmark")["evidence"]["name"]
    assert set(after) - set(before) == {DYNAMIC, f"manifest+{DYNAMIC}.json", samples}
    measured = {row["name"] for row in yard.facts(UUID(run["id"]), "benchmark")["rows"]}
    assert measured == {"source", FP32, DYNAMIC}
    problem(client.post(f"{here}/variants", json={"variants": [DYNAMIC]}), 409, "variant_exists")
    with begin() as session:
        (entry,) = audit.entries(session, action="variant.requested", subject=str(yard.version(published).id))
    assert entry.details == {"run": run["id"], "variants": [DYNAMIC]}
    yard.clean()
    assert not list(yard.tools.staging.list(f"runs/{run['id']}/"))
    seal = client.get(f"{here}/signatures").json()
    assert {one["manifest"]: one["valid"] for one in seal["items"]} == {
        "manifest.json": True,
        f"manifest+{DYNAMIC}.json": True,
    }
    assert seal["sealed"], seal
    asked = {
        "verified": {},
        "p99_below": {"ms": 1e6, "variant": DYNAMIC},
        "size_below": {"bytes": 1 << 30},
        "signed": {},
    }
    with begin() as session:
        for rule, parameters in asked.items():
            row = yard.version(published)
            promotion.add_gate(
                session, model_id=row.model_id, target="*", rule=rule, parameters=parameters, actor=audit.SLIPWAY
            )
    judged = client.get(f"{here}/promotability").json()
    assert judged["promotable"], judged["to_change"]
    assert {gate["rule"] for gate in judged["gates"]} >= asked.keys()


def test_a_rebuild_gives_the_same_bytes_and_publishes_nothing(
    yard: Yard, published: UUID, client: httpx2.Client
) -> None:
    here = yard.here(published)
    before = client.get(here).json()
    answer = client.post(f"{here}/rebuild")
    assert answer.status_code == 202, answer.text
    run_id = UUID(answer.json()["id"])
    assert answer.json()["purpose"] == "rebuild"
    assert yard.work(run_id).status == "succeeded"
    facts = yard.facts(run_id, "compare")
    assert facts["same"] is True, facts
    assert {each["name"] for each in facts["artifacts"]} >= {FP32, "onnx-fp32-optimized"}
    assert all(each["recorded"] == each["rebuilt"] for each in facts["artifacts"])
    assert facts["toolchain"] == {}
    assert "cached" not in yard.facts(run_id, "convert"), "a rebuild never takes what was made before"
    after = client.get(here).json()
    assert (after["artifacts"], after["published_at"]) == (before["artifacts"], before["published_at"])


def test_a_rebuild_tells_what_differs(yard: Yard, published: UUID, begin: Begin, keeper: UUID) -> None:
    row = yard.version(published)
    with begin() as session:
        recorded = evidence.recorded(session, row.id)
        recorded[0] |= {"sha256": "0" * 64, "toolchain": recorded[0]["toolchain"] | {"onnx": "1.0"}}
        recorded.append({"name": "onnx-gone", "role": "variant", "sha256": "1" * 64, "toolchain": {}})
        recorded.append({"name": "tensorrt-fp16@sm90", "role": "variant", "sha256": "2" * 64, "toolchain": {}})
        plan = planning.rebuild(list(STAGES.values()), queues={})
        request = {"recorded": recorded}
        run = engine.submit(
            session, version_id=row.id, owner_id=keeper, plan=plan, purpose=Purpose.REBUILD, request=request
        )
    assert yard.work(run.id).status == "succeeded"
    facts = yard.facts(run.id, "compare")
    assert facts["same"] is False
    by_name = {each["name"]: each for each in facts["artifacts"]}
    assert not by_name[recorded[0]["name"]]["same"]
    assert by_name["onnx-gone"]["rebuilt"] is None
    assert "tensorrt-fp16@sm90" not in by_name, "engines belong to their device"
    assert facts["toolchain"]["onnx"]["recorded"] == "1.0"


def test_what_was_converted_once_is_taken_again_by_its_owner_only(
    yard: Yard, published: UUID, keeper: UUID, join: Callable[..., Person]
) -> None:
    again = yard.intake(keeper, variants=["onnx-fp32-optimized"])
    assert yard.work(again).status == "succeeded"
    for stage in ("convert", "optimize"):
        facts = yard.facts(again, stage)
        assert (facts["cached"], facts["cached_from"]) == (True, str(published)), stage
        fresh = yard.facts(published, stage)
        assert {name: facts[name] for name in fresh} == fresh
    with yard.tools.begin() as session:
        first, second = (
            {
                (one.name, one.sha256)
                for one in registry.list_artifacts(session, yard.version(run).id)
                if one.role not in ("manifest", "evidence")  # what was measured is never twice the same
            }
            for run in (published, again)
        )
    assert second <= first
    stranger = yard.intake(join().id, variants=["onnx-fp32-optimized"])
    assert yard.work(stranger).status == "succeeded"
    assert "cached" not in yard.facts(stranger, "convert"), "what others have is nobody's business"


def test_a_stored_result_that_is_not_what_it_was_is_made_again(yard: Yard, owner: UUID, begin: Begin) -> None:
    first = yard.intake(owner, variants=["onnx-fp32-optimized"])
    assert yard.work(first).status == "succeeded"
    with begin() as session:
        canonical = next(
            one for one in registry.list_artifacts(session, yard.version(first).id) if one.role == "canonical"
        )
    yard.tools.registry.put(canonical.key, b"something else")
    second = yard.intake(owner, variants=["onnx-fp32-optimized"])
    assert yard.work(second).status == "succeeded"
    assert "cached" not in yard.facts(second, "convert")
    third = yard.intake(owner, variants=["onnx-fp32-optimized"])
    assert yard.work(third).status == "succeeded"
    assert yard.facts(third, "convert")["cached_from"] == str(second)
    yard.clean()


def test_an_intake_goes_on_without_an_engine_that_no_worker_can_build(yard: Yard, keeper: UUID) -> None:
    run_id = yard.intake(keeper, without=(), variants=["onnx-fp32-optimized"])
    assert yard.work(run_id).status == "succeeded"
    assert "no GPU of its own" in yard.facts(run_id, "tensorrt")["skipped"]
    manifest = next(one for one in yard.facts(run_id, "promote")["published"] if one["role"] == "manifest")
    told = json.loads(yard.tools.registry.read(manifest["key"]))["evidence"]["tensorrt"]
    assert "no GPU of its own" in told["skipped"], "the signed manifest says so too"


def test_a_pin_outweighs_the_measurements_until_it_is_taken_away(
    yard: Yard, published: UUID, client: httpx2.Client, begin: Begin
) -> None:
    here = yard.here(published)
    by_evidence = client.get(here).json()["best_variant"]
    other = next(one for one in (FP32, "onnx-fp32-optimized") if one != by_evidence)
    pinned = client.put(f"{here}/pins/cpu", json={"variant": other})
    assert pinned.status_code == 200, pinned.text
    assert (pinned.json()["best_variant"], pinned.json()["pinned"]) == (other, {"cpu": other})
    assert client.get(f"{here}/download").json()["name"] == other
    client.put(f"{here}/pins/sm90", json={"variant": FP32})
    assert client.get(here).json()["pinned"] == {"cpu": other, "sm90": FP32}
    assert client.delete(f"{here}/pins/sm90").json()["pinned"] == {"cpu": other}
    free = client.delete(f"{here}/pins/cpu")
    assert (free.json()["best_variant"], free.json()["pinned"]) == (by_evidence, {})
    problem(client.delete(f"{here}/pins/cpu"), 404, "pin_not_found")
    problem(client.put(f"{here}/pins/cpu", json={"variant": "onnx-fp64"}), 404, "artifact_not_found")
    problem(client.put(f"{here}/pins/toaster", json={"variant": FP32}), 404, "not_found")
    with begin() as session:
        entries = audit.entries(session, subject=str(yard.version(published).id))
    trail = [each.action for each in entries if each.action.startswith("variant.")]
    assert trail[:4] == ["variant.unpinned", "variant.unpinned", "variant.pinned", "variant.pinned"]


def test_only_the_owner_of_a_clean_published_version_may_ask(
    yard: Yard, published: UUID, keeper: UUID, client: httpx2.Client, join: Callable[..., Person], begin: Begin
) -> None:
    here = yard.here(published)
    wish = {"variants": [DYNAMIC]}
    problem(join().client.post(f"{here}/variants", json=wish), 404, "model_not_found")
    problem(client.post(f"{here}/variants", json={"variants": ["onnx-int3"]}), 422, "invalid_field")
    problem(client.post(f"{here}/variants", json={"variants": []}), 422, "invalid_field")
    problem(client.post(here.replace("1.0.0", "9.0.0") + "/rebuild"), 404, "version_not_found")
    row = yard.version(published)
    with begin() as session:
        session.execute(text("UPDATE models SET visibility = 'public' WHERE id = :id"), {"id": row.model_id})
    by_id = f"/api/v1/models/{row.model_id}/versions/1.0.0"
    with begin() as session:
        session.execute(text("UPDATE users SET max_bytes = 1 WHERE id = :id"), {"id": keeper})
    absent = {"variants": ["onnx-int8-static"]}
    assert problem(client.post(f"{here}/variants", json=absent), 403, "quota_exceeded")["details"]["what"] == "bytes"
    helper = join()
    grant = (
        "INSERT INTO grants (model_id, user_id, permission, granted_by) VALUES (:model, :user, 'models:upload', :by)"
    )
    with begin() as session:
        session.execute(text("UPDATE users SET max_bytes = NULL WHERE id = :id"), {"id": keeper})
        session.execute(text(grant), {"model": row.model_id, "user": helper.id, "by": keeper})
    problem(helper.client.put(f"{by_id}/pins/cpu", json={"variant": FP32}), 403, "not_granted")  # it is not hers
    problem(helper.client.get(f"{by_id}/download", params={"artifact": "source"}), 404, "artifact_not_found")
    with begin() as session:
        session.execute(text("UPDATE versions SET uploaded_by = :by WHERE id = :id"), {"by": helper.id, "id": row.id})
    assert helper.client.put(f"{by_id}/pins/cpu", json={"variant": FP32}).json()["pinned"] == {"cpu": FP32}
    assert helper.client.delete(f"{by_id}/pins/cpu").json()["pinned"] == {}
    assert helper.client.get(f"{by_id}/download", params={"artifact": "source"}).json()["name"] == "source"
    with begin() as session:
        session.execute(text("UPDATE versions SET uploaded_by = :by WHERE id = :id"), {"by": keeper, "id": row.id})
    problem(join().client.post(f"{by_id}/rebuild"), 403, "not_granted")
    problem(join("models:read").client.put(f"{by_id}/pins/cpu", json={"variant": FP32}), 403, "forbidden")
    fresh = yard.here(yard.intake(keeper))
    problem(client.post(f"{fresh}/variants", json=wish), 423, "not_yet_scanned")
    with begin() as session:
        session.execute(text("UPDATE versions SET verdict = 'clean' WHERE staging_key = :k"), {"k": fresh})
        session.execute(text("UPDATE versions SET verdict = 'unknown' WHERE id = :id"), {"id": row.id})
    problem(client.post(f"{here}/rebuild"), 423, "quarantined")
    with begin() as session:
        session.execute(text("UPDATE versions SET verdict = 'clean' WHERE id = :id"), {"id": row.id})
        session.execute(text("UPDATE versions SET servable = false WHERE id = :id"), {"id": row.id})
    problem(client.post(f"{here}/rebuild"), 409, "not_servable")
    with begin() as session:
        session.execute(text("UPDATE versions SET servable = true WHERE id = :id"), {"id": row.id})
