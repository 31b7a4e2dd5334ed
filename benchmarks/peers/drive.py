"""Run by a peer's own interpreter: a JSON list of paths comes in, its version and what it stops go out.

Every file is scanned by a forked child, so that one that crashes or hangs its scanner costs that file alone.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import select
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SECONDS = 60.0


def picklescan() -> Callable[[str], bool]:
    scanner = importlib.import_module("picklescan.scanner")

    def stops(path: str) -> bool:
        result = scanner.scan_file_path(path, strict=True)
        return bool(result.issues_count or result.scan_err or result.suspicious_count)

    return stops


def modelscan() -> Callable[[str], bool]:
    kind = importlib.import_module("modelscan.modelscan").ModelScan

    def stops(path: str) -> bool:
        scan = kind()
        scan.scan(path)
        return bool(scan.issues.all_issues or scan.errors or scan.skipped)

    return stops


def fickling() -> Callable[[str], bool]:
    library = importlib.import_module("fickling")
    zipfile = importlib.import_module("zipfile")

    def stops(path: str) -> bool:
        if zipfile.is_zipfile(path):
            found = library.scan_zip_archive(path, graceful=True)
            return not found or not all(found.values())
        return not library.scan_file(path, graceful=True)

    return stops


def modelaudit() -> Callable[[str], bool]:
    command = importlib.import_module("modelaudit.cli").cli

    def stops(path: str) -> bool:
        try:
            command(["scan", "--strict", "--format", "json", path])
        except SystemExit as ended:
            return ended.code not in (0, None)
        return False

    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "x.pkl"
        first.write_bytes(b"N.")
        stops(str(first))  # it imports most of itself at the first scan; forked children have that then
    return stops


def main() -> None:
    name = sys.argv[1]
    paths = json.load(sys.stdin)
    answers, sys.stdout = sys.stdout, sys.stderr  # scanners print
    stops = {"picklescan": picklescan, "modelscan": modelscan, "fickling": fickling, "modelaudit": modelaudit}[name]()
    stopped = {path: _in_a_child(stops, path) for path in paths}
    json.dump({"version": importlib.metadata.version(name), "stopped": stopped}, answers)


def _in_a_child(stops: Callable[[str], bool], path: str) -> bool:
    """Whatever fails or takes too long is counted in the scanner's favour: it stopped the file."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(Path(path).parent)
        try:
            os.write(writing, b"1" if stops(path) else b"0")
        finally:
            os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], SECONDS)
    answer = os.read(reading, 1) if ready else b""
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return answer != b"0"


if __name__ == "__main__":
    main()
