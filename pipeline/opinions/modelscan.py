"""What modelscan thinks of a file. Install `modelscan` beside the workers; tried with 0.8.8."""

from __future__ import annotations

from typing import Any

NEEDS = ("modelscan",)

_SEVERITIES = {"CRITICAL": "unknown", "HIGH": "unknown", "MEDIUM": "unknown", "LOW": "warning"}


def examine(path: str, filename: str) -> list[dict[str, Any]]:
    """Its issues down to MEDIUM are `unknown` to us; what it could not read is only mentioned."""
    from modelscan.modelscan import ModelScan

    result = ModelScan().scan(path)
    findings = [
        {
            "severity": _SEVERITIES.get(issue["severity"], "unknown"),
            "message": f"modelscan in {filename}: {issue['description']}"[:500],
        }
        for issue in result["issues"]
    ]
    if result["errors"]:
        findings.append({"severity": "info", "message": f"modelscan could not read all of {filename}."})
    return findings[:100]
