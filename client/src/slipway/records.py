"""What the server tells, as frozen values. Unknown fields are ignored: a newer server does not break an older client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from slipway.errors import RunCancelled, RunFailed, RunRejected

Json = Mapping[str, Any]

FINISHED = frozenset({"succeeded", "rejected", "failed", "cancelled"})


def moment(value: Any) -> datetime | None:
    """Read an ISO 8601 time, or nothing."""
    return datetime.fromisoformat(value) if isinstance(value, str) and value else None


def name_in(value: Any, key: str) -> str:
    """Take a name that some answers give as text and others as an object."""
    return str(value.get(key, "")) if isinstance(value, Mapping) else str(value or "")


def number_in(value: Any) -> int | None:
    return int(value) if value is not None else None


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One stored file of a version: `role` is `source`, `canonical`, `variant`, `manifest`, …"""

    name: str
    role: str = ""
    sha256: str = ""
    size: int = 0
    media_type: str = "application/octet-stream"
    meta: Json = field(default_factory=dict)

    @classmethod
    def read(cls, data: Json) -> Artifact:
        """Read it from an answer."""
        return cls(
            name=str(data["name"]),
            role=str(data.get("role") or ""),
            sha256=bare_digest(data.get("sha256")),
            size=int(data.get("size") or 0),
            media_type=str(data.get("media_type") or "application/octet-stream"),
            meta=data.get("meta") or {},
        )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage in a run's plan: `status` is `pending queued running passed refused broke skipped`."""

    stage: str
    status: str = "pending"
    queue: str = ""
    attempt: int = 0
    max_attempts: int = 1
    started_at: datetime | None = None
    finished_at: datetime | None = None
    code: str | None = None
    detail: str | None = None
    report: Json | None = None

    @classmethod
    def read(cls, data: Json) -> Step:
        """Read it from an answer."""
        return cls(
            stage=str(data["stage"]),
            status=str(data.get("status") or "pending"),
            queue=str(data.get("queue") or ""),
            attempt=int(data.get("attempt") or 0),
            max_attempts=int(data.get("max_attempts") or 1),
            started_at=moment(data.get("started_at")),
            finished_at=moment(data.get("finished_at")),
            code=data.get("code"),
            detail=data.get("detail"),
            report=data.get("report"),
        )

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took, once it is over."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(0.0, (self.finished_at - self.started_at).total_seconds())


@dataclass(frozen=True, kw_only=True)
class Run:
    """One plan carried out for one version. `raw` is the server's answer, whole.

    `purpose` is `intake rescan variant rebuild`; `waiting` says for which worker a queued run waits where none is online.
    """

    id: str
    status: str
    stage: str | None = None
    model: str = ""
    version: str = ""
    code: str | None = None
    detail: str | None = None
    purpose: str = "intake"
    waiting: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    finished_at: datetime | None = None
    steps: tuple[Step, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Run:
        """Read it from an answer."""
        return cls(
            id=str(data["id"]),
            status=str(data.get("status") or "queued"),
            stage=data.get("stage"),
            model=name_in(data.get("model"), "name"),
            version=name_in(data.get("version"), "version"),
            code=data.get("code"),
            detail=data.get("detail"),
            purpose=str(data.get("purpose") or "intake"),
            waiting=data.get("waiting"),
            created_at=moment(data.get("created_at")),
            updated_at=moment(data.get("updated_at")),
            finished_at=moment(data.get("finished_at")),
            steps=tuple(Step.read(step) for step in data.get("steps") or ()),
            artifacts=tuple(Artifact.read(item) for item in data.get("artifacts") or ()),
            raw=data,
        )

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.status in FINISHED

    def step(self, stage: str) -> Step | None:
        """Return the step of that stage, where the plan has one."""
        return next((step for step in self.steps if step.stage == stage), None)

    def facts(self, stage: str) -> Json:
        """Return what that stage reported, or nothing."""
        step = self.step(stage)
        return (step.report or {}) if step else {}

    def check(self) -> Run:
        """Return the run itself, or raise RunRejected, RunFailed or RunCancelled where it ended so."""
        match self.status:
            case "rejected":
                raise RunRejected(self, hint=f"Read why: slipway logs {self.id} {self.stage or ''}".rstrip())
            case "failed":
                raise RunFailed(self, hint=f"Try again: slipway retry {self.id}")
            case "cancelled":
                raise RunCancelled(self, hint=f"Take it up again: slipway retry {self.id}")
            case _:
                return self


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened to a run; `seq` counts without gaps, `terminal` marks the last."""

    run: str
    seq: int
    kind: str
    status: str = ""
    stage: str | None = None
    attempt: int | None = None
    code: str | None = None
    detail: str | None = None
    at: datetime | None = None
    terminal: bool = False
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Event:
        """Read it from an answer."""
        return cls(
            run=str(data.get("run") or ""),
            seq=int(data["seq"]),
            kind=str(data.get("kind") or ""),
            status=str(data.get("status") or ""),
            stage=data.get("stage"),
            attempt=number_in(data.get("attempt")),
            code=data.get("code"),
            detail=data.get("detail"),
            at=moment(data.get("at")),
            terminal=bool(data.get("terminal")),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class Download:
    """A short-lived address of one artifact's bytes, with the digest they must have."""

    url: str
    name: str
    filename: str
    sha256: str
    size: int
    expires_in: int = 0
    media_type: str = "application/octet-stream"

    @classmethod
    def read(cls, data: Json) -> Download:
        """Read it from an answer."""
        return cls(
            url=str(data["url"]),
            name=str(data.get("name") or ""),
            filename=str(data.get("filename") or data.get("name") or ""),
            sha256=bare_digest(data["sha256"]),
            size=int(data["size"]),
            expires_in=int(data.get("expires_in") or 0),
            media_type=str(data.get("media_type") or "application/octet-stream"),
        )


@dataclass(frozen=True, kw_only=True)
class Key:
    """An API key; `key`, the secret itself, is there only in the answer that made it; `calls_remaining` None: no budget."""

    id: str
    name: str
    prefix: str = ""
    scopes: tuple[str, ...] = ()
    calls_remaining: int | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    key: str | None = field(default=None, repr=False)
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Key:
        """Read it from an answer."""
        return cls(
            id=str(data["id"]),
            name=str(data.get("name") or ""),
            prefix=str(data.get("prefix") or ""),
            scopes=tuple(str(scope) for scope in data.get("scopes") or ()),
            calls_remaining=data.get("calls_remaining"),
            created_at=moment(data.get("created_at")),
            expires_at=moment(data.get("expires_at")),
            key=data.get("key"),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who the server takes you for; `via` is `jwt` or `key`."""

    id: str
    username: str
    permissions: tuple[str, ...] = ()
    via: str = ""
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Account:
        """Read it from an answer."""
        return cls(
            id=str(data.get("id") or ""),
            username=str(data.get("username") or ""),
            permissions=tuple(str(item) for item in data.get("permissions") or ()),
            via=str(data.get("via") or ""),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class Health:
    """Whether the server takes work, and what its parts say: component name → `ok` and a text.

    `seconds` is how long the answer took, `skew` by how many seconds the server's clock is ahead of ours.
    """

    ready: bool
    components: Mapping[str, tuple[bool, str]]
    seconds: float = 0.0
    skew: float | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json, *, ready: bool) -> Health:
        """Read it from an answer; a component may be text, a truth value or an object with `status` or `ok`."""
        places = (data.get(key) for key in ("components", "checks", "details"))
        found: Json = next((place for place in places if isinstance(place, Mapping)), {})
        components = {str(name): _component(value) for name, value in found.items()}
        return cls(ready=ready, components=components, raw=data)


def _component(value: Any) -> tuple[bool, str]:
    fine = {"ok", "up", "ready", "healthy", "pass", "true"}
    if isinstance(value, Mapping):
        said = value.get("status", value.get("ok", value.get("healthy")))
        detail = value.get("detail") or value.get("message") or value.get("error") or ""
        return str(said).lower() in fine, str(detail or said)
    return str(value).lower() in fine, str(value)


def bare_digest(value: Any) -> str:
    """Return the hex digits of a digest written with or without `sha256:`."""
    return str(value or "").removeprefix("sha256:").lower()
