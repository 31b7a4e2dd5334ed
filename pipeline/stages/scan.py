"""Refuse an upload that is hostile, or that nobody understands. Antivirus over every file, then our readers by content.

"Could not look" is never "clean": what a reader did not understand, or did not live to say, is `unknown_content`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import Rejected
from pipeline.sandbox import safe_file
from pipeline.stage import Child, Context, Limits, Report, Stage, Upload

_VERDICTS = ("clean", "unknown", "malicious")
_SEVERITIES = ("info", "warning", "unknown", "malicious")
_FIELDS = {"rule": str, "severity": str, "path": str, "offset": int | None, "message": str, "advice": str}
_LONGEST_TEXT = 2000


def run(ctx: Context) -> Report:
    files = {ctx.upload.filename: ctx.model, **{f"{role}{path.suffix}": path for role, path in ctx.side_files.items()}}
    findings: list[dict[str, Any]] = []
    antivirus = _ask_antivirus(ctx, files, findings)
    verdict, readers, ruleset = "clean", dict[str, int](), ""
    with ctx.sandbox.open(read=list(files.values()), scratch=ctx.scratch, limits=Limits()) as child:
        for name, path in files.items():
            answer = _read(child, name, path, ctx.scratch if path == ctx.model else None)
            if path == ctx.model:
                answer["findings"] += _check_format(ctx.upload, answer)
            findings += answer["findings"]
            verdict = max(verdict, answer["verdict"], key=_VERDICTS.index)
            ruleset = answer["ruleset"] or ruleset
            for reader, count in answer["bytes"].items():
                readers[reader] = readers.get(reader, 0) + count
            ctx.log(f"Read {name}: {answer['verdict']}, {len(answer['findings'])} findings.")
    _ask_about_members(ctx, findings)
    for finding in findings:
        if finding["severity"] in _VERDICTS:
            verdict = max(verdict, finding["severity"], key=_VERDICTS.index)
    findings.sort(key=lambda finding: -_SEVERITIES.index(finding["severity"]))
    facts = {
        "verdict": verdict,
        "findings": findings,
        "antivirus": antivirus,
        "readers": readers,
        "ruleset": ruleset,
    }
    if verdict == "malicious":
        raise Rejected("malicious", f"The upload is hostile: {findings[0]['message']}", **facts)
    if verdict == "unknown":
        raise Rejected(
            "unknown_content",
            f"Part of the upload is not understood, so it is refused: {findings[0]['message']}",
            **facts,
        )
    return Report(facts=facts)


def _ask_antivirus(ctx: Context, files: Mapping[str, Path], findings: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Show every file to the daemon; None where there is no daemon."""
    if ctx.scanner is None:
        ctx.log("No antivirus daemon: only our own readers look at this upload.")
        findings.append(
            _finding(
                "antivirus.absent",
                "info",
                ctx.upload.filename,
                "Antivirus not available: no daemon has looked at this upload.",
                "Start clamd and set CLAMD_URL; production refuses to run without it.",
            )
        )
        return None
    engine, complete = "", True
    for name, path in files.items():
        look = ctx.scanner.scan(path)
        engine, complete = look.engine, complete and look.complete
        _judge_look(look.threat, look.complete, name, findings)
    ctx.log(f"{engine} looked at {len(files)} files.")
    return {"engine": engine, "complete": complete}


def _ask_about_members(ctx: Context, findings: list[dict[str, Any]]) -> None:
    """Show the daemon what our reader unpacked: it does not look into every kind of archive itself."""
    if ctx.scanner is None:
        return
    names = sorted(path.name for path in ctx.scratch.iterdir() if path.name.startswith("member-"))
    for name in names:
        path = safe_file(ctx.scratch, name, max_size=Limits().file_size)
        look = ctx.scanner.scan(path)
        _judge_look(look.threat, look.complete, f"{ctx.upload.filename}!{name}", findings)


def _judge_look(threat: str | None, complete: bool, name: str, findings: list[dict[str, Any]]) -> None:
    if threat is not None:
        findings.append(
            _finding(
                "antivirus.threat",
                "malicious",
                name,
                f"The antivirus recognised {threat[:200]}.",
                "Do not open this file anywhere; find out where it came from.",
            )
        )
    elif not complete:
        findings.append(
            _finding(
                "antivirus.incomplete",
                "unknown",
                name,
                "The antivirus stopped at one of its limits and did not see every byte.",
                "Raise the daemon's MaxScanSize, MaxFileSize and StreamMaxLength, then retry the run.",
            )
        )


def _check_format(upload: Upload, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where a reader bears the name of the declared format, it must have been the one that understood the file.

    Else a loader would see something else in the bytes than we judged.
    """
    known = {part.split("/")[0] for part in answer["ruleset"].split()}
    if answer["verdict"] != "clean" or upload.format not in known or upload.format in answer["bytes"]:
        return []
    return [
        _finding(
            "content.mismatch",
            "unknown",
            upload.filename,
            f"The file is declared as {upload.format}, but its content is something else.",
            "Upload the file under the format it really has.",
        )
    ]


def _finding(rule: str, severity: str, path: str, message: str, advice: str) -> dict[str, Any]:
    return {"rule": rule, "severity": severity, "path": path, "offset": None, "message": message, "advice": advice}


def _read(child: Child, name: str, path: Path, unpacked: Path | None) -> dict[str, Any]:
    """One file's answer from the readers; a child that died or babbled is a finding, too."""
    try:
        answer = child.call(
            "pipeline.readers:examine", path=str(path), filename=name, unpack_to=str(unpacked) if unpacked else None
        )
    except Rejected as stop:
        finding = _finding(
            f"reader.{stop.code}",
            "unknown",
            name,
            f"The reader did not survive the file: {stop.message[:_LONGEST_TEXT]}",
            "Export the model again with a current version of its framework, or have a reviewer look at the file.",
        )
        return {"verdict": "unknown", "findings": [finding], "bytes": {}, "ruleset": ""}
    if not _well_formed(answer):
        raise Rejected("answer_invalid", "The reader's answer makes no sense: it may have been taken over by the file.")
    return dict(answer)


def _well_formed(answer: Any) -> bool:
    """The child has touched hostile bytes: believe only an answer of exactly the promised shape."""
    return (
        isinstance(answer, dict)
        and answer.get("verdict") in _VERDICTS
        and isinstance(answer.get("ruleset"), str)
        and isinstance(answer.get("bytes"), dict)
        and all(isinstance(key, str) and type(count) is int for key, count in answer["bytes"].items())
        and isinstance(answer.get("findings"), list)
        and all(_well_formed_finding(finding) for finding in answer["findings"])
    )


def _well_formed_finding(finding: Any) -> bool:
    return (
        isinstance(finding, dict)
        and set(finding) == set(_FIELDS)
        and all(isinstance(finding[name], kind) for name, kind in _FIELDS.items())
        and finding["severity"] in _SEVERITIES
        and all(
            len(value) <= _LONGEST_TEXT and value.isprintable() for value in finding.values() if isinstance(value, str)
        )
    )


STAGE = Stage(name="scan", run=run, queue="scan", max_attempts=8, time_limit=1800)
