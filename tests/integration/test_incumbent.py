"""What a new version is held against: the form of its model that is served by default when it comes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from pipeline import store
from pipeline.sandbox import Zygote
from pipeline.stage import Stage
from pipeline.stages.benchmark import STAGE
from shared.db import Begin
from shared.settings import Settings
from shared.signing import Signer
from shared.storage import Storage
from tests.integration.test_api_runs import move
from workers.context import Workshop
from workers.lease import Lease
from workers.tasks import Tools

Submit = Callable[..., UUID]
PLAN = ("scan", "optimize", "benchmark", "promote")
BYTES = {"onnx-fp32": b"the canonical file", "onnx-int8-dynamic": b"the small one"}


@pytest.fixture
def workshop(begin: Begin, storage: Storage, settings: Settings, tmp_path: Path) -> Callable[[UUID], Workshop]:
    def workshop(run_id: UUID, stage: Stage = STAGE) -> Workshop:
        tools = Tools(
            begin=begin,
            staging=storage.bucket(settings.bucket("staging")),
            registry=storage.bucket(settings.bucket("registry")),
            quarantine=storage.bucket(settings.bucket("quarantine")),
            signer=Signer(settings.signing_key.get_secret_value()),
            sandbox=Zygote(preload=()),
            scanner=None,
            scratch=tmp_path,
            lease=15.0,
            options={},
            worker="w",
        )
        lease = Lease(begin, run_id, stage.name, 1, seconds=15.0, time_limit=60)
        return Workshop(tools, stage, run_id, 1, lease)

    return workshop


@pytest.fixture
def publish(begin: Begin, storage: Storage, settings: Settings, submit: Submit) -> Callable[..., UUID]:
    """A published version of the model with two forms of these speed-ups."""

    def publish(model: str, **speedups: float) -> UUID:
        run_id = submit(*PLAN, model=model)
        published, rows = [], []
        for (name, content), speedup in zip(BYTES.items(), (speedups["fp32"], speedups["int8"]), strict=True):
            digest = hashlib.sha256(content).hexdigest()
            key, role = f"sha256/{digest[:2]}/{digest}/{name}.onnx", "canonical" if name == "onnx-fp32" else "variant"
            storage.bucket(settings.bucket("registry")).put(key, content)
            entry = {"name": name, "role": role, "key": key, "sha256": digest, "size": len(content)}
            meta = {"variant": name, "inputs": [], "outputs": []}
            published.append(entry | {"media_type": "application/octet-stream", "meta": meta})
            rows.append({"name": name, "role": role, "speedup": speedup, "verdict": "faster", "size": len(content)})
        facts: dict[str, Any] = {
            "scan": {"verdict": "clean"},
            "optimize": {"variants": [{"name": "onnx-int8-dynamic", "verified": True, "withheld": False}]},
            "benchmark": {"rows": rows},
            "promote": {"published": published},
        }
        for stage, learned in facts.items():
            move(begin, run_id, stage, {"facts": learned, "files": []})
        return run_id

    return publish


def test_a_first_version_is_held_against_nothing(submit: Submit, workshop: Callable[[UUID], Workshop]) -> None:
    with workshop(submit(*PLAN)) as context:
        assert context.incumbent() is None


def test_the_best_form_of_the_version_that_was_published_last_is_found_and_its_bytes_are_checked(
    submit: Submit, publish: Callable[..., UUID], workshop: Callable[[UUID], Workshop]
) -> None:
    model = f"m-{uuid4().hex[:8]}"
    publish(model, fp32=9.0, int8=1.0)
    publish(model, fp32=1.0, int8=2.0)
    submit(*PLAN, model=model)  # on its way, not published
    with workshop(submit(*PLAN, model=model)) as context:
        found = context.incumbent()
        assert found is not None
        assert (found.meta["variant"], found.meta["version"]) == ("onnx-int8-dynamic", "1.1.0")
        assert context.fetch(found).read_bytes() == BYTES["onnx-int8-dynamic"]


def test_a_version_that_was_found_malicious_since_is_no_measure(
    begin: Begin, submit: Submit, publish: Callable[..., UUID], workshop: Callable[[UUID], Workshop]
) -> None:
    model = f"m-{uuid4().hex[:8]}"
    run_id = publish(model, fp32=1.0, int8=2.0)
    with begin() as session:
        version = store.version_of(session, run_id)
        session.execute(text("UPDATE versions SET verdict = 'malicious' WHERE id = :id"), {"id": version})
    with workshop(submit(*PLAN, model=model)) as context:
        assert context.incumbent() is None
