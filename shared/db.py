"""The database connection: one engine per process, one transaction per piece of work. Knows no table."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg
from sqlalchemy import Engine, MetaData, NullPool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
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

TRUSTED = 1.0
"""Seconds for which a connection that was used is taken to be alive, unless the server has said something meanwhile."""


def connect(url: str, *, pool_size: int = 5, autocommit: bool = False) -> Engine:
    """An engine on psycopg 3. Connections are checked before use, so a restarted server costs nobody an error.

    To check one takes a question to the server only where it has rested, or where the server has said something unasked,
    as it does when it goes: a question each time would be a fifth of what reading costs.
    A server that has vanished from the network is noticed within about 15 s instead of the kernel's quarter of an hour.
    With `pool_size=0` every transaction has a connection of its own: rare ones, and those of a process that forks.
    With `autocommit` each statement is a transaction of its own: for `readings`.
    """
    pool: dict[str, Any] = {"poolclass": NullPool}
    if pool_size:
        pool = {"pool_size": pool_size, "max_overflow": pool_size, "pool_timeout": 10, "pool_use_lifo": True}
    engine = create_engine(
        url,
        **pool,
        isolation_level="AUTOCOMMIT" if autocommit else None,
        skip_autocommit_rollback=autocommit,
        connect_args={
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
        },
    )
    if pool_size:
        _check_before_use(engine)
    return engine


def transactions(engine: Engine) -> Begin:
    return sessionmaker(engine, autoflush=False, expire_on_commit=False).begin


def readings(engine: Engine) -> Begin:
    """Sessions for those who only read, on an engine with `autocommit`: two roundtrips less.

    There are no savepoints, and locks end with the statement that took them.
    """
    return sessionmaker(engine, autoflush=False, expire_on_commit=False)


def _check_before_use(engine: Engine) -> None:
    def used(_: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    def check(connection: DBAPIConnection, record: Any, _: Any) -> None:
        now = time.monotonic()
        try:
            unasked = select.poll()
            unasked.register(connection.fileno(), select.POLLIN)
            if now - record.info.get("used_at", now) > TRUSTED or unasked.poll(0):
                engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise InvalidatePoolError from error

    event.listen(engine, "checkin", used)
    event.listen(engine, "checkout", check)
