"""What a reviewer may set aside, and what nobody may. Pure: knows rules, digests and moments.

Only what is *unknown* can be waived, never what is *malicious*: a known gadget or virus does not become harmless because
somebody vouches for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

Severity = Literal["unknown", "malicious"]

WAIVABLE: Severity = "unknown"


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """One rule set aside for one file, for a while. `sha256` is that file's digest, so no other byte profits from it."""

    id: UUID
    sha256: str
    rule: str
    reason: str
    granted_by: str
    granted_at: datetime
    expires_at: datetime
    revoked_at: datetime | None

    def counts(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A rule that keeps a file from passing. There is one for every such rule, though not every finding is written out."""

    sha256: str
    rule: str
    severity: Severity


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is left of the stops once the waivers are looked at. `leaning_on` are the waivers that made a difference."""

    verdict: Literal["clean", "unknown", "malicious"]
    remaining: tuple[Stop, ...]
    leaning_on: tuple[Waiver, ...]

    @property
    def until(self) -> datetime | None:
        """When the first of the waivers ends."""
        return min((waiver.expires_at for waiver in self.leaning_on), default=None)


def judge(stops: Iterable[Stop], waivers: Iterable[Waiver]) -> Judgement:
    """The verdict over these stops. `waivers` are such as count now; of two for the same the longer one is leant on."""
    longest: dict[tuple[str, str], Waiver] = {}
    for waiver in sorted(waivers, key=lambda waiver: waiver.expires_at):
        longest[waiver.sha256, waiver.rule] = waiver
    remaining: list[Stop] = []
    leaning_on: dict[UUID, Waiver] = {}
    for stop in stops:
        waiver_or_none = longest.get((stop.sha256, stop.rule))
        if waiver_or_none is None or stop.severity != WAIVABLE:
            remaining.append(stop)
        else:
            leaning_on[waiver_or_none.id] = waiver_or_none
    return Judgement(verdict=_worst(remaining), remaining=tuple(remaining), leaning_on=tuple(leaning_on.values()))


def _worst(stops: Sequence[Stop]) -> Literal["clean", "unknown", "malicious"]:
    severities = {stop.severity for stop in stops}
    return "malicious" if "malicious" in severities else "unknown" if severities else "clean"
