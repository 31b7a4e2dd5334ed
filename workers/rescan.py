"""Finds clean versions whose verdict is out of date, because the rules have changed or a waiver is over, and has them scanned again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from pipeline import quarantine, readers, reviewing
from pipeline.stage import Stage
from pipeline.stages.scan import ruleset
from shared.db import Begin

log = structlog.get_logger()

BATCH = 100


def current_rules(second_opinions: Sequence[str]) -> str:
    """The rules that this installation judges by now."""
    return ruleset(readers.ruleset(), {"second_opinions": second_opinions})


def queue(begin: Begin, stages: Iterable[Stage], rules: str) -> int:
    """Queue a re-scan of every version that needs one: how many. Nothing where no scan is among the stages."""
    step = next((stage.step() for stage in stages if stage.name == quarantine.SCAN), None)
    if step is None:
        return 0
    queued = 0
    while True:
        with begin() as session:
            found = reviewing.rescan(session, ruleset=rules, step=step, limit=BATCH)
        queued += len(found)
        if len(found) < BATCH:
            break
    if queued:
        log.info("rescan.queued", runs=queued, rules=rules)
    return queued
