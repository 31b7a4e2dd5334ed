"""The whole suite of escapes again where less is allowed to us: as nobody, and under a container's default rules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.container_rules import DEFAULT_CAPABILITIES
from tests.integration.test_sandbox import PREFIXES, ROOT, uncovering

HONEST_WORK = "zygote_has_one_thread or models_are_exported"
"""Tests that import torch: seconds each."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """`identity` are options of setpriv(1); `layers` are what must hold there."""

    identity: tuple[str, ...]
    container: bool
    layers: frozenset[str]
    chosen: str = ""


def bounded_to(*capabilities: str) -> str:
    return "--bounding-set=" + ",".join(["-all", *(f"+{name}" for name in capabilities)])


ALWAYS = frozenset({"capabilities", "landlock", "rlimits", "seccomp"})
NO_CAPABILITY = ("--clear-groups", bounded_to(), "--inh-caps=-all")
SITUATIONS = {
    "nobody": Situation(
        identity=("--reuid=65534", "--regid=65534", *NO_CAPABILITY), container=False, layers=ALWAYS | {"namespaces"}
    ),
    "root under a container's default rules": Situation(
        identity=(bounded_to(*DEFAULT_CAPABILITIES), "--no-new-privs"), container=True, layers=ALWAYS | {"uid"}
    ),
    "our compose file: uid 10001, no capability, a container's default rules": Situation(
        identity=("--reuid=10001", "--regid=10001", *NO_CAPABILITY, "--no-new-privs"),
        container=True,
        layers=ALWAYS,
        chosen=f"not ({HONEST_WORK})",
    ),
}

everywhere = pytest.mark.parametrize("name", SITUATIONS)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@everywhere
def test_every_escape_is_refused_and_honest_work_is_done(name: str) -> None:
    suite = str(Path(__file__).with_name("test_sandbox.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", SITUATIONS[name].chosen, suite]
    done = run_in(SITUATIONS[name], command)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@everywhere
def test_the_layers_are_those_that_the_security_model_names(name: str) -> None:
    """Without the rules of a container namespaces work, under them they do not: so the rules are really there."""
    program = (
        "import json, tempfile; from pathlib import Path; from pipeline.sandbox import Zygote, supported\n"
        "folder = Path(tempfile.mkdtemp()); folder.chmod(0o711); scratch = folder / 'scratch'; scratch.mkdir()\n"
        f"zygote = Zygote(preload=(), prefixes={PREFIXES!r})\n"
        "with zygote.open(read=[], scratch=scratch) as child:\n"
        "    print(json.dumps([child.layers, supported().namespaces, supported().refused]))\n"
        "zygote.close(); scratch.rmdir(); folder.rmdir()\n"
    )
    done = run_in(SITUATIONS[name], [sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr
    layers, namespaces, refused = json.loads(done.stdout)
    assert set(layers) == SITUATIONS[name].layers
    assert (namespaces, refused) == (not SITUATIONS[name].container, None)


def run_in(situation: Situation, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the command there; where our files lie in private folders of root, inside a mount namespace in which those
    folders are searchable.
    """
    for tool in ("unshare", "setpriv", "findmnt"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    lines = uncovering()
    if situation.container:  # engines mount the container's own group read-only
        lines.append("for each in $(findmnt -nro TARGET -t cgroup,cgroup2); do mount -o remount,bind,ro $each; done")
    script = "\n".join(["set -e", *lines, f'exec setpriv {" ".join(situation.identity)} "$@"'])
    if situation.container:
        command = [sys.executable, "-m", "tests.integration.container_rules", *command]
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command],
        cwd=ROOT,
        env={"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
