"""What a reviewer's decision does: to the file, to the runs of its versions, and in the audit trail. All of it or nothing.

Also asks for another look at versions whose verdict is out of date. A re-scan is a run of its own with the scan as its
only step: what it refuses is in quarantine again, with everything that was made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from pipeline import engine, quarantine, readers, store
from pipeline.run import Purpose, Resume, Step
from registry import audit, reviews
from registry.audit import Actor
from registry.errors import NotWaivable
from registry.waivers import WAIVABLE, Stop, Waiver, judge

RESCAN = "rescan"
"""The queue of re-scans: one of their own, so that they do not stand before uploads."""
_HITS_TOLD = 20


@dataclass(frozen=True, kw_only=True)
class Reviewer:
    """Who decides. `everything`: may see every version, not only those in quarantine."""

    id: UUID
    name: str
    everything: bool = False

    @property
    def actor(self) -> Actor:
        return Actor(id=self.id, name=self.name)


@dataclass(frozen=True, kw_only=True)
class Waived:
    """A waiver that was granted. The run is taken up again once nothing remains."""

    waiver: Waiver
    run_id: UUID
    remaining: tuple[Stop, ...]

    @property
    def resumed(self) -> bool:
        return not self.remaining


def waive(
    session: Session,
    reviewer: Reviewer,
    version_id: UUID,
    *,
    rule: str,
    sha256: str | None,
    reason: str,
    expires_at: datetime,
) -> Waived:
    """Let the unknown that `rule` found in one file of a version pass until `expires_at`; resume the run if that was all.

    `sha256` names the file where the rule stopped more than one. Raises `Missing`, `Denied` for one's own upload,
    `NotWaivable` for what is malicious, condemned or not there, `IllegalTransition` where the run is not waiting.
    """
    row = quarantine.find(session, version_id, any_version=reviewer.everything)
    if row.run_id is None:
        raise NotWaivable("nothing_to_waive", "No run has refused this version.")
    # The run first: whoever reports on it takes the same lock before the version's.
    store.load(session, row.run_id, lock=True)
    row = quarantine.find(session, version_id, any_version=reviewer.everything)
    stops = stops_of(row)
    stop = _the_stop(stops, rule, sha256)
    if reviews.condemnations(session, reviews.digests(row).values()):
        raise NotWaivable("condemned", "This file has been condemned; no waiver lets it pass.")
    waiver_id = reviews.grant(
        session, row, sha256=stop.sha256, rule=rule, reason=reason, by=reviewer.id, expires_at=expires_at
    )
    judgement = judge(stops, reviews.in_force(session, reviews.digests(row).values()))
    if not judgement.remaining:
        engine.send(session, row.run_id, Resume())
    (waiver,) = reviews.waivers_by_id(session, [waiver_id])
    told = {
        "waiver": str(waiver_id),
        "sha256": stop.sha256,
        "rule": rule,
        "reason": reason,
        "expires_at": expires_at.isoformat(),
        "run": str(row.run_id),
        "resumed": not judgement.remaining,
    }
    audit.append(session, reviewer.actor, "waiver.granted", str(version_id), told)
    return Waived(waiver=waiver, run_id=row.run_id, remaining=judgement.remaining)


def revoke(session: Session, reviewer: Reviewer, waiver_id: UUID, *, step: Step) -> tuple[Waiver, list[UUID]]:
    """End a waiver now, and look again at the versions that lean on it: the waiver, and the runs that do. Raises `Missing`."""
    waiver, leaning = reviews.revoke(session, waiver_id)
    looks = [_look_again(session, row, step) for row in leaning if not quarantine.has_live_run(session, row.id)]
    told = {"sha256": waiver.sha256, "rule": waiver.rule, "runs": [str(run_id) for run_id in looks]}
    audit.append(session, reviewer.actor, "waiver.revoked", str(waiver_id), told)
    return waiver, looks


def condemn(
    session: Session, reviewer: Reviewer, version_id: UUID, *, reason: str, sha256: str | None
) -> tuple[str, list[UUID]]:
    """Never let a file of this version (the model, unless `sha256` names another) pass again, wherever it comes from.

    Its digest, and every version that loses its verdict by it. Condemning twice is condemning once.
    """
    row = quarantine.find(session, version_id, any_version=reviewer.everything)
    digest = sha256 or row.sha256
    if digest not in reviews.digests(row).values():
        raise NotWaivable("no_such_file", "This version has no file with that SHA-256.")
    _, ids = reviews.condemn(
        session, digest, reason=reason, by=reviewer.id, actor=reviewer.actor, version_id=version_id
    )
    return digest, ids


def fetched(session: Session, reviewer: Reviewer, row: Row[Any]) -> None:
    """Write down that somebody takes the quarantined bytes away."""
    audit.append(session, reviewer.actor, "quarantine.downloaded", str(row.id), {"sha256": row.sha256})


def rescan(session: Session, *, ruleset: str, step: Step, limit: int = 100) -> list[UUID]:
    """Queue another look at up to `limit` clean versions that were judged by other rules or lean on a waiver that is over.

    What the summary of its last scan shows to be refused today loses its verdict at once, before any byte is fetched;
    the look that follows finds out the rest, and is what a reviewer can resume.
    """
    looks = []
    for row in quarantine.stale(session, ruleset, limit):
        run_id = _look_again(session, row, step)
        looks.append(run_id)
        hits = readers.replay(quarantine.passed(session, row.id).get("summary", {}).get("names", ()))
        if hits:
            verdict = "malicious" if any(hit["severity"] == "malicious" for hit in hits) else "unknown"
            reviews.judge(
                session, row.id, verdict, details={"run": str(run_id), "ruleset": ruleset, "names": hits[:_HITS_TOLD]}
            )
    return looks


def stops_of(row: Row[Any]) -> list[Stop]:
    """What stopped a version of `pipeline.quarantine`, by its newest run's scan."""
    facts: Mapping[str, Any] = (row.report or {}).get("facts", {})
    return [
        Stop(sha256=each["sha256"], rule=each["rule"], severity=each["severity"]) for each in facts.get("stops", ())
    ]


def _look_again(session: Session, row: Row[Any], step: Step) -> UUID:
    run = engine.submit(
        session, version_id=row.id, owner_id=row.uploaded_by, plan=[replace(step, queue=RESCAN)], purpose=Purpose.RESCAN
    )
    return run.id


def _the_stop(stops: list[Stop], rule: str, sha256: str | None) -> Stop:
    found = [stop for stop in stops if stop.rule == rule and sha256 in (None, stop.sha256)]
    if not found:
        known = ", ".join(sorted({stop.rule for stop in stops if stop.severity == WAIVABLE})) or "nothing"
        raise NotWaivable("nothing_to_waive", f"{rule} does not stop this version; what can be waived is {known}.")
    if len(found) > 1:
        raise NotWaivable("ambiguous_file", f"{rule} stops more than one file; name one by its sha256.")
    if found[0].severity != WAIVABLE:
        raise NotWaivable("not_waivable", f"{rule} found something malicious; only what is unknown can be waived.")
    return found[0]
