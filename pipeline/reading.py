"""Has files read in the sandbox, by our readers and by second opinions, and believes only answers of the promised shape.

A child has touched hostile bytes: what it says is judged here, and where it said nothing the file is not understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import Rejected
from pipeline.sandbox import ChildFailed
from pipeline.stage import Context, Limits

VERDICTS = ("clean", "unknown", "malicious")
SEVERITIES = ("info", "warning", "unknown", "malicious")

_LONGEST_TEXT = 2000
_MOST_FINDINGS = 200
_MOST_RULES = 1000
_NOTHING: Mapping[str, Any] = {"bytes": {}, "summary": {"names": [], "parts": []}, "ruleset": ""}
"""The rest of an answer where there was none."""


def read(ctx: Context, name: str, path: Path, *, unpack_to: Path | None = None) -> dict[str, Any]:
    """What our readers say of one file: `verdict`, `findings`, `stops`, `bytes`, `summary`, `ruleset`. In a child of its own."""
    try:
        with ctx.sandbox.open(read=[path], scratch=ctx.scratch, limits=Limits()) as child:
            answer = child.call(
                "pipeline.readers:examine",
                path=str(path),
                filename=name,
                unpack_to=None if unpack_to is None else str(unpack_to),
            )
        if well_formed(answer):
            return dict(answer)
        code, reason = "answer_invalid", "its answer makes no sense, so the file may have taken it over."
    except Rejected as stop:
        code, reason = stop.code, stop.message
    silent = finding(
        f"reader.{code}",
        "unknown",
        name,
        f"The reader did not survive the file: {reason[:_LONGEST_TEXT]}",
        "Export the model again with a current version of its framework, or have a reviewer look at the file.",
    )
    return {"verdict": "unknown", "findings": [silent], "stops": stops_of([silent]), **_NOTHING}


def opinion(ctx: Context, function: str, name: str, path: Path) -> list[dict[str, Any]]:
    """What a second opinion (`package.module:function`) adds about one file: findings, and nothing else.

    The function gets `path` and `filename` and returns a list of `{severity, message}`; rule and advice are ours.
    """
    rule = f"opinion.{opinion_name(function)}"
    try:
        with ctx.sandbox.open(read=[path], scratch=ctx.scratch, limits=Limits()) as child:
            answer = child.call(function, path=str(path), filename=name)
        if isinstance(answer, list) and len(answer) <= _MOST_FINDINGS and all(map(_is_opinion, answer)):
            advice = "A second scanner thinks so; look at the file yourself."
            return [finding(rule, each["severity"], name, each["message"], advice) for each in answer]
        reason = "its answer makes no sense."
    except Rejected as stop:
        reason = stop.message
    except ChildFailed as fault:
        reason = str(fault).strip().splitlines()[-1]
    advice = "Ask without this second opinion, or have a reviewer look at the file."
    return [finding(rule, "unknown", name, f"The second opinion did not survive the file: {reason[:500]}", advice)]


def opinion_name(function: str) -> str:
    """`pipeline.opinions.picklescan:examine` is called `picklescan`."""
    return function.partition(":")[0].rpartition(".")[2]


def finding(rule: str, severity: str, path: str, message: str, advice: str) -> dict[str, Any]:
    return {"rule": rule, "severity": severity, "path": path, "offset": None, "message": message, "advice": advice}


def stops_of(findings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The rules among these findings that keep a file from passing, each with the worst severity that it was given."""
    stops: dict[str, str] = {}
    for each in findings:
        if each["severity"] in ("unknown", "malicious"):
            stops[each["rule"]] = max(stops.get(each["rule"], "clean"), each["severity"], key=VERDICTS.index)
    return stops


def well_formed(answer: Any) -> bool:
    """Whether an answer has exactly the shape that `pipeline.readers.examine` promises, and agrees with itself."""
    return (
        isinstance(answer, dict)
        and answer.get("verdict") in VERDICTS
        and _is_text(answer.get("ruleset"))
        and isinstance(answer.get("bytes"), dict)
        and all(_is_text(key) and type(count) is int and count >= 0 for key, count in answer["bytes"].items())
        and isinstance(answer.get("findings"), list)
        and len(answer["findings"]) <= _MOST_FINDINGS
        and all(_is_finding(each) for each in answer["findings"])
        and _stops_agree(answer.get("stops"), answer)
        and _is_summary(answer.get("summary"))
    )


def _stops_agree(stops: Any, answer: Mapping[str, Any]) -> bool:
    """Every rule that stops the file is named, and the verdict is the worst of them."""
    return (
        isinstance(stops, dict)
        and len(stops) <= _MOST_RULES
        and all(_is_text(rule) and severity in ("unknown", "malicious") for rule, severity in stops.items())
        and max(("clean", *stops.values()), key=VERDICTS.index) == answer["verdict"]
        and all(
            VERDICTS.index(severity) <= VERDICTS.index(stops.get(rule, "clean"))
            for rule, severity in stops_of(answer["findings"]).items()
        )
    )


def _is_summary(summary: Any) -> bool:
    shapes = {"names": {"reader", "name", "path"}, "parts": {"path", "reader"}}
    return (
        isinstance(summary, dict)
        and set(summary) == set(shapes)
        and all(isinstance(summary[kind], list) and len(summary[kind]) <= _MOST_RULES for kind in shapes)
        and all(
            isinstance(each, dict) and set(each) == keys and all(map(_is_text, each.values()))
            for kind, keys in shapes.items()
            for each in summary[kind]
        )
    )


def _is_finding(each: Any) -> bool:
    return (
        isinstance(each, dict)
        and set(each) == {"rule", "severity", "path", "offset", "message", "advice"}
        and each["severity"] in SEVERITIES
        and (each["offset"] is None or type(each["offset"]) is int)
        and all(_is_text(each[name]) for name in ("rule", "path", "message", "advice"))
    )


def _is_opinion(each: Any) -> bool:
    return (
        isinstance(each, dict)
        and set(each) == {"severity", "message"}
        and each["severity"] in SEVERITIES
        and _is_text(each["message"])
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and value.isprintable()
