"""Back to an empty registry, for development: what was let in goes, and everybody but the admins. The audit trail stays."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import any_, delete, func, or_, select, text
from sqlalchemy.orm import Session

from registry.tables import models, roles, users, versions


@dataclass(frozen=True, kw_only=True)
class Gone:
    """How many there were."""

    models: int
    versions: int
    users: int


def reset(session: Session) -> Gone:
    """Empty the tables; with models and versions goes whatever refers to them, the pipeline's runs too."""
    counted = [session.execute(select(func.count()).select_from(table)).scalar_one() for table in (models, versions)]
    session.execute(text("TRUNCATE models, condemned, name_checks, log_records CASCADE"))
    through = (
        select(roles.c.name).where(roles.c.name == any_(users.c.roles), any_(roles.c.permissions) == "admin").exists()
    )
    admins = select(users.c.id).where(users.c.is_active, or_(any_(users.c.permissions) == "admin", through))
    others = session.execute(delete(users).where(users.c.id.not_in(admins)).returning(users.c.id)).all()
    return Gone(models=counted[0], versions=counted[1], users=len(others))
