"""Tables of what has been let in, and of who may do and did what. Only the registry's own modules and the stores see them."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR

from shared.db import metadata

Moment = DateTime(timezone=True)


def _id() -> Column[object]:
    return Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()"))


def _created() -> Column[object]:
    return Column("created_at", Moment, nullable=False, server_default=func.now())


users = Table(
    "users",
    metadata,
    _id(),
    Column("username", Text, nullable=False, unique=True),
    Column("password_hash", Text),
    Column("email", Text, unique=True),
    Column("permissions", ARRAY(Text), nullable=False, server_default="{}"),
    Column("roles", ARRAY(Text), nullable=False, server_default="{}", comment="names of roles; what they may adds up"),
    Column("plan", Text, nullable=False, server_default="free", comment="whose limits and quotas count"),
    Column("max_models", Integer, comment="null: as the plan says"),
    Column("max_bytes", BigInteger, comment="null: as the plan says"),
    Column("is_active", Boolean, nullable=False, server_default="true"),
    Column("tokens_valid_after", Moment, comment="bearer tokens issued before count no longer"),
    Column("deleted_at", Moment),
    _created(),
)

roles = Table(
    "roles",
    metadata,
    Column("name", Text, primary_key=True),
    Column("permissions", ARRAY(Text), nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    _created(),
)

revoked_tokens = Table(
    "revoked_tokens",
    metadata,
    Column("jti", Text, primary_key=True),
    Column("expires_at", Moment, nullable=False, index=True, comment="when the row may go"),
)

api_keys = Table(
    "api_keys",
    metadata,
    _id(),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False, comment="first characters, to recognise a key by"),
    Column("digest", Text, nullable=False, unique=True, comment="hex SHA-256 of the key; the key itself is never kept"),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("calls_remaining", BigInteger, comment="null: as many as one likes"),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment),
    _created(),
)

models = Table(
    "models",
    metadata,
    _id(),
    Column("owner_id", ForeignKey("users.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("model_type", Text),
    Column("framework", Text),
    Column("licence", Text),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("visibility", Text, nullable=False, server_default="private"),
    Column("card", Text, comment="Markdown"),
    Column("is_active", Boolean, nullable=False, server_default="true"),
    Column("protected_aliases", ARRAY(Text), nullable=False, server_default="{production}"),
    Column("folded", Text, comment="the name as eyes read it: names that fold alike are taken for one another"),
    Column("revision", Integer, nullable=False, server_default="1", comment="its ETag"),
    Column("deleted_at", Moment),
    Column(
        "words",
        TSVECTOR,
        Computed(
            "setweight(to_tsvector('simple', translate(name, '._+-', '    ')), 'A')"
            " || setweight(to_tsvector('simple', description), 'B')"
            " || setweight(to_tsvector('simple', coalesce(card, '')), 'C')",
            persisted=True,
        ),
    ),
    _created(),
    Column("updated_at", Moment, nullable=False, server_default=func.now()),
    UniqueConstraint("owner_id", "name"),
    CheckConstraint("visibility IN ('private', 'public')", name="visibility"),
    Index("ix_models_created_at_id", "created_at", "id"),
    Index("ix_models_words", "words", postgresql_using="gin"),
    Index("ix_models_tags", "tags", postgresql_using="gin"),
    Index("ix_models_folded", "folded"),
    Index("ix_models_deleted_at", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
)

grants = Table(
    "grants",
    metadata,
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("permission", Text, primary_key=True),
    Column("granted_by", ForeignKey("users.id"), nullable=False),
    Column("expires_at", Moment),
    _created(),
)

name_checks = Table(
    "name_checks",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("asked_by", ForeignKey("users.id", ondelete="SET NULL")),
    Column("name", Text, nullable=False),
    Column("folded", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("confirmed", Boolean, nullable=False, server_default="false"),
    Column("similar", JSONB, nullable=False, comment="the names it was found to be like, and why"),
    Column("at", Moment, nullable=False, server_default=func.now()),
    CheckConstraint("outcome IN ('fine', 'warn', 'block')", name="outcome"),
)

ratings = Table(
    "ratings",
    metadata,
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("score", SmallInteger, nullable=False),
    Column("review", Text, nullable=False, server_default=""),
    Column("version_id", ForeignKey("versions.id", ondelete="SET NULL"), comment="the one that was rated"),
    _created(),
    Column("updated_at", Moment, nullable=False, server_default=func.now()),
    CheckConstraint("score BETWEEN 1 AND 5", name="score"),
)

versions = Table(
    "versions",
    metadata,
    _id(),
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("version", Text, nullable=False, comment="SemVer 2.0, normalised"),
    Column("format", Text, nullable=False),
    Column("servable", Boolean, nullable=False),
    Column("filename", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("declared", JSONB, nullable=False, server_default="{}"),
    Column("side_files", JSONB, nullable=False, server_default="{}", comment="role -> {name, key, sha256, size}"),
    Column("staging_key", Text, nullable=False),
    Column("original_key", Text, comment="where the uploaded bytes rest in quarantine storage"),
    Column("verdict", Text, nullable=False, server_default="pending"),
    Column("ruleset", Text, comment="the rules that the verdict was reached by"),
    Column("waived_until", Moment, comment="when the first waiver ends that the verdict leans on"),
    Column("status", Text, nullable=False, server_default="testing"),
    Column("uploaded_by", ForeignKey("users.id"), nullable=False),
    Column("published_at", Moment),
    Column("pins", JSONB, nullable=False, server_default="{}", comment="device -> the variant to prefer there"),
    Column("release_notes", Text, nullable=False, server_default=""),
    Column("revision", Integer, nullable=False, server_default="1", comment="its ETag"),
    Column("deleted_at", Moment),
    Column("deleted_by", ForeignKey("users.id", ondelete="SET NULL")),
    _created(),
    UniqueConstraint("model_id", "version"),
    UniqueConstraint("model_id", "ordinal"),
    CheckConstraint("verdict IN ('pending', 'clean', 'malicious', 'unknown')", name="verdict"),
    CheckConstraint("status IN ('training', 'testing', 'approved', 'deprecated', 'archived')", name="status"),
    Index("ix_versions_sha256", "sha256"),
    Index("ix_versions_quarantine", "created_at", "id", postgresql_where=text("verdict IN ('unknown', 'malicious')")),
)

artifacts = Table(
    "artifacts",
    metadata,
    _id(),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("key", Text, nullable=False, comment="in the registry bucket; names the digest, never written twice"),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("meta", JSONB, nullable=False, server_default="{}"),
    _created(),
    UniqueConstraint("version_id", "name"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Double, nullable=False),
    Column("dataset", Text),
    Column("at", Moment, nullable=False, server_default=func.now(), comment="when it was measured"),
    Column("recorded_by", ForeignKey("users.id", ondelete="SET NULL"), comment="null: Slipway itself"),
    _created(),
    Index("ix_metrics_version_id_name_at", "version_id", "name", "at"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("moved_at", Moment, nullable=False, server_default=func.now()),
)
"""Where each alias points now. `default` is the default version; `latest` is never here, it is computed."""

alias_moves = Table(
    "alias_moves",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), comment="null: taken away"),
    Column("previous_id", ForeignKey("versions.id", ondelete="CASCADE"), comment="null: it was new"),
    Column("reason", Text, nullable=False, server_default=""),
    Column("moved_by", ForeignKey("users.id"), comment="null: Slipway itself"),
    Column("at", Moment, nullable=False, server_default=func.clock_timestamp()),
    Index("ix_alias_moves_model_id_name_at", "model_id", "name", "at"),
)
"""Every move of every alias, never changed."""

gates = Table(
    "gates",
    metadata,
    _id(),
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), comment="null: of every model", index=True),
    Column("target", Text, nullable=False, comment="an alias or a deployment's target; `*`: all"),
    Column("rule", Text, nullable=False),
    Column("parameters", JSONB, nullable=False, server_default="{}"),
    Column("created_by", ForeignKey("users.id", ondelete="SET NULL")),
    _created(),
)

approvals = Table(
    "approvals",
    metadata,
    _id(),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("target", Text, nullable=False),
    Column("approved_by", ForeignKey("users.id"), nullable=False),
    Column("comment", Text, nullable=False, server_default=""),
    Column("revoked_at", Moment),
    _created(),
)

deployments = Table(
    "deployments",
    metadata,
    _id(),
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("version_id", ForeignKey("versions.id"), nullable=False, index=True),
    Column("target", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="live"),
    Column("config", JSONB, nullable=False, server_default="{}"),
    Column("evidence", JSONB, nullable=False, server_default="[]", comment="what each gate said at that time"),
    Column("deployed_by", ForeignKey("users.id"), nullable=False),
    Column("deployed_at", Moment, nullable=False, server_default=func.now()),
    Column("ended_by", ForeignKey("users.id")),
    Column("ended_at", Moment),
    Column("reason", Text, comment="why it ended"),
    Column("note", Text, nullable=False, server_default="", comment="why it was deployed"),
    Column("previous_id", ForeignKey("deployments.id", ondelete="SET NULL"), comment="what it took the place of"),
    CheckConstraint("status IN ('live', 'superseded', 'rolled_back', 'ended')", name="status"),
    CheckConstraint("(status = 'live') = (ended_at IS NULL)", name="only_live_has_no_end"),
    CheckConstraint("target IN ('development', 'staging', 'production')", name="target"),
    Index("ix_deployments_model_id_deployed_at", "model_id", "deployed_at"),
    Index("uq_deployments_live", "model_id", "target", unique=True, postgresql_where=text("status = 'live'")),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("auth_required", Boolean, nullable=False, server_default="true"),
    Column("requests_per_minute", Integer, comment="of each caller to this model; null: as their plan says"),
    Column("timeout_ms", Integer, comment="null: as the settings say"),
    Column("revision", Integer, nullable=False, server_default="1", comment="its ETag"),
    Column("updated_by", ForeignKey("users.id", ondelete="SET NULL")),
    Column("updated_at", Moment, nullable=False, server_default=func.now()),
    CheckConstraint("requests_per_minute >= 0", name="requests_per_minute"),
    CheckConstraint("timeout_ms > 0", name="timeout_ms"),
)
"""How a model is served, where that differs from how all are."""

rollouts = Table(
    "rollouts",
    metadata,
    _id(),
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("target", Text, nullable=False),
    Column(
        "control_id",
        ForeignKey("versions.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
        comment="what was live when it began",
    ),
    Column("candidate_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("weight", Double, nullable=False, comment="the candidate's share of the requests, or of the shadow copies"),
    Column("sticky", Text, nullable=False, server_default="none"),
    Column("rules", JSONB, nullable=False, comment="what decides it"),
    Column("status", Text, nullable=False, server_default="running"),
    Column("decision", JSONB, comment="the figures that it was decided by"),
    Column("note", Text, nullable=False, server_default="", comment="why it was begun"),
    Column("reason", Text, comment="why it ended"),
    Column("started_by", ForeignKey("users.id"), nullable=False),
    Column("started_at", Moment, nullable=False, server_default=func.clock_timestamp()),
    Column("ended_by", ForeignKey("users.id"), comment="null: Slipway itself"),
    Column("ended_at", Moment),
    CheckConstraint("target IN ('development', 'staging', 'production')", name="target"),
    CheckConstraint("kind IN ('canary', 'ab', 'shadow')", name="kind"),
    CheckConstraint("weight > 0 AND weight <= 1", name="weight"),
    CheckConstraint("sticky IN ('none', 'user', 'key')", name="sticky"),
    CheckConstraint("status IN ('running', 'promoted', 'rolled_back', 'stopped')", name="status"),
    CheckConstraint("(status = 'running') = (ended_at IS NULL)", name="only_running_has_no_end"),
    CheckConstraint("control_id <> candidate_id", name="two_versions"),
    Index("uq_rollouts_running", "model_id", "target", unique=True, postgresql_where=text("status = 'running'")),
)
"""A candidate beside what is live: who started it, what decides it, how it ended. Rows go with their versions only."""

tallies = Table(
    "tallies",
    metadata,
    Column("rollout_id", ForeignKey("rollouts.id", ondelete="CASCADE"), primary_key=True),
    Column("arm", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False, server_default="0"),
    Column("errors", BigInteger, nullable=False, server_default="0", comment="answers that were the service's fault"),
    Column("slow", BigInteger, nullable=False, server_default="0", comment="answers above the rule's latency"),
    Column("compared", BigInteger, nullable=False, server_default="0", comment="shadow copies with an answer of both"),
    Column("disagreed", BigInteger, nullable=False, server_default="0"),
    Column("right", BigInteger, nullable=False, server_default="0", comment="by feedback"),
    Column("wrong", BigInteger, nullable=False, server_default="0"),
    Column("seconds", Double, nullable=False, server_default="0", comment="sum of the latencies"),
    Column("latencies", ARRAY(BigInteger), nullable=False, server_default="{}", comment="counts by bucket"),
    Column("updated_at", Moment, nullable=False, server_default=func.now()),
    CheckConstraint("arm IN ('control', 'candidate')", name="arm"),
)
"""What came of each arm of a rollout, added up by all serving processes."""

feedback = Table(
    "feedback",
    metadata,
    Column("prediction_id", Text, primary_key=True, comment="each prediction is judged once"),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
    Column("rollout_id", ForeignKey("rollouts.id", ondelete="CASCADE"), index=True),
    Column("arm", Text),
    Column("right", Boolean, nullable=False),
    Column("label", Text, comment="what would have been right, where it was said"),
    Column("given_by", ForeignKey("users.id", ondelete="SET NULL")),
    Column("at", Moment, nullable=False, server_default=func.now()),
    Index("ix_feedback_version_id_at", "version_id", "at"),
)

signatures = Table(
    "signatures",
    metadata,
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    Column("sha256", Text, primary_key=True, comment="of the manifest that is signed"),
    Column("key_id", Text, primary_key=True),
    Column("algorithm", Text, nullable=False),
    Column("signature", Text, nullable=False, comment="base64"),
    Column("public_key", Text, nullable=False, comment="base64, raw"),
    _created(),
)

lineage = Table(
    "lineage",
    metadata,
    _id(),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("relation", Text, nullable=False),
    Column("parent_id", ForeignKey("versions.id", ondelete="CASCADE"), index=True),
    Column("reference", Text, comment="a parent that is not here: an address or a name"),
    Column("note", Text, nullable=False, server_default=""),
    Column("created_by", ForeignKey("users.id", ondelete="SET NULL")),
    _created(),
    CheckConstraint("relation IN ('fine-tuned-from', 'derived-from', 'dataset', 'code')", name="relation"),
    CheckConstraint("(parent_id IS NULL) <> (reference IS NULL)", name="one_parent"),
    CheckConstraint("parent_id <> version_id", name="not_its_own"),
    UniqueConstraint("version_id", "relation", "parent_id"),
    UniqueConstraint("version_id", "relation", "reference"),
)

usage = Table(
    "usage",
    metadata,
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("kind", Text, primary_key=True, comment="download, prediction"),
    Column("count", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("last_at", Moment, nullable=False, server_default=func.now()),
)

waivers = Table(
    "waivers",
    metadata,
    _id(),
    Column("sha256", Text, nullable=False, comment="of the one file that it is for"),
    Column("rule", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("version_id", ForeignKey("versions.id", ondelete="SET NULL"), comment="where it was asked for"),
    Column("granted_by", ForeignKey("users.id"), nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("revoked_at", Moment),
    _created(),
    Index("ix_waivers_sha256_rule", "sha256", "rule"),
)

condemned = Table(
    "condemned",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("condemned_by", ForeignKey("users.id"), nullable=False),
    _created(),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False, comment="1, 2, 3, … without gaps"),
    Column("at", Moment, nullable=False),
    Column("actor_id", Uuid, comment="null: Slipway itself"),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("previous", Text, nullable=False, comment="hash of the entry before"),
    Column("hash", Text, nullable=False, unique=True, comment="hex SHA-256 of previous and this entry"),
    Index("ix_audit_subject_id", "subject", "id"),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("entry_id", BigInteger, primary_key=True, comment="the entry that was last"),
    Column("hash", Text, nullable=False, comment="its hash"),
    Column("key_id", Text, nullable=False),
    Column("signature", Text, nullable=False, comment="base64"),
    Column("at", Moment, nullable=False, server_default=func.clock_timestamp()),
)

answers = Table(
    "answers",
    metadata,
    Column("name", Text, primary_key=True, comment="hex SHA-256 of the user's id and the client's key"),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("fingerprint", Text, nullable=False, comment="hex SHA-256 of the request"),
    Column("status", SmallInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    _created(),
    Index("ix_answers_created_at", "created_at"),
)

log_records = Table(
    "log_records",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("at", Moment, nullable=False),
    Column("level", SmallInteger, nullable=False, comment="as in Python's logging: 10, 20, 30, 40, 50"),
    Column("process", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("trace_id", Text),
    Column("fields", JSONB, nullable=False, server_default="{}"),
    Index("ix_log_records_at_id", "at", "id"),
)
