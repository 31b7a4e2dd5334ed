"""A yard to review in: worker, relay and storage in one process, with the real scan, the real sandbox and real transactions."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import text

from pipeline import store
from pipeline.run import Run, Step
from pipeline.sandbox import Zygote
from pipeline.stage import AntivirusVerdict, Report, Stage
from pipeline.stages import scan
from registry import store as registry
from shared.db import Begin
from shared.settings import Settings
from shared.signing import Signer
from shared.storage import Bucket, Storage
from tests.integration.api_fixtures import Person
from workers.relay import clean
from workers.tasks import Tools, work

Join = Callable[..., Person]

SCAN = scan.STAGE.step()
END = Stage(name="end", run=lambda ctx: Report(facts={"published": [], "seen": ctx.model.read_bytes()[:4].hex()}))
REASON = "acme.Gate is ours; its source was read."


class Quiet:
    """An antivirus that knows nothing and saw everything."""

    def scan(self, path: Path) -> AntivirusVerdict:
        return AntivirusVerdict(threat=None, complete=True, engine="quiet")


@dataclass(frozen=True, kw_only=True)
class Yard:
    """Worker, relay and storage at hand, in this process: real stage functions, real sandbox, real transactions."""

    tools: Tools
    submit: Callable[..., UUID]
    staging: Bucket
    quarantine: Bucket

    def upload(self, content: bytes, *, rest: tuple[Step, ...] = (END.step(),), format_: str = "pickled") -> UUID:
        key = f"{uuid4()}/model/model.onnx"
        self.staging.put(key, content)
        digest = hashlib.sha256(content).hexdigest()
        return self.submit(plan=[SCAN, *rest], key=key, sha256=digest, format_=format_)

    def work(self, run_id: UUID, *, stage: Stage = scan.STAGE) -> str:
        with self.tools.begin() as session:
            attempt = store.load(session, run_id).attempt
        return work(self.tools, stage, run_id, attempt)

    def clean(self) -> int:
        return clean(self.tools.begin, self.staging, self.quarantine, linger=0.0)

    def load(self, run_id: UUID) -> Run:
        with self.tools.begin() as session:
            return store.load(session, run_id)

    def version(self, run_id: UUID) -> Any:
        with self.tools.begin() as session:
            return registry.upload(session, store.version_of(session, run_id))

    def facts(self, run_id: UUID) -> dict[str, Any]:
        with self.tools.begin() as session:
            report = session.execute(
                text("SELECT report FROM steps WHERE run_id = :id AND stage = 'scan'"), {"id": run_id}
            ).scalar_one()
        found: dict[str, Any] = report["facts"]
        return found


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote(preload=("pipeline.readers",), prefixes=("pipeline.", "tests."))
    yield made
    made.close()


@pytest.fixture
def yard(
    begin: Begin,
    storage: Storage,
    settings: Settings,
    submit: Callable[..., UUID],
    zygote: Zygote,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Yard:
    shelter = tmp_path_factory.getbasetemp().parent
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(shelter):
            folder.chmod(0o711)  # the sandbox child, who is nobody, passes through
    buckets = {room: storage.bucket(settings.bucket(room)) for room in ("staging", "registry", "quarantine")}  # type: ignore[arg-type]
    tools = Tools(
        begin=begin,
        signer=Signer(settings.signing_key.get_secret_value()),
        sandbox=zygote,
        scanner=Quiet(),
        scratch=tmp_path,
        lease=60,
        options={},
        worker="yard",
        **buckets,
    )
    return Yard(tools=tools, submit=submit, staging=buckets["staging"], quarantine=buckets["quarantine"])


def unheard_of(salt: str = "") -> bytes:
    """A harmless pickle that names a global of which nobody has heard; every one of its own."""
    return f"cacme.layers\nGate\n(V{salt or uuid4().hex}\ntR.".encode()


def known_gadget() -> bytes:
    return pickle.dumps(os.system)[:-1] + f"V/bin/true {uuid4().hex}\n\x85R.".encode("latin-1")


@pytest.fixture
def reviewer(join: Join) -> Person:
    return join("models:review", "models:read")


def waivable(yard: Yard, run_id: UUID) -> list[str]:
    return sorted({stop["rule"] for stop in yard.facts(run_id)["stops"]})


def waive_all(yard: Yard, client: httpx2.Client, run_id: UUID, **more: Any) -> httpx2.Response:
    version = yard.version(run_id).id
    for rule in waivable(yard, run_id):
        answer = client.post(
            f"/api/v1/quarantine/{version}/waivers", json={"rule": rule, "reason": REASON, "days": 30, **more}
        )
        assert answer.status_code == 202, answer.text
    return answer


def events_of(yard: Yard, run_id: UUID) -> list[dict[str, Any]]:
    with yard.tools.begin() as session:
        return [{"kind": event.kind, **event.data} for event in store.events_after(session, run_id, -1)]
