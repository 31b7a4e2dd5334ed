"""What picklescan thinks of a file. Install `picklescan` beside the workers; tried with 1.0.5."""

from __future__ import annotations

from typing import Any

NEEDS = ("picklescan",)


def examine(path: str, filename: str) -> list[dict[str, Any]]:
    """Its dangerous globals are `unknown` to us, its suspicious ones (all that are not on its list) worth a look."""
    from picklescan.scanner import SafetyLevel, scan_file_path

    result = scan_file_path(path)
    severities = {SafetyLevel.Dangerous: "unknown", SafetyLevel.Suspicious: "warning"}
    found = sorted({(severities.get(each.safety), each.module, each.name) for each in result.globals}, key=str)
    findings = [
        {"severity": severity, "message": f"picklescan minds the global {module}.{name} in {filename}."[:500]}
        for severity, module, name in found
        if severity is not None
    ]
    if result.infected_files and not any(each["severity"] == "unknown" for each in findings):
        findings.append({"severity": "unknown", "message": f"picklescan calls {filename} infected."})
    if result.scan_err:  # it takes everything for a pickle; our readers have said what the file is
        findings.append({"severity": "info", "message": f"picklescan could not read all of {filename}."})
    return findings[:100]
