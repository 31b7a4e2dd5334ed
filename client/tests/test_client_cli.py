"""The command line: what goes to which stream, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import slipway as client_package
import story
from commands import slipway
from conditions import RUN, Harbour
from rich.console import Console
from slipway import Run
from slipway.cli.timeline import Picture

WEIGHTS = bytes(range(251)) * 400
BEST = "onnx-fp32-optimized"

pytestmark = pytest.mark.usefixtures("signed_in")


def background(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "slipway", *map(str, arguments)]
    found = os.environ | {"PYTHONPATH": str(Path(client_package.__file__).parents[1])}
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # where a shell ignores it for us, children would too
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=found)
    finally:
        signal.signal(signal.SIGINT, before)


COMMANDS = [
    *("login", "push", "runs", "watch", "logs", "cancel", "retry", "models", "show", "pull", "doctor"),
    *("compare", "promote", "rollback", "activate", "status", "note", "alias", "metrics"),
    *("deploy", "deployments", "undeploy", "gates", "why-not", "approve", "signatures"),
    *("lineage", "score"),
    *("get", "usage", "export", "export-triton", "export-kserve", "import", "verify"),
    *("predict", "snippet", "endpoint"),
    *("model", "rate"),
]


@pytest.mark.parametrize("command", [[], ["keys"], ["parent"], ["licence"], *([name] for name in COMMANDS)])
def test_every_help_ends_with_examples(command: list[str]) -> None:
    shown = slipway(*command, "--help")
    assert shown.exit_code == 0
    examples = shown.stdout.partition("Examples")[2]
    assert f"$ slipway {' '.join(command)}".rstrip() in examples


def test_a_push_that_is_watched_ends_with_what_was_promoted(model_file: Path) -> None:
    done = slipway("push", model_file, "--name", "digits", "--watch")
    assert done.exit_code == 0
    assert "digits@1.0.0 was promoted." in done.stdout
    assert re.search(
        r"onnx-fp32-optimized +151 kB +0.181 ms +2.28× \(2.20–2.35\) +100 % of 2048 +3e-07 +faster", done.stdout
    )
    assert "withheld: onnx-int8-dynamic – 12 of 2048 decisions flip, 2 are allowed" in done.stdout
    assert "hashing" not in done.stdout
    lines = done.stderr.splitlines()
    phases = [line.split()[0] for line in lines[:4]]
    assert phases == ["hashing", "uploading", "finishing", "queued"]
    assert "convert passed in 0.4 s: exporter dynamo, max error 3e-07, 0 flips" in done.stderr
    assert "validate broke: worker_lost: The worker fell silent." in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_push_prints_its_run_and_how_to_watch_it(model_file: Path) -> None:
    done = slipway("push", model_file, "--name", "digits")
    assert (done.exit_code, RUN in done.stdout) == (0, True)
    assert f"slipway watch {RUN}" in done.stderr


def test_a_quiet_push_prints_the_run_and_nothing_else(model_file: Path) -> None:
    done = slipway("push", model_file, "-n", "digits", "-q")
    assert (done.stdout, done.stderr) == (f"{RUN}\n", "")


def test_the_options_of_a_push_reach_the_server(server: Harbour, model_file: Path, tmp_path: Path) -> None:
    side = tmp_path / "c.yaml"
    side.write_text("a: 1", encoding="utf-8")
    done = slipway(
        *("push", model_file, "-n", "digits", "--bump", "minor", "--type", "classification", "--framework", "pytorch"),
        *("--input-shape", "-1,1,8,8", "--classes", "0,1", "--config", side, "--tag", "a", "--tag", "b"),
        *("--description", "Reads digits.", "--licence", "MIT"),
    )
    assert done.exit_code == 0, done.stderr
    assert server.upload["fields"] == {
        "name": "digits",
        "bump": "minor",
        "model_type": "classification",
        "framework": "pytorch",
        "input_shape": "[-1, 1, 8, 8]",
        "classes": '["0", "1"]',
        "tags": '["a", "b"]',
        "description": "Reads digits.",
        "licence": "MIT",
    }
    assert server.upload["files"]["config_file"] == ("c.yaml", b"a: 1")


def test_a_rejected_run_shows_its_findings_and_exits_3(server: Harbour, model_file: Path) -> None:
    server.moves = story.rejected()
    done = slipway("push", model_file, "-n", "digits", "-w")
    assert (done.exit_code, done.stdout) == (3, "")
    for part in (
        "rejected in scan: malicious_pickle",
        "The file runs code when it is loaded.",
        "The pickle calls os.system when it is loaded.",
        "archive/data\\x1b[2J.pkl:34",
        "Save the model as safetensors or ONNX.",
        f"slipway logs {RUN} scan",
        "The model's",
    ):
        assert part in done.stderr, part
    assert "\x1b[2J" not in done.stderr


def test_closed_gates_are_named(server: Harbour, model_file: Path) -> None:
    gate = {"gate": "benchmark_present", "passed": False, "reason": "There is no benchmark."}
    why = {"code": "gate_failed", "detail": "A gate stayed closed."}
    step = {"status": "refused", "report": {"gates": [gate]}, **why}
    last = {
        "kind": "refused",
        "stage": "promote",
        "attempt": 1,
        "step": step,
        "run": {"status": "rejected", "stage": "promote", **why},
    }
    server.moves = [*story.succeeded()[:-1], last]
    done = slipway("push", model_file, "-n", "digits", "-w", "-q")
    assert done.exit_code == 3
    assert "benchmark_present: There is no benchmark." in done.stderr


def test_a_failed_run_exits_1_and_offers_a_retry(server: Harbour, model_file: Path) -> None:
    server.moves = story.failed()
    done = slipway("push", model_file, "-n", "digits", "-w")
    assert done.exit_code == 1
    assert f"slipway retry {RUN}" in done.stderr
    assert "not the model's" in done.stderr


def _refusal(status: int, code: str) -> dict[str, Any]:
    return {
        "status": status,
        "code": code,
        "detail": "No.",
        "details": [{"field": "version", "message": "is no SemVer"}],
    }


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(400, 2), (422, 2), (413, 2), (401, 4), (403, 4), (404, 5), (409, 6), (423, 3), (429, 7), (500, 8), (503, 8)],
)
def test_every_refusal_has_its_exit_code(server: Harbour, model_file: Path, status: int, exit_code: int) -> None:
    server.refuse_upload = _refusal(status, "some_code")
    done = slipway("push", model_file, "-n", "digits")
    assert done.exit_code == exit_code
    for part in ("some_code", "version: is no SemVer", "whose", "trace-1"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_usage_errors_exit_2(model_file: Path, tmp_path: Path) -> None:
    assert slipway("push", tmp_path / "nothing.onnx", "-n", "digits").exit_code == 2
    assert slipway("push", model_file).exit_code == 2
    assert slipway("push", model_file, "-n", "d", "--bump", "huge").exit_code == 2
    assert slipway("push", model_file, "-n", "d", "--timeout", "5").exit_code == 2
    assert slipway("show", "digits@Newest").exit_code == 2


def test_a_json_push_is_one_document_with_the_run(model_file: Path) -> None:
    done = slipway("push", model_file, "-n", "digits", "-w", "--json")
    said = json.loads(done.stdout)
    assert (said["upload"]["version"], said["run"]["status"]) == ("1.0.0", "succeeded")


def test_a_json_watch_is_one_line_per_event(server: Harbour) -> None:
    server.launch({"name": "digits", "version": "1.0.0"})
    done = slipway("watch", RUN, "--json")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["seq"] for event in said] == list(range(len(said)))
    assert (said[-1]["terminal"], done.stderr) == (True, "")


def test_a_json_error_is_one_document_on_stderr() -> None:
    done = slipway("runs", "nothing", "--json")
    assert (done.exit_code, done.stdout) == (5, "")
    assert json.loads(done.stderr)["error"]["code"] == "not_found"


def test_a_timeout_exits_124_and_says_how_to_come_back(server: Harbour, model_file: Path) -> None:
    server.pace = 5.0
    done = slipway("push", model_file, "-n", "digits", "-w", "--timeout", "0.3")
    assert done.exit_code == 124
    assert f"slipway watch {RUN}" in done.stderr


def test_ctrl_c_exits_130_and_says_that_the_run_goes_on(server: Harbour) -> None:
    server.pace = 5.0
    server.launch({"name": "digits", "version": "1.0.0"})
    process = background("watch", RUN)
    deadline = time.monotonic() + 20
    while not any(path.endswith("/events") for path in server.paths()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert f"The run goes on. Watch it again: slipway watch {RUN}" in err
    assert "Traceback" not in err


def test_a_reader_that_leaves_early_is_no_error(server: Harbour) -> None:
    for number in range(200):
        server.runs[f"r{number}"] = story.new_run(f"r{number}", "digits" * 40, f"1.{number}.0")
    process = background("runs", "--limit", "200")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(10), err) == (0, "")


def test_lists_and_records_are_shown(server: Harbour) -> None:
    server.launch({"name": "digits", "version": "1.0.0"})
    assert RUN in slipway("runs").stdout
    assert slipway("runs", "-q").stdout == f"{RUN}\n"
    assert "2.28×" in slipway("runs", RUN).stdout
    assert "demo, [bold]not markup[/bold]" in slipway("models").stdout
    assert json.loads(slipway("models", "--json").stdout)["items"][0]["from_the_future"] == {"ignored": True}
    assert "1.0.0" in slipway("show", "digits").stdout
    assert "ab" * 32 in slipway("show", "digits@1").stdout
    assert slipway("show", "cats").exit_code == 5


def test_logs_are_shown_per_stage_and_cannot_drive_the_terminal(server: Harbour) -> None:
    server.launch({"name": "digits", "version": "1.0.0"})
    everything = slipway("logs", RUN).stdout
    assert everything.startswith("scan      2026-01-02T03:04:05Z scan of 0198 attempt all\n")
    assert len(everything.splitlines()) == 2 * len(story.STAGES)
    assert slipway("logs", RUN, "convert", "--attempt", "1").stdout.endswith("\\x1b[31mred\n")


def test_cancel_and_retry_say_how_to_go_on(server: Harbour) -> None:
    server.launch({"name": "digits", "version": "1.0.0"})
    assert slipway("cancel", RUN).exit_code == 6
    server.runs[RUN]["status"] = "running"
    assert f"slipway retry {RUN}" in slipway("cancel", RUN).stderr
    assert f"slipway watch {RUN}" in slipway("retry", RUN, "--from", "convert").stderr
    assert server.runs[RUN]["asked"] == {"from": "convert"}


def test_a_variant_is_added_and_pinned_by_name(server: Harbour) -> None:
    server.launch({"name": "digits", "version": "1.0.0"})
    added = slipway("variant", "add", "digits@1.0.0", "onnx-int8-dynamic")
    assert (added.exit_code, server.runs[RUN]["asked"]) == (0, {"variants": ["onnx-int8-dynamic"]})
    assert f"slipway watch {RUN}" in added.stderr
    stayed = slipway("variant", "add", "digits@1.0.0", "onnx-int8-dynamic", "--watch")
    assert "has new variants" in stayed.stdout
    pinned = slipway("variant", "pin", "digits@1.0.0", "onnx-fp32")
    assert server.pins == {"cpu": "onnx-fp32"}
    assert "onnx-fp32 on cpu" in pinned.stdout
    assert slipway("variant", "unpin", "digits@1.0.0", "-q").stdout == "onnx-int8\n"
    assert server.pins == {}


def test_a_rebuild_exits_by_whether_the_bytes_are_the_same(server: Harbour) -> None:
    server.launch({"name": "digits", "version": "1.0.0"})
    assert slipway("rebuild", "digits@1.0.0", "-q").stdout == f"{RUN}\n"
    same = slipway("rebuild", "digits@1.0.0", "--watch")
    assert (same.exit_code, "1 artifact with the same bytes" in same.stdout) == (0, True), same.stdout
    server.rebuilt = "bb"
    server.launch({"name": "digits", "version": "1.0.0"})
    other = slipway("rebuild", "digits@1.0.0", "--watch")
    assert (other.exit_code, "differs: onnx-fp32" in other.stdout) == (1, True), other.stdout


def test_a_run_that_waits_for_a_worker_says_so(server: Harbour) -> None:
    server.launch({"name": "digits", "version": "1.0.0"})
    server.runs[RUN] |= {"status": "queued", "waiting": "waiting for a gpu worker (none online)"}
    assert "waiting for a gpu worker (none online)" in slipway("runs", RUN).stdout


def test_a_pull_prints_where_the_bytes_are(server: Harbour, tmp_path: Path) -> None:
    server.bytes_by_artifact[BEST] = WEIGHTS
    target = tmp_path / "m.onnx"
    assert slipway("pull", "digits@1.0.0", "-o", target, "-q").stdout == f"{target}\n"
    assert target.read_bytes() == WEIGHTS


def test_a_pull_does_not_cost_somebody_a_file(server: Harbour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.bytes_by_artifact[BEST] = WEIGHTS
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / f"{BEST}.onnx"
    mine.write_bytes(b"mine")
    refused = slipway("pull", "digits")
    assert (refused.exit_code, mine.read_bytes()) == (6, b"mine")
    assert "--force" in refused.stderr
    assert slipway("pull", "digits", "--force").exit_code == 0
    assert mine.read_bytes() == WEIGHTS
    assert slipway("pull", "digits").exit_code == 0, "the same bytes are no conflict"


def test_a_folder_that_cannot_be_written_is_this_computers_fault(server: Harbour) -> None:
    server.bytes_by_artifact[BEST] = WEIGHTS
    done = slipway("pull", "digits", "-o", "/proc/nothing/m.onnx")
    assert done.exit_code == 1
    assert "This computer's." in done.stderr


# The live picture


def test_the_live_picture_shows_every_stage_with_its_line() -> None:
    run: dict[str, Any] = story.new_run(RUN, "digits", "1.0.0")
    events: list[dict[str, Any]] = []
    for move in story.succeeded()[:8]:
        story.apply(run, events, move)
    picture = Picture()
    picture.see(Run.read(run))
    console = Console(width=100, record=True, file=Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        console.print(picture.draw())
    shown = console.export_text()
    assert re.search(r"✓ scan +passed +0.4 s clean, no findings, antivirus ClamAV 1.4", shown)
    assert re.search(r"✓ validate +passed \(2/3\)", shown)
    assert re.search(r". convert +running +0.\d s", shown)
    assert re.search(r"· promote +pending", shown)
