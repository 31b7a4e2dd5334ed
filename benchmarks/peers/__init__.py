"""Other people's scanners, each at its strictest, for comparison. They are optional: `installed` says which are there.

They live in an environment of their own, named by `SCANNER_VENV`, or on the PATH; our process never imports them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

NAMES = ("picklescan", "modelscan", "fickling", "modelaudit")
MISSING = "not installed; SCANNER_VENV names the virtual environment that has it"


def program(name: str) -> Path | None:
    """The program a scanner installs, in `SCANNER_VENV` or on the PATH."""
    folder = os.environ.get("SCANNER_VENV")
    found = shutil.which(name, path=str(Path(folder, "bin")) if folder else None)
    return Path(found) if found else None


def verdicts(name: str, paths: Iterable[Path]) -> tuple[str, dict[str, bool]]:
    """The scanner's version and whether it stops each file: it complains, fails, or says that it cannot read it."""
    found = program(name)
    if found is None:
        raise LookupError(f"{name} is {MISSING}")
    interpreter = found.read_bytes().splitlines()[0].removeprefix(b"#!").decode().strip()
    done = subprocess.run(
        [interpreter, "-W", "ignore", str(Path(__file__).with_name("drive.py")), name],
        input=json.dumps([str(path) for path in paths]),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        env=os.environ | {"PROMPTFOO_DISABLE_TELEMETRY": "1"},
    )
    answer = json.loads(done.stdout)
    return answer["version"], answer["stopped"]
