"""What was done and what was logged, for admins: the audit trail and the server's kept log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from slipway.records import Json, moment
from slipway.transport import Wire, given


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of the audit trail: who did what to what."""

    id: int
    at: datetime | None
    actor: str
    action: str
    subject: str
    details: Json = field(default_factory=dict)
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Entry:
        """Read it from an answer."""
        return cls(
            id=int(data["id"]),
            at=moment(data.get("at")),
            actor=str(data.get("actor") or ""),
            action=str(data.get("action") or ""),
            subject=str(data.get("subject") or ""),
            details=data.get("details") or {},
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a look at the whole trail found. `faults` are objects with `what`, `first` and `last`."""

    intact: bool
    entries: int
    head: str
    signed: int | None = None
    faults: tuple[Json, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Check:
        """Read it from an answer."""
        return cls(
            intact=bool(data["intact"]),
            entries=int(data["entries"]),
            head=str(data["head"]),
            signed=data.get("signed"),
            faults=tuple(data.get("faults") or ()),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class LogRecord:
    """One line of the kept log; `endpoint`, `status_code` and `error` where it is about a request."""

    timestamp: datetime | None
    level: str
    process: str
    event: str
    trace_id: str | None = None
    endpoint: str | None = None
    status_code: int | None = None
    error: str | None = None
    fields: Json = field(default_factory=dict)
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> LogRecord:
        """Read it from an answer."""
        return cls(
            timestamp=moment(data.get("timestamp")),
            level=str(data.get("level") or ""),
            process=str(data.get("process") or ""),
            event=str(data.get("event") or ""),
            trace_id=data.get("trace_id"),
            endpoint=data.get("endpoint"),
            status_code=data.get("status_code"),
            error=data.get("error"),
            fields=data.get("fields") or {},
            raw=data,
        )


class Audit:
    """The audit trail."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        subject: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = 20,
    ) -> Sequence[Entry]:
        """Return entries, newest first; `limit=None` for all of them."""
        wanted = {"actor": actor, "action": action, "subject": subject, "since": _iso(since), "until": _iso(until)}
        return [Entry.read(item) for item in self._wire.pages("/api/v1/audit", wanted, limit, by="before")]

    def check(self) -> Check:
        """Have the server read the whole trail and name every entry that was changed or removed."""
        return Check.read(self._wire.json("GET", "/api/v1/audit/check"))


class ServerLogs:
    """What the server's processes thought worth keeping, and every request that was refused or failed."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(
        self,
        *,
        level: str | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        event: str | None = None,
        trace_id: str | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> Sequence[LogRecord]:
        """Return records, newest first; `level` is `WARNING`, `ERROR`, …, and means this one and worse."""
        wanted: dict[str, Any] = {
            "level": level and level.upper(),
            "start_time": _iso(start_time),
            "end_time": _iso(end_time),
            "event": event,
            "trace_id": trace_id,
            "offset": offset,
            "limit": limit,
        }
        said = self._wire.json("GET", "/api/v1/logs", params=given(wanted))
        return [LogRecord.read(item) for item in said.get("items") or ()]


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
