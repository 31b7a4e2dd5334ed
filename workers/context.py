"""What a stage is handed on a worker: the model on local disk, a scratch folder, the sandbox; and the way back into storage."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

from pipeline import evidence, results, selection, store
from pipeline.errors import Unavailable
from pipeline.examination import folder
from pipeline.run import Purpose
from pipeline.sandbox import PASSABLE, discard, safe_file
from pipeline.stage import (
    SIDE_ROLES,
    Child,
    File,
    Json,
    Limits,
    Made,
    Passage,
    Report,
    Sandbox,
    SandboxSession,
    Scanner,
    Stage,
    Upload,
    with_packed,
)
from registry import blobs, bundles, reviews
from registry import store as registry
from registry.waivers import Waiver
from shared.db import Begin
from shared.errors import ObjectMissing
from shared.signing import Signer
from shared.storage import Bucket
from workers.lease import Lease

if TYPE_CHECKING:
    from workers.tasks import Tools


LARGEST = 20 << 30
"""Bytes: the largest file that a stage may leave."""
ORIGIN = ("name", "role", "sha256", "size", "meta")
"""What a stage may know of the document that came with an import."""


class Abandoned(Exception):
    """The lease is gone; nothing that this attempt still does will count."""


class Workshop:
    """The `Context` of one attempt. Everything local vanishes with the `with` block."""

    def __init__(self, tools: Tools, stage: Stage, run_id: UUID, attempt: int, lease: Lease) -> None:
        self._tools = tools
        self._lease = lease
        self._folder = Path(tempfile.mkdtemp(prefix=f"{stage.name}-", dir=tools.scratch))
        self._folder.chmod(PASSABLE)
        self._prefix = f"runs/{run_id}/{stage.name}/{attempt}"
        self.attempt = attempt
        with tools.begin() as session:
            self._row = registry.upload(session, store.version_of(session, run_id))
            self._errand = evidence.errand(session, run_id)
            self.earlier: Mapping[str, Passage] = evidence.earlier(session, run_id, self._errand.purpose)
            origin = bundles.origin(session, self._row.id)
        self._packed = self.earlier.get("validate", Passage(facts={}, files=()))
        self.upload = Upload(
            version_id=self._row.id,
            model=self._row.model,
            version=self._row.version,
            format=self._row.format,
            filename=self._row.filename,
            size=self._row.size,
            sha256=self._row.sha256,
            declared=with_packed(self._row.declared, self._packed.facts.get("declared", {})),
            origin=None if origin is None else {name: getattr(origin, name) for name in ORIGIN},
        )
        self.options: Mapping[str, Json] = {**tools.options, **self._errand.request}
        self.publisher = Publishing(tools.begin, tools.staging, tools.registry, tools.signer)
        self.reviews = Decided(tools.begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        discard(self._folder)

    @cached_property
    def model(self) -> Path:
        name = "model" + "".join(Path(self._row.filename).suffixes[-1:])
        return self._local(name, self._row.original_key or self._row.staging_key, self._row.sha256)

    @cached_property
    def side_files(self) -> Mapping[str, Path]:
        packed = {file.role: self.fetch(file) for file in self._packed.files if file.role in SIDE_ROLES}
        return packed | {
            role: self._local(f"{role}{Path(file['name']).suffix}", file["key"], file["sha256"])
            for role, file in self._row.side_files.items()
        }

    @cached_property
    def scratch(self) -> Path:
        folder = self._folder / "scratch"
        folder.mkdir()
        return folder

    @property
    def scanner(self) -> Scanner | None:
        self._check()
        return self._tools.scanner

    @property
    def sandbox(self) -> Sandbox:
        self._check()
        return LeasedSandbox(self._tools.sandbox, self._lease)

    def fetch(self, file: File) -> Path:
        return self._local(f"{file.sha256[:16]}-{Path(file.name).name}", file.key, file.sha256)

    def incumbent(self) -> File | None:
        self._check()
        with self._tools.begin() as session:
            served = registry.newest_published(session, self._row.model_id, besides=self._row.id)
            if served is None:
                return None
            published = {one.name: one for one in registry.list_artifacts(session, served.id)}
            servable = [name for name, one in published.items() if one.role in evidence.SERVABLE]
            variants, rows = evidence.of_version(session, served.id)
            name = selection.best(servable, variants, rows, pins=served.pins)
        if name is None:
            return None
        best = published[name]
        return File(
            name=PurePosixPath(best.key).name,
            role=best.role,
            key=best.key,
            sha256=best.sha256,
            size=best.size,
            media_type=best.media_type,
            meta={**best.meta, "version": served.version},
        )

    def log(self, text: str) -> None:
        self._check()
        self._lease.log(text)

    def kept(self, name: str) -> Path | None:
        self._check()
        path = self._folder / f"kept-{Path(name).name}"
        try:
            self._tools.staging.download(self._kept(name), path)
        except ObjectMissing:
            path.unlink()
            return None
        return path

    def keep(self, name: str, path: Path) -> None:
        self._check()
        file = safe_file(self.scratch, str(path.relative_to(self.scratch)), LARGEST)
        self._tools.staging.upload(file, self._kept(name), "application/octet-stream")

    def recall(self, key: str) -> Report | None:
        if self._errand.purpose is Purpose.REBUILD:
            return None
        self._check()
        with self._tools.begin() as session:
            known = results.recall(session, self._errand.owner_id, key)
        if known is None:
            return None
        recalled = folder(self.scratch / "recalled")
        made = []
        for file in known.files:
            path = recalled / Path(file.name).name
            try:
                found = self._bucket(file.key).download(file.key, path)
            except ObjectMissing:
                found = None
            if found != file.sha256:
                self.log(f"{file.name} of run {known.run_id} is gone; it is made again")
                discard(recalled)
                return None
            made.append(Made(path=path, role=file.role, media_type=file.media_type, meta=file.meta))
        self.log(f"the same was done in run {known.run_id}; its result is taken")
        facts = {**known.facts, "cached": True, "cached_from": str(known.run_id)}
        return Report(facts=facts, files=made)

    def store(self, made: Made) -> dict[str, Json]:
        """Put a file that the stage made under the attempt's own key; what the report says of it."""
        self._check()
        path = safe_file(self.scratch, str(made.path.relative_to(self.scratch)), LARGEST)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        key = f"{self._prefix}/{path.name}"
        self._tools.staging.upload(path, key, made.media_type)
        return {
            "name": path.name,
            "role": made.role,
            "key": key,
            "sha256": digest.hexdigest(),
            "size": path.stat().st_size,
            "media_type": made.media_type,
            "meta": dict(made.meta),
        }

    def _local(self, name: str, key: str, sha256: str) -> Path:
        """A local copy of a staged object; what does not have the digest it must have is never handed out."""
        self._check()
        inputs = self._folder / "inputs"
        inputs.mkdir(exist_ok=True)
        path = inputs / name
        if not path.exists():
            part = path.with_name(f"{name}.part")
            found = self._bucket(key).download(key, part)
            if found != sha256:
                part.unlink()
                raise Unavailable("digest_mismatch", f"Storage returned {found} for {name}, recorded was {sha256}.")
            part.rename(path)
        return path

    def _kept(self, name: str) -> str:
        """Under the owner's id: what a model of one could have written is never read for another."""
        return f"kept/{self._errand.owner_id}/{Path(name).name}"

    def _bucket(self, key: str) -> Bucket:
        """Where the object of that key lies: what was promoted in the registry, what a run that is over has kept in quarantine."""
        if key.startswith(blobs.BLOBS):
            return self._tools.registry
        return self._tools.quarantine if key.startswith(f"{self._row.id}/") else self._tools.staging

    def _check(self) -> None:
        if self._lease.lost:
            raise Abandoned(self._lease.lost)


class Decided:
    """The reviewers' decisions, read when asked for: one may be made while a step works."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin

    def waivers(self, sha256: Collection[str]) -> Sequence[Waiver]:
        with self._begin() as session:
            return reviews.in_force(session, sha256)

    def condemned(self, sha256: Collection[str]) -> Collection[str]:
        with self._begin() as session:
            return reviews.condemnations(session, sha256).keys()


class LeasedSandbox:
    """The sandbox for as long as the lease lives: losing it ends every child, which brings the stage back at once."""

    def __init__(self, sandbox: Sandbox, lease: Lease) -> None:
        self._sandbox = sandbox
        self._lease = lease

    def open(self, *, read: Sequence[Path], scratch: Path, limits: Limits | None = None) -> SandboxSession:
        session = self._sandbox.open(read=read, scratch=scratch, limits=limits or Limits())
        return LeasedSession(session, self._lease)


class LeasedSession:
    def __init__(self, session: SandboxSession, lease: Lease) -> None:
        self._session = session
        self._lease = lease

    def __enter__(self) -> Child:
        child = self._session.__enter__()
        self._lease.on_lost(child.kill)
        return child

    def __exit__(self, *exception: object) -> None:
        self._session.__exit__(*exception)


class Publishing:
    """Into the registry bucket, under keys that name the digest of what they hold."""

    def __init__(self, begin: Begin, staging: Bucket, registry_bucket: Bucket, signer: Signer) -> None:
        self._begin = begin
        self._staging = staging
        self._registry = registry_bucket
        self._signer = signer

    def publish(self, file: File) -> str:
        """Copy, read back what is really there, compare, return the key.

        The step that made the file has reported it, and that is a claim: what is there already will stay.
        """
        key = blobs.key(file.sha256, file.name)
        if self._registry.size(key) != file.size:
            self._registry.copy(self._staging, file.key, key)
        found = self._registry.sha256(key)
        if found != file.sha256:
            self._registry.delete([key])
            raise Unavailable(
                "digest_mismatch", f"The registry holds {found} for {file.name}, reported was {file.sha256}."
            )
        return key

    def write(self, name: str, content: bytes, media_type: str) -> File:
        sha256 = hashlib.sha256(content).hexdigest()
        key = blobs.key(sha256, name)
        with self._begin() as session:
            blobs.hold(session, [sha256])
            self._registry.put(key, content, media_type)
        return File(name=name, role="manifest", key=key, sha256=sha256, size=len(content), media_type=media_type)

    def sign(self, content: bytes) -> dict[str, str]:
        signature = self._signer.sign(content)
        return {
            "key_id": signature.key_id,
            "algorithm": signature.algorithm,
            "value": signature.value,
            "public_key": self._signer.public_key,
        }
