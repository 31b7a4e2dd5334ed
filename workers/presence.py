"""Tells the database, from a worker's main process, that the worker is there; the children are too busy to."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import structlog
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from pipeline import online
from shared.db import transactions

log = structlog.get_logger()


class Presence:
    """Report every few seconds inside a `with` block, from a thread.

    A connection is opened for each report and closed at once, so that children which are forked meanwhile inherit none.
    """

    def __init__(
        self, url: str, *, pool: str, queues: Sequence[str], devices: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.name = f"{pool}@{socket.gethostname()}:{os.getpid()}"
        self._begin = transactions(create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5}))
        self._report = partial(online.report, name=self.name, pool=pool, queues=queues, devices=devices)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._report_until_done, name="presence", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(timeout=online.ONLINE)
        try:
            with self._begin() as session:
                online.leave(session, self.name)
        except SQLAlchemyError as failure:
            log.warning("presence.unreachable", error=str(failure))

    def _report_until_done(self) -> None:
        while True:
            try:
                with self._begin() as session:
                    self._report(session)
            except SQLAlchemyError as error:
                log.warning("presence.unreachable", error=str(error))
            if self._done.wait(online.BEAT):
                return
