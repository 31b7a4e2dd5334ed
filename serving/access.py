"""Who asks, what they may ask, and how often. Remembers answers for some seconds, so that a prediction costs the database nothing.

What is revoked stops counting within `REMEMBERED` seconds, or once the database is back where it is away: who was known
then is believed for `BELIEVED` seconds. A key with a budget is not remembered: each call is taken off it in the database.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from registry import access, live, lookup
from registry.errors import Denied, Exhausted, Missing
from registry.lookup import Viewer
from serving.answers import Refused
from shared.allowance import Allowance
from shared.db import Begin
from shared.settings import Plan
from shared.tokens import Tokens

REMEMBERED = 5.0
BELIEVED = 300.0
STRANGERS = "free"
"""The plan of those who do not say who they are."""
AWAY = (OperationalError, InterfaceError, PoolTimeoutError)
"""What the database not answering looks like."""
_MOST = 10_000

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Somebody known, or a stranger (no `user_id`) by their address. `per_minute`: what their plan says."""

    user_id: UUID | None
    name: str
    permissions: frozenset[str] = frozenset()
    per_minute: int | None = None

    @property
    def viewer(self) -> Viewer | None:
        return None if self.user_id is None else Viewer(user_id=self.user_id, admin="admin" in self.permissions)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A model that a caller may ask; a `guest` only because its endpoint is open to everybody."""

    id: UUID
    guest: bool


class Remembered(Generic[T]):
    """Values for some seconds, the longest unused go first."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._kept: OrderedDict[Any, tuple[float, T]] = OrderedDict()

    def get(self, key: Any, seconds: float = REMEMBERED) -> T | None:
        """What was put there within so many seconds."""
        found = self._kept.get(key)
        if found is None or time.monotonic() - found[0] > seconds:
            return None
        self._kept.move_to_end(key)
        return found[1]

    def put(self, key: Any, value: T) -> None:
        self._kept[key] = (time.monotonic(), value)
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


class Gatekeeper:
    """All methods belong to one event loop."""

    def __init__(self, begin: Begin, signer: Tokens, allowance: Allowance, plans: Mapping[str, Plan]) -> None:
        self._begin, self._signer, self._allowance, self._plans = begin, signer, allowance, plans
        self._callers = Remembered[Caller]()
        self._models = Remembered[Found]()

    async def caller(self, authorization: bytes | None, address: str) -> Caller:
        """Raises `Refused`: 401, or 429 where a key's budget is used up. Without credentials, a stranger."""
        if authorization is None:
            return Caller(user_id=None, name=address, per_minute=self._limit(STRANGERS))
        known = self._callers.get(digest := hashlib.sha256(authorization).digest())
        if known is not None:
            return known
        scheme, _, text = authorization.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise _unknown("The Authorization header must be `Bearer` and a token or API key.")
        try:
            caller, budgeted = await asyncio.to_thread(self._identify, text.strip())
        except AWAY:
            if (believed := self._callers.get(digest, BELIEVED)) is not None:
                return believed
            raise
        if not budgeted:
            self._callers.put(digest, caller)
        return caller

    async def model(self, caller: Caller, reference: str) -> Found:
        """The model that a caller means and may ask. Raises `Refused`."""
        known = self._models.get(key := (caller.user_id, caller.permissions, reference))
        if known is None:
            try:
                known = await asyncio.to_thread(self._find, caller, reference)
            except AWAY:
                if (believed := self._models.get(key, BELIEVED)) is not None:
                    return believed
                raise
            self._models.put(key, known)
        return known

    async def allow(self, caller: Caller, model_id: UUID, per_minute: int | None) -> None:
        """Count one request of a caller to a model. Raises `Refused` (429)."""
        limit = caller.per_minute if per_minute is None else per_minute
        if limit is None:
            return
        decision = await self._allowance.take(f"{model_id}:{caller.user_id or caller.name}", limit)
        if not decision.allowed:
            detail = (
                f"{limit} requests a minute to this model are what you may; come again in {decision.reset_seconds} s."
            )
            raise Refused(429, "rate_limited", detail, headers=decision.headers)

    def _identify(self, text: str) -> tuple[Caller, bool]:
        with self._begin() as session:
            try:
                found = access.identify(session, self._signer, text)
            except access.Unrecognised as error:
                raise _unknown(str(error)) from error
            except Exhausted as error:
                raise Refused(429, error.code, error.message) from error
        user = found.user
        caller = Caller(
            user_id=user.id, name=user.username, permissions=found.permissions, per_minute=self._limit(user.plan)
        )
        return caller, found.calls_remaining is not None

    def _limit(self, plan: str) -> int | None:
        return self._plans[plan].requests_per_minute if plan in self._plans else None

    def _find(self, caller: Caller, reference: str) -> Found:
        with self._begin() as session:
            try:
                return Found(id=self._entitled(session, caller, reference), guest=False)
            except Refused:
                owner, _, name = reference.replace("~", "/").partition("/")
                open_to_all = live.open_to_all(session, owner, name) if name else None
                if open_to_all is None:
                    raise
                return Found(id=open_to_all, guest=True)

    def _entitled(self, session: Session, caller: Caller, reference: str) -> UUID:
        viewer = caller.viewer
        if viewer is None:
            raise _unknown("This endpoint wants to know who you are: send an API key or a token.")
        if not viewer.admin and "models:predict" not in caller.permissions:
            raise Refused(403, "forbidden", "This needs the right models:predict, which you do not have.")
        try:
            found: UUID = lookup.find_model(session, viewer, reference, permission="models:predict").id
        except Missing as missing:
            raise Refused(404, missing.code, missing.message) from missing
        except Denied as denied:
            raise Refused(403, denied.code, denied.message) from denied
        return found


def _unknown(detail: str) -> Refused:
    return Refused(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})
