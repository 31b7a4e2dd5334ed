"""Refuse an upload that is hostile, or that nobody understands. Antivirus over every file, then our readers by content.

"Could not look" is never "clean": what a reader did not understand, or did not live to say, is `unknown_content`. What
a reviewer has waived for exactly this file stays in the report, marked, and stops it no longer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import formats, readers
from pipeline.errors import Rejected
from pipeline.reading import SEVERITIES, VERDICTS, finding, opinion, opinion_name, read, stops_of
from pipeline.run import UNKNOWN
from pipeline.sandbox import safe_file
from pipeline.stage import AntivirusVerdict, Context, Limits, Report, Stage, Upload
from registry.waivers import Judgement, Stop, judge

_MEMBER = re.compile(r"member-\d{6}")


@dataclass(frozen=True, kw_only=True)
class _File:
    """One uploaded file: how it is called in findings, where it lies, its digest."""

    name: str
    path: Path
    sha256: str


@dataclass(kw_only=True)
class _Notes:
    """What has been seen so far."""

    findings: list[dict[str, Any]] = field(default_factory=list)
    stops: dict[tuple[str, str], str] = field(default_factory=dict)
    understood: dict[str, int] = field(default_factory=dict)
    names: list[dict[str, str]] = field(default_factory=list)
    parts: list[dict[str, str]] = field(default_factory=list)

    def add(self, file: _File, findings: Sequence[Mapping[str, Any]], stops: Mapping[str, str] | None = None) -> None:
        """`stops` where more rules stopped the file than are among the findings."""
        self.findings += [{**each, "sha256": file.sha256} for each in findings]
        for rule, severity in (stops_of(findings) if stops is None else stops).items():
            before = self.stops.get((file.sha256, rule), "clean")
            self.stops[file.sha256, rule] = max(before, severity, key=VERDICTS.index)

    def judged(self, ctx: Context) -> Judgement:
        stops = [Stop(sha256=sha256, rule=rule, severity=severity) for (sha256, rule), severity in self.stops.items()]  # type: ignore[arg-type] # clean is no stop
        return judge(stops, ctx.reviews.waivers({stop.sha256 for stop in stops}) if stops else ())


def run(ctx: Context) -> Report:
    # A list and no mapping: a side file that is called like the model must not take its place.
    model = _File(name=ctx.upload.filename, path=ctx.model, sha256=ctx.upload.sha256)
    files = [
        model,
        *(_File(name=f"{role}{path.suffix}", path=path, sha256=_sha256(path)) for role, path in ctx.side_files.items()),
    ]
    notes = _Notes()
    antivirus = _ask_antivirus(ctx, files, notes)
    content: dict[str, Any] = {}
    for file in files:
        answer = read(ctx, file.name, file.path, unpack_to=ctx.scratch if file is model else None)
        content = answer if file is model else content
        notes.add(file, answer["findings"], answer["stops"])
        notes.names += answer["summary"]["names"]
        notes.parts += answer["summary"]["parts"]
        for reader, count in answer["bytes"].items():
            notes.understood[reader] = notes.understood.get(reader, 0) + count
        ctx.log(f"Read {file.name}: {answer['verdict']}, {len(answer['findings'])} findings.")
    if not _ask_about_members(ctx, model, notes) and antivirus is not None:
        antivirus["complete"] = False
    _ask_others(ctx, model, notes)
    judgement = notes.judged(ctx)
    if all(stop.sha256 != model.sha256 for stop in judgement.remaining):
        notes.add(model, _check_format(ctx.upload, content))
        judgement = notes.judged(ctx)
    facts = _facts(ctx, files, notes, judgement, antivirus)
    condemned = ctx.reviews.condemned({file.sha256 for file in files})
    if condemned:
        facts["verdict"] = "malicious"
        names = ", ".join(file.name for file in files if file.sha256 in condemned)
        raise Rejected("condemned", f"A reviewer has condemned {names}: this very file never passes again.", **facts)
    if judgement.verdict == "malicious":
        raise Rejected("malicious", f"The upload is hostile: {facts['findings'][0]['message']}", **facts)
    if judgement.verdict == "unknown":
        raise Rejected(
            UNKNOWN,
            f"Part of the upload is not understood, so it is refused: {facts['findings'][0]['message']}",
            **facts,
        )
    return Report(facts=facts)


def ruleset(ours: str, options: Mapping[str, Any]) -> str:
    """The readers' rules and the second opinions that are asked: what a verdict was reached by."""
    return " ".join([ours, *(f"+{opinion_name(function)}" for function in options.get("second_opinions", ()))])


def _facts(
    ctx: Context, files: Sequence[_File], notes: _Notes, judgement: Judgement, antivirus: dict[str, Any] | None
) -> dict[str, Any]:
    waived = {(waiver.sha256, waiver.rule): str(waiver.id) for waiver in judgement.leaning_on}
    open_stops = {(stop.sha256, stop.rule) for stop in judgement.remaining}
    for each in notes.findings:
        where = (each["sha256"], each["rule"])
        if where in waived and where not in open_stops and each["severity"] == "unknown":
            each["waived"] = waived[where]
    notes.findings.sort(key=lambda each: ("waived" in each, -SEVERITIES.index(each["severity"])))
    if judgement.leaning_on:
        ctx.log(f"Waived by reviewers: {', '.join(sorted(waiver.rule for waiver in judgement.leaning_on))}.")
    return {
        "verdict": judgement.verdict,
        "findings": notes.findings,
        "stops": [
            {"sha256": sha256, "rule": rule, "severity": severity, "waived": waived.get((sha256, rule))}
            for (sha256, rule), severity in notes.stops.items()
        ],
        "waived_until": None if judgement.until is None else judgement.until.isoformat(),
        "files": [{"name": file.name, "sha256": file.sha256} for file in files],
        "antivirus": antivirus,
        "readers": notes.understood,
        "summary": {"names": notes.names, "parts": notes.parts},
        "ruleset": ruleset(readers.ruleset(), ctx.options),
    }


def _ask_antivirus(ctx: Context, files: Sequence[_File], notes: _Notes) -> dict[str, Any] | None:
    """Show every file to the daemon; None where there is no daemon."""
    if ctx.scanner is None:
        ctx.log("No antivirus daemon: only our own readers look at this upload.")
        absent = finding(
            "antivirus.absent",
            "info",
            ctx.upload.filename,
            "Antivirus not available: no daemon has looked at this upload.",
            "Start clamd and set CLAMD_URL; production refuses to run without it.",
        )
        notes.add(files[0], [absent])
        return None
    engine, complete = "", True
    for file in files:
        look = ctx.scanner.scan(file.path)
        engine, complete = look.engine, complete and look.complete
        notes.add(file, _seen_by_antivirus(look, file.name))
    ctx.log(f"{engine} looked at {len(files)} files.")
    return {"engine": engine, "complete": complete}


def _ask_about_members(ctx: Context, model: _File, notes: _Notes) -> bool:
    """Show the daemon what our reader unpacked: it does not look into every kind of archive itself.

    Returns whether it saw every byte of it.
    """
    complete = True
    if ctx.scanner is None:
        return complete
    names = sorted(path.name for path in ctx.scratch.iterdir() if _MEMBER.fullmatch(path.name))
    for name in names:
        path = safe_file(ctx.scratch, name, max_size=Limits().file_size)
        look = ctx.scanner.scan(path)
        complete = complete and look.complete
        notes.add(model, _seen_by_antivirus(look, f"{ctx.upload.filename}!{name}"))
    return complete


def _ask_others(ctx: Context, model: _File, notes: _Notes) -> None:
    """Second opinions can add to what was found, and take nothing away."""
    for function in ctx.options.get("second_opinions", ()):
        added = opinion(ctx, function, model.name, model.path)
        notes.add(model, added)
        ctx.log(f"{opinion_name(function)} adds {len(added)} findings.")


def _seen_by_antivirus(look: AntivirusVerdict, name: str) -> list[dict[str, Any]]:
    if look.threat is not None:
        return [
            finding(
                "antivirus.threat",
                "malicious",
                name,
                f"The antivirus recognised {look.threat[:200]}.",
                "Do not open this file anywhere; find out where it came from.",
            )
        ]
    if not look.complete:
        return [
            finding(
                "antivirus.incomplete",
                "unknown",
                name,
                "The antivirus stopped at one of its limits and did not see every byte.",
                "Raise the daemon's MaxScanSize, MaxFileSize and StreamMaxLength, then retry the run.",
            )
        ]
    if look.windows > 1:
        return [
            finding(
                "antivirus.windows",
                "info",
                name,
                f"Too long for one stream: the antivirus saw it in {look.windows} overlapping windows.",
                "Signatures of whole files and archives cannot match here; nothing else is to be done.",
            )
        ]
    return []


def _check_format(upload: Upload, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A reader of the declared format must have understood the file, where there is one.

    Else a loader would see something else in the bytes than we judged.
    """
    known = {part.split("/")[0] for part in content["ruleset"].split()}
    read_as = next((one.read_as for one in formats.discover() if one.name == upload.format), ())
    wanted = {*read_as} or {upload.format} & known
    if not wanted or wanted & {*content["bytes"]}:
        return []
    return [
        finding(
            "content.mismatch",
            "unknown",
            upload.filename,
            f"The file is declared as {upload.format}, but its content is something else.",
            "Upload the file under the format it really has.",
        )
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


STAGE = Stage(name="scan", run=run, queue="scan", max_attempts=8, time_limit=1800)
