"""A version on the shelf: published, with all kinds of files, for tests of what is done with it afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from registry import blobs, reviews, store
from registry.store import Artifact
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Bucket, Storage

CONFIG = b"threshold: 0.5"


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """`model` and `path` are addresses, `made` the artifacts by name."""

    model: str
    path: str
    version_id: UUID
    source: bytes
    made: dict[str, Artifact]


def artifact(registry: Bucket, name: str, role: str, content: bytes) -> Artifact:
    """An artifact whose bytes are in the registry bucket."""
    sha256 = hashlib.sha256(content).hexdigest()
    key = blobs.key(sha256, f"{name}.bin")
    registry.put(key, content)
    return Artifact(
        name=name,
        role=role,
        key=key,
        sha256=sha256,
        size=len(content),
        media_type="application/x",
        meta={"toolchain": {"onnx": "1"}},
    )


@pytest.fixture
def shelf(begin: Begin, storage: Storage, settings: Settings, owner: UUID) -> Callable[..., Shelf]:
    """Put a public version of the owner's onto the shelf."""
    registry, staging = storage.bucket(settings.bucket("registry")), storage.bucket(settings.bucket("staging"))

    def shelf(source: bytes = b"the upload", filename: str = "digits.zip", format_: str = "package") -> Shelf:
        upload = uuid4()
        keys = [f"{upload}/model/{filename}", f"{upload}/config/digits.yaml"]
        for key, content in zip(keys, (source, CONFIG), strict=True):
            staging.put(key, content)
        made = [
            artifact(registry, name, role, f"{name} {owner}".encode())
            for name, role in (("onnx-fp32", "canonical"), ("golden.npz", "sample"), ("manifest.json", "manifest"))
        ]
        config = {
            "name": "digits.yaml",
            "key": keys[1],
            "sha256": hashlib.sha256(CONFIG).hexdigest(),
            "size": len(CONFIG),
        }
        intake = store.Intake(
            owner_id=owner,
            model="digits",
            version=None,
            bump="minor",
            format=format_,
            servable=True,
            filename=filename,
            size=len(source),
            sha256=hashlib.sha256(source).hexdigest(),
            staging_key=keys[0],
            declared={"classes": ["zero", "one"], "description": "Handwritten digits"},
            side_files={"config": config},
        )
        with begin() as session:
            row = store.add_version(session, intake)
            store.publish(session, row.id, made)
            reviews.judge(session, row.id, "clean")
            session.execute(text("UPDATE models SET visibility = 'public' WHERE id = :id"), {"id": row.model_id})
        path = f"/api/v1/models/{row.model_id}"
        return Shelf(
            model=path,
            path=f"{path}/versions/{row.version}",
            version_id=row.id,
            source=source,
            made={one.name: one for one in made},
        )

    return shelf
