"""Carries the outbox to the queues, and brings back what dead processes left. `python -m workers.relay`

Four loops that share nothing: the drain answers doorbells at once, the sweep comes round every few seconds, housekeeping
moves bytes for as long as that takes, and rollouts are decided as soon as their figures allow it. Any number of relays may run; rows are locked with SKIP LOCKED, and what is rung twice
is claimed once.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from pipeline import engine, garbage, online, purging, store
from pipeline.promotability import Trust
from pipeline.stage import discover
from pipeline.staging import sweep_staging, sweep_transfers
from registry import answers, audit, people
from registry import logs as kept_logs
from registry import store as registry
from shared import observe
from shared.db import Begin, connect, transactions
from shared.errors import AdapterError, DependencyUnavailable
from shared.settings import Settings
from shared.signing import Signer
from shared.storage import Bucket, Storage
from workers.app import create, task_name
from workers.cleanup import retire
from workers.rescan import current_rules, queue
from workers.rollouts import settle

log = structlog.get_logger()

BATCH = 100
LOT = 100
"""Runs that one sweep brings back in one transaction."""
_AWAY = (SQLAlchemyError, psycopg.Error, OperationalError, redis.RedisError, AdapterError, OSError)
IDLE = 1.0
"""Seconds: how long the drain waits for a doorbell before it looks all the same."""
PAUSE = 1.0
"""Seconds to wait when the database or the broker is away."""
TIDY_EVERY = 60.0
"""Seconds between looks at the buckets for bytes that belong to nobody."""
CLEANING = 900.0
"""Seconds after which a cleanup that was begun and never finished is begun again."""
KNOWN = 3600.0
"""Seconds for which a silent worker is remembered at least."""
MEMORY = "slipway:memory"
"""A key in the broker. Gone means the broker has forgotten everything, queued messages too."""


def drain(begin: Begin, app: Celery) -> int:
    """Send due messages to their queues; they leave the outbox only when all were taken. How many there were."""
    with begin() as session:
        messages = store.take_messages(session, "ring", BATCH)
        for message in messages:
            _ring(app, message.run_id, message.body)
        store.delivered(session, messages)
    return len(messages)


def _ring(app: Celery, run_id: UUID, body: dict[str, Any]) -> None:
    app.send_task(
        task_name(body["stage"]),
        kwargs={"run_id": str(run_id), "attempt": body["attempt"]},
        queue=body["queue"],
        task_id=f"{run_id}.{body['stage']}.{body['attempt']}",
        argsrepr="",
        kwargsrepr=f"model={body['model']} run={run_id} stage={body['stage']} attempt={body['attempt']}",
    )


def clean(begin: Begin, staging: Bucket, quarantine: Bucket, linger: float) -> int:
    """Empty staging behind finished runs, one at a time. How many were done.

    The original goes to quarantine storage first, and its bytes stay for `linger` seconds more where addresses that were
    handed out before lead to. A run that cannot be done now is put off, so that it holds up no other.
    """
    done = 0
    while (message := _next_cleanup(begin)) is not None:
        try:
            kept_now = retire(begin, message.run_id, staging, quarantine)
        except DependencyUnavailable as error:
            log.warning("cleanup.put_off", run_id=str(message.run_id), error=error.message)
            with begin() as session:
                store.put_off(session, message, TIDY_EVERY)
            continue
        with begin() as session:
            if kept_now:
                store.put_off(session, message, linger)
            else:
                store.delivered(session, [message])
        done += not kept_now
    return done


def _next_cleanup(begin: Begin) -> store.Message | None:
    """A due cleanup, put off for the time that it may take: if we die over it, it comes round again."""
    while True:
        with begin() as session:
            messages = store.take_messages(session, "cleanup", 1)
            for message in messages:
                if store.load(session, message.run_id).status.terminal:
                    store.put_off(session, message, CLEANING)
                    return message
            store.delivered(session, messages)  # taken up again since; its bytes are needed
        if not messages:
            return None


class Relay:
    """All four loops, until told to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = connect(settings.sqlalchemy_url, pool_size=5)
        self._begin = transactions(self._database)
        self._redis = redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=5)
        self._signer = Signer(settings.signing_key.get_secret_value())
        trusted = (self._signer.public_key, *settings.trusted_keys)
        self._stages = discover(settings.stage_packages)
        self._app = create(settings.redis_url.get_secret_value(), self._stages)
        storage = Storage(**settings.storage)
        self._staging = storage.bucket(settings.bucket("staging"))
        self._quarantine = storage.bucket(settings.bucket("quarantine"))
        self._registry = storage.bucket(settings.bucket("registry"))
        self._exports = storage.bucket(settings.bucket("exports"))
        self._trust = Trust(shelf=self._registry, keys=trusted)
        self._tidied = 0.0
        self._looked = -float("inf")
        self._collected = -float("inf")
        self.stopping = threading.Event()

    def run(self) -> None:
        others = [
            threading.Thread(target=self._loop, args=(turn,), name=turn.__name__.strip("_"), daemon=True)
            for turn in (self._sweep, self._keep_house, self._settle)
        ]
        for thread in others:
            thread.start()
        self._loop(self._drain_until_broken)
        for thread in others:
            thread.join(timeout=10)

    def close(self) -> None:
        self._app.close()
        self._redis.close()
        self._database.dispose()

    def _loop(self, turn: Callable[[], None]) -> None:
        """Do `turn` for ever; a dependency that is away costs a pause, and so does a bug of ours: never the loop."""
        while not self.stopping.is_set():
            try:
                turn()
            except _AWAY as error:
                log.warning("relay.dependency_away", loop=turn.__name__.strip("_"), error=str(error))
                self.stopping.wait(PAUSE)
            except Exception:
                log.exception("relay.crashed", loop=turn.__name__.strip("_"))
                self.stopping.wait(PAUSE)

    def _drain_until_broken(self) -> None:
        """Listen, empty the outbox, wait for the next doorbell, the next due message, or a second."""
        url = self._settings.database_url.get_secret_value()
        with psycopg.connect(url, autocommit=True) as listener:
            listener.execute(f"LISTEN {store.DOORBELL}")
            while not self.stopping.is_set():
                while drain(self._begin, self._app) == BATCH:
                    pass
                with self._begin() as session:
                    due = store.seconds_to_next_message(session, "ring")
                wait = IDLE if due is None else min(IDLE, due)
                for _ in listener.notifies(timeout=wait, stop_after=1):
                    pass

    def _sweep(self) -> None:
        forgot = self._broker_forgot()
        found = LOT
        while found >= LOT:
            with self._begin() as session:
                found = engine.sweep(session, ring_again=self._settings.ring_again, broker_forgot=forgot, limit=LOT)
        if forgot:
            log.warning("relay.broker_forgot")
            self._redis.set(MEMORY, "1")
        with self._begin() as session:
            engine.expire(session, retention=self._settings.run_retention)
            skipped = engine.give_up(session, wait=self._settings.gpu_wait)
            online.forget(session, max(KNOWN, self._settings.gpu_wait))
        if skipped:
            log.warning("relay.went_on_without", runs=skipped, waited=self._settings.gpu_wait)
        self.stopping.wait(self._settings.sweep_interval)

    def _broker_forgot(self) -> bool:
        """Away is not forgetful: what else died is looked after all the same."""
        try:
            return not self._redis.exists(MEMORY)
        except redis.RedisError as error:
            log.warning("relay.dependency_away", loop="sweep", error=str(error))
            return False

    def _settle(self) -> None:
        settle(self._begin, self._trust)
        self.stopping.wait(self._settings.rollout_interval)

    def _keep_house(self) -> None:
        """Whatever moves bytes or may take its time."""
        clean(self._begin, self._staging, self._quarantine, self._settings.download_lifetime)
        if time.monotonic() - self._tidied > min(TIDY_EVERY, self._settings.upload_expiry):
            self._tidy_rows()
            expiry = timedelta(seconds=self._settings.upload_expiry)
            sweep_staging(self._staging, self._known, expiry)
            for bucket in (self._quarantine, self._registry, self._exports):
                sweep_transfers(bucket, expiry)
            garbage.expire(self._begin, self._exports, timedelta(seconds=self._settings.export_retention))
            self._tidied = time.monotonic()
        if 0 < self._settings.rescan_interval < time.monotonic() - self._looked:
            queue(self._begin, self._stages, current_rules(self._settings.second_opinions))
            self._looked = time.monotonic()
        if 0 < self._settings.gc_interval < time.monotonic() - self._collected:
            purging.purge_overdue(self._begin, self._settings.delete_retention)
            garbage.collect(
                self._begin,
                staging=self._staging,
                registry=self._registry,
                quarantine=self._quarantine,
                grace=timedelta(seconds=self._settings.gc_grace),
            )
            self._collected = time.monotonic()
        self.stopping.wait(self._settings.sweep_interval)

    def _tidy_rows(self) -> None:
        """Forget what is over, and sign the audit trail where that is due."""
        with self._begin() as session:
            kept_logs.forget(session, timedelta(seconds=self._settings.log_retention))
            people.forget_tokens(session)
            answers.forget(session, timedelta(seconds=self._settings.idempotency_lifetime))
        if self._settings.audit_checkpoint_interval:
            every = timedelta(seconds=self._settings.audit_checkpoint_interval)
            with self._begin() as session:
                signed = audit.checkpoint(session, self._signer, every=every)
            if signed is not None:
                log.info("audit.checkpoint", entry=signed)

    def _known(self, keys: Any) -> set[str]:
        with self._begin() as session:
            return registry.staged(session, keys)


def main() -> None:
    settings = Settings()
    keeper = kept_logs.keeper(settings.sqlalchemy_url, "relay", settings.log_store_level)
    observe.configure(fmt=settings.log_format, level=settings.log_level, keeper=keeper)
    relay = Relay(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: relay.stopping.set())
    log.info("relay.started")
    relay.run()
    relay.close()


if __name__ == "__main__":
    main()
