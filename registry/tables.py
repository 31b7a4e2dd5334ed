"""Tables of what has been let in, and of who may do and did what. Only the registry's own modules and the stores see them."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

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
    Column("permissions", ARRAY(Text), nullable=False, server_default="{}"),
    Column("is_active", Boolean, nullable=False, server_default="true"),
    _created(),
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
    _created(),
    Column("updated_at", Moment, nullable=False, server_default=func.now()),
    UniqueConstraint("owner_id", "name"),
    CheckConstraint("visibility IN ('private', 'public')", name="visibility"),
    Index("ix_models_created_at_id", "created_at", "id"),
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
