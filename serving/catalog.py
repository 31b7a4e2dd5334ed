"""What answers for a model: names and references to loaded variants, remembered and kept true. The only part that asks the database.

A look at the database every second finds out whose ground has moved (`live.marks`); a new variant is loaded before it takes
the old one's place, so that no request meets one that is not there. What may no longer be served goes at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import Row
from sqlalchemy.orm import Session

from pipeline import evidence, pages, selection
from pipeline.errors import Rejected
from pipeline.examination import way_of
from pipeline.stage import with_packed
from registry import contracts, live, rollouts, store, verdicts
from registry.errors import Conflict, Missing, RegistryError
from registry.lookup import Viewer
from serving.access import AWAY
from serving.fleet import Fleet, Identity, NotLoaded, Variant
from serving.protocol.signature import Signature
from shared.db import Begin

log = structlog.get_logger()

_REMEMBERED = 600.0
"""Seconds without a question after which a route is forgotten."""
_SWAP_PATIENCE = 120.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model as its callers' requests need it."""

    id: UUID
    owner: str
    name: str
    auth_required: bool
    requests_per_minute: int | None
    timeout: float | None

    @property
    def reference(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A running rollout: the candidate, and how requests come to it."""

    id: UUID
    kind: str
    weight: float
    sticky: str
    slow: float | None
    candidate: Variant


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a name and a reference lead to now."""

    model: Model
    variant: Variant
    target: str | None
    trial: Trial | None


@dataclass(kw_only=True)
class _Entry:
    route: Route
    mark: str
    used: float = field(default_factory=time.monotonic)


Key = tuple[UUID, str | None]


class Catalog:
    """All methods belong to one event loop."""

    def __init__(self, begin: Begin, fleet: Fleet) -> None:
        self._begin, self._fleet = begin, fleet
        self._entries: dict[Key, _Entry] = {}
        self._asked: dict[Key, asyncio.Future[Route]] = {}
        self._swaps: dict[Key, tuple[asyncio.Task[None], str]] = {}

    async def route(self, model_id: UUID, reference: str | None) -> Route:
        """Raises `RegistryError` where nothing answers to that, or it must not."""
        key = model_id, reference
        entry = self._entries.get(key)
        if entry is not None:
            entry.used = time.monotonic()
            return entry.route
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.ensure_future(self._learn(key))
            asked.add_done_callback(lambda _: self._asked.pop(key, None))
        return await asyncio.shield(asked)

    async def versions(self, model_id: UUID) -> list[str]:
        """The versions that can be asked, oldest first."""
        return await self.ask(lambda session: _served(session, model_id))

    async def everything(self, viewer: Viewer) -> list[tuple[str, str, UUID]]:
        """What the viewer can ask: the model's name, and the version that answers, with its id."""
        return await self.ask(lambda session: live.answering(session, viewer))

    async def visible(self, viewer: Viewer) -> dict[UUID, str]:
        """The names of the models that the viewer can ask."""
        return await self.ask(lambda session: live.named(session, viewer))

    async def ask(self, question: Callable[[Session], T]) -> T:
        """Put a question to the database, in a thread."""

        def work() -> T:
            with self._begin() as session:
                return question(session)

        return await asyncio.to_thread(work)

    async def refresh(self) -> None:
        """Look whose ground has moved, and follow. What is live on production is made ready before anybody asks."""
        for key, kept in list(self._entries.items()):
            if time.monotonic() - kept.used > _REMEMBERED:
                del self._entries[key]
        known = {model_id for model_id, _ in self._entries}
        live_now, marks = await self.ask(lambda session: _marks(session, known))
        for key, kept in list(self._entries.items()):
            mark, swap = marks.get(key[0]), self._swaps.get(key)
            if swap is not None and mark == swap[1]:
                continue
            if swap is not None:  # the ground has moved again; what answers now may have become one that must not
                swap[0].cancel()
            if mark != kept.mark:
                await self._try_to_follow(key, kept)
        await self._make_ready(live_now)
        self._fleet.keep(self._meant())

    async def _make_ready(self, model_ids: Sequence[UUID]) -> None:
        for model_id in model_ids:
            if (model_id, None) not in self._entries and (model_id, None) not in self._swaps:
                try:
                    route = await self.route(model_id, None)
                except RegistryError as refusal:
                    log.info("catalog.not_served", model_id=str(model_id), code=refusal.code)
                    continue
                self._fleet.warm(route.variant)
            if (entry := self._entries.get((model_id, None))) is not None:
                entry.used = time.monotonic()

    async def _learn(self, key: Key) -> Route:
        route, mark = await self.ask(lambda session: _read(session, key, self._fleet.outfit.device))
        self._entries[key] = _Entry(route=route, mark=mark)
        return route

    async def _try_to_follow(self, key: Key, entry: _Entry) -> None:
        """A fault of ours with one model must not keep the others where they are."""
        try:
            await self._follow(key, entry)
        except AWAY:
            raise
        except Exception:
            log.exception("catalog.not_followed", model=entry.route.model.reference, reference=key[1])

    async def _follow(self, key: Key, entry: _Entry) -> None:
        """Put in the new route: once what it leads to is loaded, or at once where the old one must not be asked any more."""
        try:
            route, mark = await self.ask(lambda session: _read(session, key, self._fleet.outfit.device))
        except RegistryError as refusal:
            del self._entries[key]
            log.info("catalog.withdrawn", model=entry.route.model.reference, reference=key[1], code=refusal.code)
            self._end_unmeant(entry.route)
            return
        before = entry.route
        swaps = route.variant.identity != before.variant.identity
        if (
            not swaps
            or not self._fleet.ready(before.variant)
            or not await self.ask(lambda session: _still_good(session, before.variant.version_id))
        ):
            entry.route, entry.mark = route, mark
            self._end_unmeant(before)
            for one in _variants_of(route):
                self._fleet.warm(one)
            return
        task = asyncio.get_running_loop().create_task(self._swap(key, entry, route, mark))
        self._swaps[key] = task, mark

        def over(done: asyncio.Task[None]) -> None:
            if (swap := self._swaps.get(key)) is not None and swap[0] is done:
                del self._swaps[key]

        task.add_done_callback(over)

    async def _swap(self, key: Key, entry: _Entry, route: Route, mark: str) -> None:
        try:
            await self._fleet.get(route.variant, wait=_SWAP_PATIENCE, beside=entry.route.variant)
        except NotLoaded as refusal:
            # The old one goes on answering; the next look tries again, because the mark is still the old one's.
            log.warning(
                "catalog.swap_failed", model=route.model.reference, version=route.variant.version, code=refusal.code
            )
            return
        before = entry.route
        entry.route, entry.mark = route, mark
        log.info("catalog.swapped", model=route.model.reference, reference=key[1], version=route.variant.version)
        self._end_unmeant(before)

    def _end_unmeant(self, before: Route) -> None:
        for one in _variants_of(before):
            if one.identity not in self._meant():
                self._fleet.retire(one, self._meant)

    def _meant(self) -> set[Identity]:
        return {one.identity for entry in self._entries.values() for one in _variants_of(entry.route)}


def _variants_of(route: Route) -> Sequence[Variant]:
    return (route.variant,) if route.trial is None else (route.variant, route.trial.candidate)


def _marks(session: Session, known: set[UUID]) -> tuple[list[UUID], dict[UUID, str]]:
    live_now = live.in_production(session)
    return live_now, live.marks(session, known) if known else {}


def _served(session: Session, model_id: UUID) -> list[str]:
    rows = store.list_versions(session, model_id)
    fit = [row for row in rows if row.published_at and row.verdict == "clean" and row.servable]
    return [row.version for row in reversed(fit)]


def _still_good(session: Session, version_id: UUID) -> bool:
    row = live.version(session, version_id)
    return row is not None and row.verdict == "clean" and row.deleted_at is None


def _read(session: Session, key: Key, device: str) -> tuple[Route, str]:
    model_id, reference = key
    row = live.model(session, model_id)
    mark = live.marks(session, [model_id]).get(model_id)
    if row is None or mark is None:
        raise Missing("model_not_found", "This model is not there any more.")
    version, target = live.find(session, model_id, reference)
    live.refuse_unless_servable(row, version)
    model = Model(
        id=row.id,
        owner=row.owner,
        name=row.name,
        auth_required=row.auth_required,
        requests_per_minute=row.requests_per_minute,
        timeout=row.timeout_ms / 1e3 if row.timeout_ms else None,
    )
    variant = _variant(session, model, version, device)
    trial = _trial(session, model, version, target, device)
    return Route(model=model, variant=variant, target=target, trial=trial), mark


def _trial(session: Session, model: Model, version: Row[Any], target: str | None, device: str) -> Trial | None:
    if target is None:
        return None
    for row in rollouts.running(session):
        if (row.model_id, row.target, row.control_id) != (model.id, target, version.id):
            continue
        candidate = live.version(session, row.candidate_id)
        if candidate is None or candidate.verdict != "clean" or candidate.deleted_at is not None:
            return None
        try:
            variant = _variant(session, model, candidate, device)
        except RegistryError as refusal:  # what is live answers alone
            log.warning("catalog.no_candidate", model=model.reference, version=candidate.version, code=refusal.code)
            return None
        slow = verdicts.Rules.of(row.rules).latency_ms
        return Trial(
            id=row.id,
            kind=row.kind,
            weight=row.weight,
            sticky=row.sticky,
            slow=None if slow is None else slow / 1e3,
            candidate=variant,
        )
    return None


def _variant(session: Session, model: Model, version: Row[Any], device: str) -> Variant:
    page = pages.read(session, Viewer(user_id=version.uploaded_by, admin=True), str(model.id), version.version)
    published = {one.name: one for one in page.artifacts if one.role in evidence.SERVABLE}
    name = evidence.preferred(version, list(published.values()), page.variants, page.rows, device=device)
    if name is None or not selection.runs_on(name, device):
        raise Missing("no_variant", f"{version.version} has no form that runs on {device}.")
    chosen = published[name]
    facts = page.reports.get("validate", {}).get("facts", {})
    config = with_packed(version.declared, facts.get("declared") or {}).get("config") or {}
    classes = contracts.Contract.read(facts, version.declared).classes
    try:
        signature = Signature.read(chosen.meta["inputs"], chosen.meta["outputs"], classes, config)
    except Rejected as flaw:
        raise Conflict("not_servable", f"{version.version} cannot be asked: {flaw.message}") from flaw
    return Variant(
        version_id=version.id,
        model=model.reference,
        version=version.version,
        name=name,
        key=chosen.key,
        sha256=chosen.sha256,
        size=chosen.size,
        way=way_of(chosen.meta),
        inputs=chosen.meta["inputs"],
        signature=signature.facts(),
    )
