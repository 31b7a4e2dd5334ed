"""The database connection: one engine per process, one transaction per piece of work. Knows no table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Engine, MetaData, NullPool, create_engine
from sqlalchemy.orm import Session, sessionmaker

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Begin = Callable[[], AbstractContextManager[Session]]
"""Opens a transaction that commits when its block ends well and rolls back when it does not."""


def connect(url: str, *, pool_size: int = 5) -> Engine:
    """An engine on psycopg 3. Connections are checked before use, so a restarted server costs nobody an error.

    A server that has vanished from the network is noticed within about 15 s instead of the kernel's quarter of an hour.
    With `pool_size=0` every transaction has a connection of its own: rare ones, and those of a process that forks.
    """
    pool: dict[str, Any] = {"poolclass": NullPool}
    if pool_size:
        pool = {"pool_size": pool_size, "max_overflow": pool_size, "pool_pre_ping": True, "pool_timeout": 10}
    return create_engine(
        url,
        **pool,
        connect_args={
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
        },
    )


def transactions(engine: Engine) -> Begin:
    return sessionmaker(engine, autoflush=False, expire_on_commit=False).begin
