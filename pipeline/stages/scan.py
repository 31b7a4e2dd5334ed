"""Refuse an upload that is hostile, or that nobody understands. Antivirus over every file, then our readers by content.

"Could not look" is never "clean": what a reader did not understand, or did not live to say, is `unknown_content`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import Rejected
from pipeline.sandbox import safe_file
from pipeline.stage import Context, Limits, Report, Stage, Upload

_VERDICTS = ("clean", "unknown", "malicious")
_SEVERITIES = ("info", "warning", "unknown", "malicious")
_LONGEST_TEXT = 2000
_MOST_FINDINGS = 200
_MEMBER = re.compile(r"member-\d{6}")


def run(ctx: Context) -> Report:
    # Pairs and no mapping: a side file that is called like the model must not take its place.
    files = [
        (ctx.upload.filename, ctx.model),
        *((f"{role}{path.suffix}", path) for role, path in ctx.side_files.items()),
    ]
    findings: list[dict[str, Any]] = []
    antivirus = _ask_antivirus(ctx, files, findings)
    verdict, readers, ruleset = "clean", dict[str, int](), ""
    for name, path in files:
        answer = _read(ctx, name, path)
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


def _ask_antivirus(
    ctx: Context, files: Sequence[tuple[str, Path]], findings: list[dict[str, Any]]
) -> dict[str, Any] | None:
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
    for name, path in files:
        look = ctx.scanner.scan(path)
        engine, complete = look.engine, complete and look.complete
        _judge_look(look.threat, look.complete, name, findings)
    ctx.log(f"{engine} looked at {len(files)} files.")
    return {"engine": engine, "complete": complete}


def _ask_about_members(ctx: Context, findings: list[dict[str, Any]]) -> None:
    """Show the daemon what our reader unpacked: it does not look into every kind of archive itself."""
    if ctx.scanner is None:
        return
    names = sorted(path.name for path in ctx.scratch.iterdir() if _MEMBER.fullmatch(path.name))
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


def _read(ctx: Context, name: str, path: Path) -> dict[str, Any]:
    """One file's answer from the readers, each file in a child of its own; a child that died or babbled is a finding."""
    unpack_to = str(ctx.scratch) if path == ctx.model else None
    try:
        with ctx.sandbox.open(read=[path], scratch=ctx.scratch, limits=Limits()) as child:
            answer = child.call("pipeline.readers:examine", path=str(path), filename=name, unpack_to=unpack_to)
        if _well_formed(answer):
            return dict(answer)
        code, reason = "answer_invalid", "its answer makes no sense, so the file may have taken it over."
    except Rejected as stop:
        code, reason = stop.code, stop.message
    finding = _finding(
        f"reader.{code}",
        "unknown",
        name,
        f"The reader did not survive the file: {reason[:_LONGEST_TEXT]}",
        "Export the model again with a current version of its framework, or have a reviewer look at the file.",
    )
    return {"verdict": "unknown", "findings": [finding], "bytes": {}, "ruleset": ""}


def _well_formed(answer: Any) -> bool:
    """The child has touched hostile bytes: believe only an answer of exactly the promised shape."""
    return (
        isinstance(answer, dict)
        and answer.get("verdict") in _VERDICTS
        and _is_text(answer.get("ruleset"))
        and isinstance(answer.get("bytes"), dict)
        and all(_is_text(key) and type(count) is int and count >= 0 for key, count in answer["bytes"].items())
        and isinstance(answer.get("findings"), list)
        and len(answer["findings"]) <= _MOST_FINDINGS
        and all(_well_formed_finding(finding) for finding in answer["findings"])
    )


def _well_formed_finding(finding: Any) -> bool:
    return (
        isinstance(finding, dict)
        and set(finding) == {"rule", "severity", "path", "offset", "message", "advice"}
        and finding["severity"] in _SEVERITIES
        and (finding["offset"] is None or type(finding["offset"]) is int)
        and all(_is_text(finding[name]) for name in ("rule", "path", "message", "advice"))
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and value.isprintable()


STAGE = Stage(name="scan", run=run, queue="scan", max_attempts=8, time_limit=1800)
