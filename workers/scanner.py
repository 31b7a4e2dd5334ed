"""Lets the scan stage speak to clamd: the adapter's answers in the words the stage declares."""

from __future__ import annotations

from pathlib import Path

from pipeline.stage import AntivirusVerdict
from shared.antivirus import Clamd


class ClamdScanner:
    def __init__(self, clamd: Clamd) -> None:
        self._clamd = clamd

    def scan(self, path: Path) -> AntivirusVerdict:
        threat, complete, engine, windows = self._clamd.scan(path)
        return AntivirusVerdict(threat=threat, complete=complete, engine=engine, windows=windows)
