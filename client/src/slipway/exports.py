"""Exports: a version as a Triton model repository, here or in the server's storage, and as a KServe manifest."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from slipway import refs
from slipway.errors import DigestMismatch, SlipwayError
from slipway.records import Json, moment
from slipway.transport import Wire, given


@dataclass(frozen=True, kw_only=True)
class Export:
    """`address` is where the repository lies, for whoever may read that storage; `manifest` is YAML, of KServe exports."""

    variant: str
    version: str
    address: str
    commands: tuple[str, ...]
    files: tuple[Json, ...] = ()
    manifest: str | None = None
    expires_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Export:
        """Read it from an answer."""
        return cls(
            variant=str(data["variant"]),
            version=str(data["version"]),
            address=str(data["address"]),
            commands=tuple(str(one) for one in data["commands"]),
            files=tuple(data.get("files") or ()),
            manifest=data.get("manifest"),
            expires_at=moment(data.get("expires_at")),
            raw=data,
        )


class Exports:
    """Versions for other servers. `variant` is one by name, `device` `cpu` or a GPU's architecture such as `sm90`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def triton(self, ref: str, *, variant: str | None = None, device: str | None = None) -> Export:
        """Have a model repository put into the server's storage, where it stays for a while."""
        return self._made(ref, format="triton", variant=variant, device=device)

    def kserve(
        self, ref: str, *, storage_uri: str | None = None, variant: str | None = None, device: str | None = None
    ) -> Export:
        """Return an InferenceService for a repository that you have stored at `storage_uri`, else for one in our storage."""
        return self._made(ref, format="kserve", storage_uri=storage_uri, variant=variant, device=device)

    def repository(
        self, ref: str, to: str | Path, *, variant: str | None = None, device: str | None = None
    ) -> list[Path]:
        """Bring the model repository into the folder `to` and return its files; one that is there is replaced.

        Several models can share a folder. Raises DigestMismatch where what came is damaged; nothing is put in place then.
        """
        path = f"{_path(ref)}/triton"
        target = Path(to)
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".slipway-", dir=target) as work:
            archive = Path(work, "repository.zip")
            with archive.open("wb") as file:
                for chunk in self._wire.stream(path, params=given({"variant": variant, "device": device})):
                    file.write(chunk)
            return _unpacked(archive, Path(work, "files"), target)

    def _made(self, ref: str, **wish: Any) -> Export:
        return Export.read(self._wire.json("POST", _path(ref), json=given(wish)))


def _path(ref: str) -> str:
    return f"{refs.version_path(*refs.parse(ref))}/exports"


def _unpacked(archive: Path, work: Path, target: Path) -> list[Path]:
    try:
        with zipfile.ZipFile(archive) as packed:
            names = packed.namelist()
            if strange := [name for name in names if not _stays(name)]:
                raise SlipwayError(
                    "strange_archive", f"The archive holds {strange[0]!r}, which is not inside its folder."
                )
            packed.extractall(work)  # it compares every checksum
    except zipfile.BadZipFile as error:
        raise DigestMismatch("damaged_archive", f"What came is no whole archive: {error}", hint="Try again.") from error
    placed = []
    for name in names:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(work / name, place)
        placed.append(place)
    return placed


def _stays(name: str) -> bool:
    """Whether a member is a file below the folder that it is unpacked into: a server must not choose another."""
    parts = name.replace("\\", "/").split("/")
    return all(part not in {"", ".", ".."} and ":" not in part for part in parts)
