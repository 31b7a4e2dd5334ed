"""Tables of how a model gets in: runs, steps, events, outbox, logs; who works, and what need not be made twice.

Only the pipeline's stores look at them.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from pipeline.run import Purpose, Status, StepStatus
from shared.db import metadata

Moment = DateTime(timezone=True)


def _one_of(column: str, values: type[Purpose | Status | StepStatus]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(v.value) for v in values)})", name=column)


runs = Table(
    "runs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("owner_id", ForeignKey("users.id"), nullable=False),
    Column("purpose", Text, nullable=False, server_default="intake"),
    Column("request", JSONB, nullable=False, server_default="{}", comment="what was asked for, frozen at submit"),
    Column("status", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("code", Text),
    Column("detail", Text),
    Column("worker", Text, comment="who holds the lease"),
    Column("lease_until", Moment),
    Column("rung_at", Moment, comment="when the queue was last told of the waiting attempt"),
    Column("rings", Integer, nullable=False, server_default="0"),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
    Column("updated_at", Moment, nullable=False, server_default=func.now()),
    Column("finished_at", Moment),
    Column("cleaned_at", Moment, comment="when what it had in staging was removed"),
    _one_of("status", Status),
    _one_of("purpose", Purpose),
    CheckConstraint("(status = 'running') = (lease_until IS NOT NULL)", name="only_running_is_leased"),
    CheckConstraint("(status IN ('queued', 'running')) = (finished_at IS NULL)", name="terminal_is_finished"),
    Index("ix_runs_owner_id_created_at", "owner_id", "created_at", "id"),
    Index("ix_runs_lease_until", "lease_until", postgresql_where=text("status = 'running'")),
    Index("ix_runs_rung_at", "rung_at", postgresql_where=text("status = 'queued'")),
)

steps = Table(
    "steps",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("stage", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("time_limit", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("final_attempt", Integer, nullable=False),
    Column("optional", Boolean, nullable=False, server_default="false"),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("code", Text),
    Column("detail", Text),
    Column("report", JSONB),
    _one_of("status", StepStatus),
)

events = Table(
    "events",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True, comment="the run's version: no gaps, and two writers collide here"),
    Column("kind", Text, nullable=False),
    Column("data", JSONB, nullable=False),
    Column("at", Moment, nullable=False, server_default=func.clock_timestamp()),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("topic", Text, nullable=False),
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("body", JSONB, nullable=False),
    Column("due_at", Moment, nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("topic IN ('ring', 'cleanup')", name="topic"),
    Index("ix_outbox_topic_due_at", "topic", "due_at"),
)

logs = Table(
    "logs",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("stage", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("text", Text, nullable=False),
    Index("ix_logs_run_id_stage_id", "run_id", "stage", "id"),
)

workers = Table(
    "workers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("queues", ARRAY(Text), nullable=False),
    Column("devices", JSONB, nullable=False, server_default="[]"),
    Column("started_at", Moment, nullable=False, server_default=func.clock_timestamp()),
    Column("seen_at", Moment, nullable=False, server_default=func.clock_timestamp()),
)

results = Table(
    "results",
    metadata,
    Column("owner_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True, comment="hex SHA-256 of all that the result depends on"),
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("stage", Text, nullable=False),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
)
