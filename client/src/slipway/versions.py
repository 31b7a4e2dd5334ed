"""Versions: what was let in, what may be said anew of it, and how several compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from slipway import refs
from slipway.errors import InvalidRequest
from slipway.metrics import Metric
from slipway.records import Artifact, Json, bare_digest, moment, name_in, number_in
from slipway.transport import Wire


@dataclass(frozen=True, kw_only=True)
class Version:
    """One immutable intake; `verdict` is `pending clean malicious unknown`, `published_at` is set by promotion.

    `metrics` are the latest of each name and data set. `best_variant` is what a CPU is served with; `pinned` maps devices to variants that somebody wants there.
    """

    id: str
    version: str
    model: str = ""
    ordinal: int | None = None
    format: str = ""
    framework: str | None = None
    servable: bool | None = None
    verdict: str = "pending"
    status: str = ""
    owner: str = ""
    uploaded_by: str = ""
    aliases: tuple[str, ...] = ()
    is_default: bool = False
    release_notes: str = ""
    revision: int | None = None
    metrics: tuple[Metric, ...] = ()
    published_at: datetime | None = None
    created_at: datetime | None = None
    sha256: str = ""
    size: int = 0
    filename: str = ""
    run: str | None = None
    best_variant: str | None = None
    pinned: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Version:
        """Read it from an answer."""
        return cls(
            id=str(data.get("id") or ""),
            version=str(data["version"]),
            model=name_in(data.get("model"), "name"),
            ordinal=number_in(data.get("ordinal")),
            format=str(data.get("format") or ""),
            framework=data.get("framework"),
            servable=data.get("servable"),
            verdict=str(data.get("verdict") or "pending"),
            status=str(data.get("status") or ""),
            owner=str(data.get("owner") or ""),
            uploaded_by=str(data.get("uploaded_by") or ""),
            aliases=tuple(str(alias) for alias in data.get("aliases") or ()),
            is_default=bool(data.get("is_default")),
            release_notes=str(data.get("release_notes") or ""),
            revision=number_in(data.get("revision")),
            metrics=tuple(Metric.read(item) for item in data.get("metrics") or ()),
            published_at=moment(data.get("published_at")),
            created_at=moment(data.get("created_at")),
            sha256=bare_digest(data.get("sha256")),
            size=int(data.get("size") or 0),
            filename=str(data.get("filename") or ""),
            run=name_in(data.get("run"), "id") or None,
            best_variant=data.get("best_variant"),
            pinned=data.get("pinned") or {},
            artifacts=tuple(Artifact.read(item) for item in data.get("artifacts") or ()),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two to four versions side by side.

    `versions` are the facts of each, `metrics` hold `values` in their order, `contracts` what a caller of the first would
    notice in each other one, `differs` the facts in which they are not all alike: all as the server tells them.
    """

    versions: tuple[Json, ...]
    metrics: tuple[Json, ...] = ()
    contracts: tuple[Json, ...] = ()
    differs: tuple[str, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Comparison:
        """Read it from an answer."""
        return cls(
            versions=tuple(data["versions"]),
            metrics=tuple(data.get("metrics") or ()),
            contracts=tuple(data.get("contracts") or ()),
            differs=tuple(str(fact) for fact in data.get("differs") or ()),
            raw=data,
        )

    @property
    def honest(self) -> bool:
        """Whether every number says as much as what changed, as far as that is known."""
        return all(step.get("fits") is not False for step in self.contracts)


class Versions:
    """The versions of models. `client.versions(NAME)` lists them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __call__(self, name: str, *, status: str | None = None, is_default: bool | None = None) -> list[Version]:
        """Return a model's versions, newest first."""
        wanted = {"status": status, "is_default": None if is_default is None else str(is_default).lower()}
        return [Version.read(item) for item in self._wire.pages(f"{refs.model_path(name)}/versions", wanted)]

    def get(self, ref: str) -> Version:
        """Return the version that `NAME[@REF]` means."""
        return Version.read(self._wire.json("GET", refs.version_path(*refs.parse(ref))))

    def set_status(self, ref: str, status: str, *, reason: str = "", revision: int | None = None) -> Version:
        """Move a version to `training testing approved deprecated archived`, where that is a legal move.

        With `revision` (`Version.revision`) only if nobody has changed it since.
        """
        body = {"status": status, "reason": reason}
        path = refs.version_path(*refs.parse(ref)) + "/status"
        return Version.read(self._wire.json("PUT", path, json=body, headers=if_match(revision)))

    def note(self, ref: str, release_notes: str, *, revision: int | None = None) -> Version:
        """Say anew what a version brings; with `revision` only if nobody has changed it since."""
        path = refs.version_path(*refs.parse(ref))
        body = {"release_notes": release_notes}
        return Version.read(self._wire.json("PATCH", path, json=body, headers=if_match(revision)))

    def compare(self, *references: str) -> Comparison:
        """Hold two to four versions against each other, each as `NAME[@REF]`, also of several models."""
        if not 2 <= len(references) <= 4:
            raise InvalidRequest("bad_comparison", "A comparison is of two to four versions.")
        meant = [refs.parse(reference) for reference in references]
        wanted = {"versions": [f"{name}@{version}" for name, version in meant]}
        return Comparison.read(self._wire.json("GET", f"{refs.model_path(meant[0][0])}/compare", params=wanted))


def if_match(revision: int | None) -> dict[str, str]:
    """Return the header that makes a change depend on what one has seen."""
    return {} if revision is None else {"If-Match": f'"{revision}"'}
