"""What promote lets out: only files of our converter that read as clean as if a stranger had sent them."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pipeline.errors import Rejected
from pipeline.sandbox import Zygote, discard
from pipeline.stage import File, Passage, Report, Upload
from pipeline.stages.promote import STAGE
from registry.waivers import Waiver
from tests.integration.test_scan import Decisions, sandbox

SOURCE = "a" * 64


@dataclass(kw_only=True)
class Shelf:
    """A publisher that remembers."""

    held: dict[str, bytes] = field(default_factory=dict)

    def publish(self, file: File) -> str:
        self.held[file.name] = b""
        return f"sha256/{file.sha256}"

    def write(self, name: str, content: bytes, media_type: str) -> File:
        self.held[name] = content
        digest = hashlib.sha256(content).hexdigest()
        return File(name=name, role="manifest", key=name, sha256=digest, size=len(content), media_type=media_type)

    def sign(self, content: bytes) -> dict[str, str]:
        return {"over": hashlib.sha256(content).hexdigest()}


@dataclass(kw_only=True)
class Work:
    """The stage's context over files that earlier steps made."""

    upload: Upload
    earlier: Mapping[str, Passage]
    made: Mapping[str, Path]
    scratch: Path
    sandbox: Zygote
    reviews: Decisions = field(default_factory=Decisions)
    publisher: Shelf = field(default_factory=Shelf)
    lines: list[str] = field(default_factory=list)
    options: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1

    def log(self, text: str) -> None:
        self.lines.append(text)

    def fetch(self, file: File) -> Path:
        return self.made[file.name]


@pytest.fixture(scope="module")
def canonical(benign: dict[str, Path]) -> Path:
    return benign["dynamo.onnx"]


@pytest.fixture
def work(tmp_path: Path, sandbox: Zygote) -> Iterator[Callable[..., Work]]:
    with ExitStack() as cleaning:

        def work(canonical: Path, *, reviews: Decisions | None = None, stops: tuple[Any, ...] = ()) -> Work:
            scratch = tmp_path / f"scratch-{uuid4().hex}"
            scratch.mkdir()
            cleaning.callback(discard, scratch)
            file = File(
                name=canonical.name,
                role="canonical",
                key="k",
                sha256=hashlib.sha256(canonical.read_bytes()).hexdigest(),
                size=canonical.stat().st_size,
                meta={"variant": "onnx-fp32"},
            )
            scan = {"verdict": "clean", "files": [{"name": "m", "sha256": SOURCE}], "stops": list(stops)}
            return Work(
                upload=Upload(
                    version_id=uuid4(),
                    model="digits",
                    version="1.0.0",
                    format="onnx",
                    filename="digits.onnx",
                    size=1,
                    sha256=SOURCE,
                    declared={},
                ),
                earlier={
                    "scan": Passage(facts=scan, files=[]),
                    "convert": Passage(facts={"verification": {"verified": True}}, files=[file]),
                    "benchmark": Passage(facts={"rows": [{"name": "onnx-fp32"}]}, files=[]),
                },
                made={canonical.name: canonical},
                scratch=scratch,
                sandbox=sandbox,
                reviews=reviews or Decisions(),
            )

        yield work


def gate(gates: Any, name: str) -> dict[str, Any]:
    return next(each for each in gates if each["gate"] == name)


def test_what_our_converter_wrote_is_read_again_and_its_evidence_kept(
    work: Callable[..., Work], canonical: Path
) -> None:
    ctx = work(canonical)
    report: Report = STAGE.run(ctx)
    found = gate(report.facts["gates"], "outputs_clean")
    (evidence,) = found["evidence"]
    assert (found["passed"], evidence["name"], evidence["verdict"]) == (True, "onnx-fp32", "clean")
    assert evidence["bytes"]["onnx"] == canonical.stat().st_size
    manifest = json.loads(ctx.publisher.held["manifest.json"])
    assert gate(manifest["gates"], "outputs_clean")["evidence"] == [evidence]
    told = report.facts["manifest"]
    assert told["signature"] == {"over": told["sha256"]}


def test_what_another_instance_told_is_sealed_by_the_manifest_too(work: Callable[..., Work], canonical: Path) -> None:
    ctx = work(canonical)
    told = {"name": "imported-bundle.json", "role": "evidence", "sha256": "b" * 64, "size": 9, "meta": {"key_id": "k"}}
    ctx.upload = replace(ctx.upload, origin=told)
    report: Report = STAGE.run(ctx)
    assert told in json.loads(ctx.publisher.held["manifest.json"])["artifacts"]
    assert "imported-bundle.json" not in [each["name"] for each in report.facts["published"]]


@pytest.mark.parametrize("content", [pickle.dumps(os.system)[:-1] + b"V/bin/true\n\x85R.", b"\x93\x01\x02\x03" * 50])
def test_an_output_that_is_hostile_or_not_understood_is_not_published(
    work: Callable[..., Work], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    ctx = work(path)
    with pytest.raises(Rejected) as caught:
        STAGE.run(ctx)
    assert caught.value.code == "converted_unclean"
    json.dumps(caught.value.details)
    (evidence,) = gate(caught.value.details["gates"], "outputs_clean")["evidence"]
    assert evidence["verdict"] in ("malicious", "unknown")
    assert ctx.publisher.held == {}


def test_what_reviewers_decided_meanwhile_counts(work: Callable[..., Work], canonical: Path) -> None:
    stop = {"sha256": SOURCE, "rule": "pickle.global", "severity": "unknown", "waived": "w"}
    waiver = Waiver(
        id=uuid4(),
        sha256=SOURCE,
        rule="pickle.global",
        reason="looked at",
        granted_by="grace",
        granted_at=datetime.now(UTC),
        expires_at=datetime.now(UTC) + timedelta(days=1),
        revoked_at=None,
    )
    assert STAGE.run(work(canonical, stops=(stop,), reviews=Decisions(granted=[waiver]))).facts["published"]
    for decisions, says in (
        (Decisions(), "the waiver of pickle.global counts no longer"),
        (Decisions(granted=[waiver], against={SOURCE}), "has condemned"),
    ):
        with pytest.raises(Rejected, match=says) as caught:
            STAGE.run(work(canonical, stops=(stop,), reviews=decisions))
        assert caught.value.code == "gate_failed"
