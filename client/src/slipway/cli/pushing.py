"""`slipway push`: from a file to a run, and with `--watch` to the end of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.progress import BarColumn, DownloadColumn, Task, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from slipway.cli import wording
from slipway.cli.running import conclude, watched
from slipway.cli.screen import Json, Quiet, Screen, plain, session, text, usage
from slipway.upload import Progress

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="The model file.", exists=True, dir_okay=False, readable=True)
]


def _side(text: str) -> Any:
    return typer.Option(help=text, exists=True, dir_okay=False, readable=True)


def push(  # noqa: PLR0917 - one parameter per option
    file: File,
    name: Annotated[str, typer.Option("--name", "-n", help="The model's name; OWNER/NAME for somebody else's.")],
    version: Annotated[str | None, typer.Option(help="SemVer, e.g. 1.2.0. Default: the next minor version.")] = None,
    bump: Annotated[str | None, typer.Option(help="Which number goes up: patch, minor or major.")] = None,
    model_type: Annotated[str | None, typer.Option("--type", help="What it does, e.g. classification.")] = None,
    framework: Annotated[str | None, typer.Option(help="What it was made with, e.g. pytorch.")] = None,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(help="Shape of the input, -1 for any: 1,1,8,8. Repeat for several: image=1,3,224,224."),
    ] = None,
    output_shape: Annotated[list[str] | None, typer.Option(help="Shape of the output, as --input-shape.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="accuracy=0.95; also precision, recall, f1, mAP. May be repeated.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="The data that the metrics were measured on.")] = None,
    notes: Annotated[str | None, typer.Option(help="Release notes: what is new.")] = None,
    classes: Annotated[str | None, typer.Option(help="Class names: cat,dog – or @FILE with one per line.")] = None,
    config: Annotated[Path | None, _side("Configuration (.yaml .yml .json .txt).")] = None,
    requirements: Annotated[Path | None, _side("What its code needs (.txt .yaml .yml).")] = None,
    calibration: Annotated[Path | None, _side("Sample inputs (.npz).")] = None,
    card: Annotated[Path | None, _side("Model card (README.md).")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be repeated.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is, in a sentence.")] = None,
    licence: Annotated[str | None, typer.Option(help="SPDX expression, e.g. Apache-2.0.")] = None,
    parent: Annotated[
        str | None, typer.Option(help="The version here that it is derived from: [OWNER/]NAME@REF.")
    ] = None,
    model_url: Annotated[str | None, typer.Option(help="Address of the model that it is derived from.")] = None,
    dataset_url: Annotated[str | None, typer.Option(help="Address of the data it was trained on.")] = None,
    code_url: Annotated[str | None, typer.Option(help="Address of the code that it was made with.")] = None,
    confirm_name: Annotated[
        bool, typer.Option("--confirm-name", help="A new name is no mistake for the one that it is near.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay until the run is over.")] = False,
    timeout: Annotated[float | None, typer.Option(help="With --watch: stay at most that many seconds.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Upload a model file and start its run."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if version and bump:
            raise usage("--version and --bump say two different things.", "Give one of them.")
        if bump and bump not in {"patch", "minor", "major"}:
            raise usage(f"--bump {bump} is unknown.", "It is patch, minor or major.")
        if timeout is not None and (not watch or timeout <= 0):
            raise usage("--timeout is a positive number of seconds, together with --watch.", "Add --watch.")
        with Meter(screen, file) as meter:
            run = client.push(
                file,
                name,
                version=version,
                bump=bump,
                model_type=model_type,
                framework=framework,
                description=description,
                classes=class_names(classes),
                input_shape=shape(input_shape),
                output_shape=shape(output_shape, "--output-shape"),
                metrics=figures(metric or ()),
                benchmark_dataset=dataset,
                release_notes=notes,
                config=config,
                requirements=requirements,
                calibration=calibration,
                card=card,
                tags=tag or (),
                licence=licence,
                parent=parent,
                model_url=model_url,
                dataset_url=dataset_url,
                code_url=code_url,
                confirm_name=confirm_name,
                progress=meter.see,
            )
        screen.interrupted = f"The run goes on. Watch it: slipway watch {run.id}"
        answer = run.raw
        for warning in (answer.get("data") or {}).get("validation_warnings") or ():
            screen.say(text(f"warning: {warning}", "yellow"))
        if not watch:
            human = Text(plain(f"{run.model}@{run.version}"), style="bold").append(f"  run {run.id}  {run.status}")
            screen.result(answer, human, bare=run.id)
            screen.hint(f"Watch it: slipway watch {run.id}")
            return
        finished = watched(client, screen, run.id, timeout)
        if as_json:
            screen.document({"upload": answer.get("data"), "run": finished.raw})
        conclude(screen, finished)


def class_names(given: str | None) -> list[str] | None:
    """Read `--classes`: names between commas, or `@FILE` with one name per line."""
    if given is None:
        return None
    names = Path(given[1:]).read_text(encoding="utf-8").splitlines() if given.startswith("@") else given.split(",")
    return [name.strip() for name in names if name.strip()]


def figures(given: Sequence[str]) -> dict[str, float]:
    """Read `NAME=VALUE` each."""
    found: dict[str, float] = {}
    for item in given:
        name, _, value = item.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise usage(f"{item} is no metric.", "Write NAME=VALUE, such as accuracy=0.95.") from None
    return found


def shape(given: list[str] | None, option: str = "--input-shape") -> list[int] | dict[str, list[int]] | None:
    """Read `--input-shape` or `--output-shape`: one shape, or a name and a shape for each of several."""
    if not given:
        return None
    named: dict[str, list[int]] = {}
    for item in given:
        name, equals, sizes = item.rpartition("=")
        try:
            axes = [int(axis) for axis in sizes.replace("x", ",").split(",")]
        except ValueError:
            raise usage(f"{option} {item} is no shape.", "Write 1,1,8,8, or image=1,3,224,224; -1 for any.") from None
        if equals:
            named[name] = axes
        elif len(given) == 1:
            return axes
        else:
            raise usage(f"Several {option} need names.", f"Write {option} image=1,3,224,224 for each.")
    return named


class Speed(TransferSpeedColumn):
    """Bytes a second, or nothing where an upload was over before it had one."""

    def render(self, task: Task) -> Text:
        known = task.finished_speed or task.speed
        return super().render(task) if known else Text()


class Meter:
    """Shows how far an upload or a download is: bars on a terminal, one line per phase anywhere else."""

    def __init__(self, screen: Screen, file: Path) -> None:
        self._screen = screen
        self._file = file
        self._phase = ""
        self._bars: Bars | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._screen.lively and not self._screen.as_json:
            self._bars = Bars(
                TextColumn("{task.description:<11}"),
                BarColumn(bar_width=30),
                DownloadColumn(),
                Speed(),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self._screen.err,
            )
            self._bars.start()
        self._screen.interrupted = _left_behind("hashing")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def see(self, progress: Progress) -> None:
        """Take one report of progress."""
        if progress.phase != self._phase:
            self._begin(progress)
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=progress.done)

    def _begin(self, progress: Progress) -> None:
        self._phase = progress.phase
        self._screen.interrupted = _left_behind(progress.phase)
        if self._bars is None:
            if not self._screen.as_json:
                self._screen.say(text(f"{progress.phase} {self._file.name} ({wording.size(progress.total)})"))
        elif self._task is None:
            self._task = self._bars.add_task(progress.phase, total=progress.total)
        else:
            self._bars.update(self._task, description=progress.phase, total=progress.total, completed=progress.done)


def _left_behind(phase: str) -> str:
    match phase:
        case "hashing":
            return "Interrupted. Nothing was sent."
        case "uploading":
            return "Interrupted. The server keeps nothing of an upload that breaks off."
        case "finishing":
            return "Interrupted. The server had every byte: see whether it took them with slipway runs"
        case _:
            return "Interrupted. What came is kept: the same command continues where it stopped."
