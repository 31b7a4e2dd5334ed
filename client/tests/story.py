"""How runs go: the plan, the moves a run makes, and the reports its stages leave, as the contract writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

STAGES = ("scan", "validate", "convert", "optimize", "benchmark", "promote")
BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def now() -> str:
    """Return the time as the server writes it."""
    return datetime.now(UTC).isoformat()


def verification(flips: int = 0, *, verified: bool = True) -> dict[str, Any]:
    """Return what a verification reports."""
    decisions = {"compared": 2048, "agreed": 2048 - flips, "ties": 0, "flips": flips}
    output = {"name": "probabilities", "max_abs": 3.1e-7, "max_rel": 1e-5, "decisions": decisions, "nan": False}
    return {"verified": verified, "samples": 2048, "outputs": [output], "reason": None}


REPORTS: dict[str, dict[str, Any]] = {
    "scan": {"verdict": "clean", "findings": [], "antivirus": {"engine": "ClamAV 1.4", "complete": True}},
    "validate": {
        "format": "onnx",
        "inputs": [{"name": "image", "dtype": "float32", "shape": [None, 1, 8, 8]}],
        "outputs": [{"name": "probabilities", "dtype": "float32", "shape": [None, 10]}],
        "parameters": 38282,
        "opset": 18,
        "warnings": ["No classes were given."],
        "servable": True,
    },
    "convert": {"exporter": "dynamo", "tried": [{"exporter": "dynamo", "ok": True}], "verification": verification()},
    "optimize": {
        "variants": [
            {"name": "onnx-fp32-optimized", "withheld": False, "size": 151000, "verification": verification()},
            {
                "name": "onnx-int8-dynamic",
                "withheld": True,
                "reason": "12 of 2048 decisions flip, 2 are allowed",
                "size": 41000,
                "verification": verification(12, verified=False),
            },
        ]
    },
    "benchmark": {
        "device": {"cpu": "AMD EPYC 7B13", "cores": 2, "threads": 2},
        "rows": [
            {"name": "source", "role": "source", "size": 160012, "p50_ms": 0.412, "speedup": 1.0, "verdict": "same"},
            {
                "name": "onnx-fp32",
                "role": "canonical",
                "p50_ms": 0.2243,
                "speedup": 1.84,
                "speedup_ci": [1.79, 1.9],
                "verdict": "faster",
            },
            {
                "name": "onnx-fp32-optimized",
                "role": "variant",
                "p50_ms": 0.181,
                "speedup": 2.28,
                "speedup_ci": [2.2, 2.35],
                "verdict": "faster",
            },
        ],
    },
    "promote": {
        "published": [
            {"name": "onnx-fp32", "role": "canonical", "sha256": "ab" * 32, "size": 153900},
            {"name": "onnx-fp32-optimized", "role": "variant", "sha256": "ef" * 32, "size": 151000},
            {"name": "manifest", "role": "manifest", "sha256": "01" * 32, "size": 2000},
        ],
        "gates": [
            {"gate": "scan_clean", "passed": True, "reason": ""},
            {"gate": "verified", "passed": True, "reason": ""},
        ],
    },
}
FINDING = {
    "rule": "pickle.global",
    "severity": "malicious",
    "path": "archive/data\x1b[2J.pkl",
    "offset": 34,
    "message": "The pickle calls os.system when it is loaded.",
    "advice": "Save the model as safetensors or ONNX.",
}


def new_run(run_id: str, model_name: str, version_name: str) -> dict[str, Any]:
    """Return a run that was just submitted."""
    steps = [{"stage": stage, "queue": "cpu", "status": "pending", "attempt": 0, "max_attempts": 3} for stage in STAGES]
    times = {"created_at": BEGIN.isoformat(), "updated_at": BEGIN.isoformat(), "finished_at": None}
    return (
        {"id": run_id, "status": "queued", "stage": "scan", "model": model_name, "version": version_name}
        | times
        | {"steps": steps}
    )


def apply(run: dict[str, Any], events: list[dict[str, Any]], move: dict[str, Any]) -> None:
    """Make one move: change the run and say so."""
    at = (BEGIN + timedelta(seconds=len(events) * 0.4)).isoformat()
    step = next((item for item in run["steps"] if item["stage"] == move.get("stage")), None)
    if step is not None:
        step |= move.get("step", {})
        if step["status"] == "running":
            step["started_at"] = at
        elif step.get("started_at"):
            step["finished_at"] = at
    run |= move.get("run", {}) | {"updated_at": at}
    terminal = run["status"] in {"succeeded", "rejected", "failed", "cancelled"}
    said = {key: move.get(key) for key in ("stage", "attempt", "code", "detail")}
    event = {"run": run["id"], "seq": len(events), "kind": move["kind"], "status": run["status"], "at": at} | said
    events.append(event | ({"terminal": True} if terminal else {}))


def _claimed(stage: str, attempt: int = 1) -> dict[str, Any]:
    step = {"status": "running", "attempt": attempt}
    return {
        "kind": "claimed",
        "stage": stage,
        "attempt": attempt,
        "step": step,
        "run": {"status": "running", "stage": stage},
    }


def _passed(stage: str, attempt: int = 1) -> dict[str, Any]:
    step = {"status": "passed", "report": REPORTS[stage]}
    return {"kind": "passed", "stage": stage, "attempt": attempt, "step": step, "pause": 2.0}


def succeeded() -> list[dict[str, Any]]:
    """A run that gets there, with one stage that breaks once on the way."""
    moves: list[dict[str, Any]] = [{"kind": "submitted"}]
    for stage in STAGES:
        moves.append(_claimed(stage))
        if stage == "validate":
            broke = {"code": "worker_lost", "detail": "The worker fell silent."}
            moves.append(
                {"kind": "broke", "stage": stage, "attempt": 1, "step": {"status": "queued", **broke}, **broke}
            )
            moves.append(_claimed(stage, 2))
            moves[-1]["step"] |= {"code": None, "detail": None}
        moves.append(_passed(stage, 2 if stage == "validate" else 1))
    moves[-1]["run"] = {"status": "succeeded", "finished_at": BEGIN.isoformat()}
    moves[-1]["kind"] = "passed"
    return moves


def rejected() -> list[dict[str, Any]]:
    """A run whose scan says no."""
    why = {"code": "malicious_pickle", "detail": "The file runs code when it is loaded."}
    report = {"verdict": "malicious", "findings": [FINDING], "antivirus": None}
    skipped = [{"kind": "skipped", "stage": stage, "step": {"status": "skipped"}} for stage in STAGES[1:]]
    return [
        {"kind": "submitted"},
        _claimed("scan"),
        *[move | {"pause": 0.0} for move in skipped],
        {
            "kind": "refused",
            "stage": "scan",
            "attempt": 1,
            "step": {"status": "refused", "report": report, **why},
            "run": {"status": "rejected", **why},
            **why,
        },
    ]


def failed() -> list[dict[str, Any]]:
    """A run that our side breaks."""
    why = {"code": "storage_full", "detail": "The bucket takes nothing more."}
    return [
        {"kind": "submitted"},
        _claimed("scan"),
        {
            "kind": "broke",
            "stage": "scan",
            "attempt": 3,
            "step": {"status": "broke", **why},
            "run": {"status": "failed", **why},
            **why,
        },
    ]


def model() -> dict[str, Any]:
    """Return a model."""
    return {
        "id": "m1",
        "name": "digits",
        "owner": "ada",
        "description": "Reads digits.",
        "model_type": "classification",
        "framework": "pytorch",
        "tags": ["demo", "[bold]not markup[/bold]"],
        "visibility": "private",
        "created_at": BEGIN.isoformat(),
        "latest": {"version": "1.0.0"},
        "from_the_future": {"ignored": True},
    }


def version(name: str) -> dict[str, Any]:
    """Return a version."""
    artifacts = [{**item, "media_type": "application/onnx", "meta": {}} for item in REPORTS["promote"]["published"]]
    return {
        "id": "v1",
        "model": name,
        "version": "1.0.0",
        "ordinal": 1,
        "format": "onnx",
        "framework": "pytorch",
        "servable": True,
        "verdict": "clean",
        "status": "approved",
        "published_at": BEGIN.isoformat(),
        "sha256": "cd" * 32,
        "size": 160012,
        "filename": "digits.onnx",
        "run": "r1",
        "artifacts": artifacts,
    }
