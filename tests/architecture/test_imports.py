"""What the import linter cannot see: what a fresh interpreter really loads, and who commits."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = {"celery", "kombu", "boto3", "botocore", "torch", "onnx", "onnxruntime", "onnxscript", "numpy", "sklearn"}
ROOMS = ("pipeline", "registry", "shared")
EDGES = ("api", "workers")


def loaded(statement: str) -> set[str]:
    """Top-level packages in memory after a statement in an interpreter of its own."""
    program = (
        f"import json, sys; {statement}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    found: set[str] = set(json.loads(done.stdout))
    return found


def test_the_api_is_light_and_importing_it_opens_nothing() -> None:
    """No engine, client or thread at import: `main` builds everything."""
    statement = "import threading, api.app, api.bootstrap, api.__main__; assert threading.active_count() == 1"
    found = loaded(statement)
    assert "fastapi" in found
    assert found & HEAVY == set()


def test_discovering_stages_and_formats_is_light() -> None:
    statement = "from pipeline import formats, stage; formats.discover(); stage.discover()"
    assert loaded(statement) & HEAVY == set()


def modules(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def test_every_room_is_light_at_import() -> None:
    heavy = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(*ROOMS)
        for node in ast.parse(path.read_text()).body
        for name in _imported(node)
        if name in HEAVY and not _runs_in_a_child(path)
    ]
    assert heavy == []


def test_nobody_but_the_edges_commits() -> None:
    commits = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules(*ROOMS, *EDGES)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit"
    ]
    assert commits == []  # not even the edges do: their transactions commit when the block ends


def _imported(node: ast.stmt) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name.split(".")[0] for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module.split(".")[0]]
        case _:
            return []


IN_CHILDREN = ["architectures", "checkpoints", "estimator_graphs", "estimators", "skeletons", "torch_models", "trial"]
"""Modules that only a sandbox child imports, by the address of one of their functions."""


def _runs_in_a_child(path: Path) -> bool:
    return path.parent.name == "pipeline" and path.stem in IN_CHILDREN
