"""What is deleted goes for good once its time is over, and its bytes with it, unless somebody else needs them."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from pipeline import engine, garbage, purging, store
from pipeline.run import Cancel
from pipeline.stage import File
from registry import audit, blobs
from registry import store as registry
from shared.db import Begin
from shared.settings import Settings
from shared.signing import Signer
from shared.storage import Bucket, Storage, Stored
from tests.integration.test_api_runs import move
from workers import housekeeping
from workers.context import Publishing

EVERYTHING = timedelta(seconds=-60)
"""A grace that is over for everything, whatever the storage's clock says."""
MONTH = 30 * 86400


@dataclass(frozen=True, kw_only=True)
class Place:
    """Buckets with what tests put into them, and one look for garbage."""

    begin: Begin
    staging: Bucket
    registry: Bucket | Interrupted
    quarantine: Bucket

    def collect(self, grace: timedelta = EVERYTHING, **more: bool) -> int:
        rooms = {"staging": self.staging, "registry": self.registry, "quarantine": self.quarantine}
        return garbage.collect(self.begin, **rooms, grace=grace, **more).objects.total()  # type: ignore[arg-type]

    def publish(self, version_id: UUID, content: bytes, name: str = "onnx-fp32") -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        key = blobs.key(sha256, f"{name}.onnx")
        self.registry.put(key, content)
        made = registry.Artifact(
            name=name, role="canonical", key=key, sha256=sha256, size=len(content), media_type="a/b", meta={}
        )
        with self.begin() as session:
            registry.publish(session, version_id, [made])
        return key

    def keep(self, version_id: UUID) -> str:
        """Have a version's original rest in quarantine storage, as after its run."""
        key = f"{version_id}/model/model.onnx"
        self.quarantine.put(key, b"the original")
        with self.begin() as session:
            registry.keep_original(session, version_id, key, {})
        return key

    def delete(self, version_id: UUID, *, days: int) -> None:
        self.sql(
            "UPDATE versions SET deleted_at = now() - make_interval(days => :days) WHERE id = :id", version_id, days
        )

    def sql(self, statement: str, row_id: UUID, days: int = 0) -> None:
        with self.begin() as session:
            session.execute(text(statement), {"id": row_id, "days": days})

    def purged(self) -> int:
        return purging.purge_overdue(self.begin, MONTH)


@pytest.fixture
def place(begin: Begin, storage: Storage, settings: Settings) -> Place:
    buckets = {room: storage.bucket(settings.bucket(room)) for room in ("staging", "registry", "quarantine")}  # type: ignore[arg-type]
    made = Place(begin=begin, **buckets)
    made.collect()
    return made


@pytest.fixture
def version(submit: Callable[..., UUID], begin: Begin) -> Callable[..., UUID]:
    """A version whose run is over."""

    def version(**more: str) -> UUID:
        run_id = submit(**more)
        with begin() as session:
            engine.send(session, run_id, Cancel())
            return store.version_of(session, run_id)

    return version


def test_what_two_versions_share_stays_until_the_last_of_them_is_purged(
    place: Place, version: Callable[..., UUID]
) -> None:
    first, second = version(), version()
    content = uuid4().bytes
    shared = place.publish(first, content)
    assert place.publish(second, content) == shared
    originals = [place.keep(first), place.keep(second)]
    assert place.collect() == 0

    place.delete(first, days=31)
    assert place.purged() == 1
    assert place.collect() == 1  # its original; a crash before this line would have left it to the next look
    assert place.quarantine.size(originals[0]) is None
    assert place.registry.size(shared) == len(content)

    place.delete(second, days=31)
    assert place.purged() == 1
    assert place.collect(dry_run=True) == 2
    assert place.registry.size(shared) == len(content)
    assert place.collect() == 2
    assert place.registry.size(shared) is None
    assert place.collect() == 0


def test_nothing_goes_before_its_time(place: Place, version: Callable[..., UUID], begin: Begin) -> None:
    deleted, deployed = version(), version()
    place.delete(deleted, days=29)
    place.delete(deployed, days=31)
    place.sql(
        "INSERT INTO deployments (model_id, version_id, target, deployed_by)"
        " SELECT model_id, id, 'staging', uploaded_by FROM versions WHERE id = :id",
        deployed,
    )
    assert place.purged() == 0
    fresh = blobs.key("f" * 64, "fresh.onnx")
    place.registry.put(fresh, b"its row is on its way")
    assert place.collect(grace=timedelta(hours=1)) == 0
    assert place.registry.size(fresh) is not None

    place.sql("UPDATE deployments SET status = 'ended', ended_at = now() WHERE version_id = :id", deployed)
    assert place.purged() == 1
    with begin() as session:
        told = audit.entries(session, subject=str(deployed))
    assert [entry.action for entry in told] == ["version.purged"]
    assert place.collect() == 1


def test_a_model_goes_with_its_versions_runs_and_history_but_not_while_a_run_goes_on(
    place: Place, submit: Callable[..., UUID], begin: Begin
) -> None:
    run_id = submit()
    with begin() as session:
        version_id = store.version_of(session, run_id)
    made = f"runs/{run_id}/convert/1/canonical.onnx"
    place.staging.put(made, b"made by a step")
    place.sql(
        "INSERT INTO deployments (model_id, version_id, target, deployed_by, status, ended_at)"
        " SELECT model_id, id, 'staging', uploaded_by, 'ended', now() FROM versions WHERE id = :id",
        version_id,
    )
    gone = "UPDATE models SET deleted_at = now() - make_interval(days => 31) WHERE id = (SELECT model_id FROM versions WHERE id = :id)"
    place.sql(gone, version_id)
    assert place.purged() == 0
    assert place.collect() == 0
    with begin() as session:
        engine.send(session, run_id, Cancel())
    assert place.purged() == 1
    with begin() as session:
        left = "SELECT count(*) FROM versions v FULL JOIN runs r ON r.version_id = v.id WHERE v.id = :v OR r.id = :r"
        assert session.execute(text(left), {"v": version_id, "r": run_id}).scalar_one() == 0
    assert place.collect() == 1
    assert place.staging.size(made) is None


def test_what_a_live_run_has_made_is_not_garbage_although_no_artifact_names_it_yet(
    place: Place, submit: Callable[..., UUID], begin: Begin
) -> None:
    """The worst moment: old bytes of a version that is gone, and a promotion that is about to find them in place."""
    run_id = submit()
    digest = "e" * 64
    place.registry.put(blobs.key(digest, "canonical.onnx"), b"x")
    report = {"facts": {}, "files": [{"sha256": digest}]}
    with begin() as session:
        session.execute(
            text("UPDATE steps SET report = :report WHERE run_id = :id AND position = 0"),
            {"report": json.dumps(report), "id": run_id},
        )
    assert place.collect() == 0
    with begin() as session:
        engine.send(session, run_id, Cancel())
    assert place.collect() == 1


@dataclass(frozen=True)
class Interrupted:
    """A bucket in which something happens once its objects are listed, or right before some are removed."""

    bucket: Bucket
    listed: Callable[[], None] = lambda: None
    deciding: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bucket, name)

    def list(self, prefix: str = "") -> list[Stored]:
        found = list(self.bucket.list(prefix))
        if not prefix:
            self.listed()
        return found

    def delete(self, keys: Sequence[str]) -> None:
        self.deciding()
        self.bucket.delete(keys)


def test_a_run_that_comes_to_bytes_which_are_being_removed_waits_and_publishes_them_whole(
    place: Place, submit: Callable[..., UUID], begin: Begin
) -> None:
    """Garbage, a run that makes the same bytes again, and a collection that has decided already."""
    content = uuid4().bytes
    sha256 = hashlib.sha256(content).hexdigest()
    key = blobs.key(sha256, "canonical.onnx")
    place.registry.put(key, content)
    run_id = submit("convert", "promote")
    file = File(
        name="canonical.onnx",
        role="canonical",
        key=f"runs/{run_id}/convert/1/canonical.onnx",
        sha256=sha256,
        size=len(content),
    )
    place.staging.put(file.key, content)
    reported: list[Future[None]] = []

    def report() -> None:
        reported.append(pool.submit(move, begin, run_id, "convert", {"facts": {}, "files": [asdict(file)]}))
        assert wait(reported, timeout=0.5).not_done  # the claim waits for the end of the removal

    with ThreadPoolExecutor(1) as pool:
        interrupted = replace(place, registry=Interrupted(place.registry, deciding=report))
        assert interrupted.collect() == 1
        reported[0].result(timeout=10)
    publishing = Publishing(begin, place.staging, place.registry, Signer("the key of this test, of 32 bytes"))
    assert publishing.publish(file) == key
    assert place.collect() == 0
    assert place.registry.read(key) == content
    with begin() as session:
        engine.send(session, run_id, Cancel())
    place.staging.delete([file.key])


def test_bytes_that_somebody_writes_again_while_garbage_is_sought_stay(place: Place, begin: Begin) -> None:
    """As the document of a bundle that is imported again: its row comes after its bytes, and no run has reported it."""
    sha256 = uuid4().hex * 2
    key = blobs.key(sha256, "imported-bundle.json")
    place.registry.put(key, b"of an import that failed")
    with begin() as session:
        blobs.hold(session, [sha256])
        assert place.collect() == 0
    time.sleep(2.5)
    again = Interrupted(place.registry, listed=lambda: place.registry.put(key, b"of an import that failed"))
    assert replace(place, registry=again).collect(timedelta(seconds=1)) == 0
    assert place.collect() == 1


def test_leftovers_in_staging_go_and_what_is_somebodys_stays(place: Place, owner: UUID, begin: Begin) -> None:
    stays = [f"kept/{owner}/timings.bin", "notes/by-hand.txt"]
    goes = [f"{uuid4()}/model/m.onnx", f"runs/{uuid4()}/convert/1/m.onnx", f"kept/{uuid4()}/timings.bin"]
    for key in (*stays, *goes):
        place.staging.put(key, b"x")
    assert place.collect() == len(goes)
    assert sorted(stored.key for stored in place.staging.list()) == sorted(stays)
    place.staging.delete(stays)


def test_an_operator_sees_what_would_go_and_whether_all_is_encrypted(
    place: Place, settings: Settings, begin: Begin, capsys: pytest.CaptureFixture[str]
) -> None:
    key = f"{uuid4()}/model/m.onnx"
    place.quarantine.put(key, b"nobody's")
    parser = argparse.ArgumentParser()
    housekeeping.add_commands(parser.add_subparsers(dest="command"))

    def admin(*arguments: str, **changed: str) -> tuple[int, dict[str, Any]]:
        wish = parser.parse_args([*arguments, "--json"])
        code = housekeeping.run(wish, begin, settings.model_copy(update=changed))
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    code, told = admin("gc", "--dry-run")
    assert (code, told["objects"], told["bytes"]) == (0, 0, 0)  # it is younger than the grace
    code, told = admin("storage", "check")
    assert (code, told["plain"]) == (0, [])
    # what is encrypted otherwise than the settings say is as good as plain
    code, told = admin("storage", "check", s3_encryption="aws:kms")
    assert code == 1
    assert {"bucket": place.quarantine.name, "key": key, "size": 8} in told["plain"]
    place.quarantine.encrypt(key)
    assert place.quarantine.read(key) == b"nobody's"
    assert place.quarantine.encrypted(key)
