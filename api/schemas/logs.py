"""Lines of the kept log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.schemas.examples import WHEN, example

_RECORD = {
    "timestamp": WHEN,
    "level": "WARNING",
    "process": "api@api-1:7",
    "event": "http.request",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "endpoint": "GET /api/v1/models/{model}",
    "method": "GET",
    "status_code": 404,
    "error": "model_not_found",
    "fields": {
        "method": "GET",
        "path": "/api/v1/models/digits",
        "endpoint": "/api/v1/models/{model}",
        "status": 404,
        "code": "model_not_found",
    },
}


class LogRecord(BaseModel):
    timestamp: datetime
    level: str
    process: str = Field(description="which of ours, where, and its number there")
    event: str
    trace_id: str | None
    endpoint: str | None = Field(description="of a request: its method and its address as the reference writes it")
    method: str | None
    status_code: int | None
    error: str | None = Field(description="the error's code, or what went wrong")
    fields: dict[str, Any] = Field(description="everything that was logged")

    model_config = example(**_RECORD)


class Logs(BaseModel):
    items: list[LogRecord]
    total: int
    offset: int
    limit: int
    note: str

    model_config = example(
        items=[_RECORD],
        total=1,
        offset=0,
        limit=100,
        note="Kept from level WARNING on, for 14 days. The whole log is what the processes write to their streams.",
    )
