"""Components of a version: its weights, configuration, code and data sets, each file checked against its digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway import download, refs
from slipway.errors import NotFound
from slipway.records import Download
from slipway.transport import Wire
from slipway.upload import Listener, ignore

COMPONENTS = ("weights", "config", "code", "datasets", "full")


@dataclass(frozen=True, kw_only=True)
class Components:
    """What there is of some components: `files` by component, and why nothing of one is there (`missing`)."""

    files: tuple[tuple[str, Download], ...]
    missing: Mapping[str, str]
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Components:
        """Read it from an answer."""
        lifetime = {"expires_in": data.get("expires_in")}
        return cls(
            files=tuple((str(each["component"]), Download.read({**each, **lifetime})) for each in data["files"]),
            missing=dict(data.get("missing") or {}),
            raw=data,
        )


class Downloads:
    """Short-lived addresses of whole components."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def of(self, ref: str, components: Sequence[str]) -> Components:
        """Return addresses of every file of these components (`weights config code datasets full`)."""
        path = refs.version_path(*refs.parse(ref)) + "/download"
        return Components.read(self._wire.json("GET", path, params={"component": list(components)}))

    def pull(
        self, ref: str, components: Sequence[str], to: str | Path = ".", *, progress: Listener = ignore
    ) -> list[Path]:
        """Bring every file of these components into the folder `to` and return their paths. Raises NotFound for none."""
        offered = self.of(ref, components)
        if not offered.files:
            why = "; ".join(f"{name}: {reason}" for name, reason in offered.missing.items())
            raise NotFound("nothing_there", f"There is nothing of it. {why}")
        return self.fetch(offered, ref, to, progress=progress)

    def fetch(self, offered: Components, ref: str, to: str | Path, *, progress: Listener = ignore) -> list[Path]:
        """Bring what `of` has offered for `ref` into a folder; the paths, in its order."""
        fixed = f"{refs.parse(ref)[0]}@{offered.raw['version']}"  # "latest" may move meanwhile
        return [self._brought(fixed, file, to, progress) for _, file in offered.files]

    def _brought(self, ref: str, file: Download, to: str | Path, progress: Listener) -> Path:
        target = download.target_for(file, f"{to}/")

        def link() -> Download:
            again = self.of(ref, ["full"])
            return next(one for _, one in again.files if one.name == file.name)

        download.fetch(self._wire, link, target, file, progress)
        return target
