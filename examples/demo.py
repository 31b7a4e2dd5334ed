"""The main job, end to end, on a running stack: train, push in three forms, watch, compare, pull, classify.

`make demo` starts the stack around it. Needs SLIPWAY_URL, SERVING_URL, FLOWER_URL and SLIPWAY_HOME, where the first admin's key lies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from slipway import Client, Run

from examples import digits

NAME = "digits"
FORMS = {"ONNX": "digits.onnx", "TorchScript": "digits.pt", "torch.export": "digits.pt2"}
SHADES = " .:-=+*#%@"

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)


def main() -> None:
    home = Path(os.environ["SLIPWAY_HOME"])
    os.environ["SLIPWAY_TOKEN"] = (home / "admin.key").read_text().strip()
    folder = home / "demo"
    console.rule("A model")
    train(folder)
    with Client() as client:
        runs = {form: push(client, form, folder / file) for form, file in FORMS.items()}
        console.rule("What was promoted")
        best = show_variants(client, runs, folder)
        console.rule("Use it")
        classify(client, best, folder)
        console.rule("Or ask its endpoint")
        ask(client, best, folder)
        console.rule("What is missing on this machine")
        show_missing(client)
    show_addresses()


def train(folder: Path) -> None:
    """Once; a second demo finds the files."""
    if not all((folder / file).exists() for file in FORMS.values()):
        console.print("Training a digit classifier on scikit-learn's bundled digits …")
        digits.write(folder)
    (folder / "pulled").mkdir(exist_ok=True)
    card = (folder / "digits.json").read_text()
    console.print(f"{', '.join(FORMS.values())} in {folder}\n{card.strip()}")


def push(client: Client, form: str, path: Path) -> Run:
    """Push as a user would, at the command line; what the run reported."""
    console.rule(f"slipway push {path.name} – {form}")
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "slipway", "push", path),
            *("--name", NAME, "--type", "classification", "--framework", "onnx" if form == "ONNX" else "pytorch"),
            *("--input-shape", "-1,1,8,8", "--classes", ",".join(digits.CLASSES)),
            *("--watch", "--timeout", "300"),
        ],
        check=False,
    )
    if done.returncode != 0:
        sys.exit(done.returncode)
    return client.run(client.runs(model=NAME, limit=1)[0].id)


def show_variants(client: Client, runs: dict[str, Run], folder: Path) -> str:
    """A table of every promoted variant, its accuracy measured on the held-out digits; the reference of the best."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("version", "from", "variant", "size", "p50", "speed-up", "verdict", "accuracy"):
        table.add_column(heading, no_wrap=True, justify="right" if heading in ("size", "p50", "accuracy") else "left")
    heldout = np.load(folder / "digits-heldout.npz")
    ranked: list[tuple[float, float, str]] = []
    for form, run in runs.items():
        measured = {row["name"]: row for row in run.facts("benchmark")["rows"]}
        for artifact in client.artifacts(f"{NAME}@{run.version}"):
            if artifact.role not in ("canonical", "variant"):
                continue
            reference = f"{NAME}@{run.version}"
            pulled = client.pull(reference, to=folder / "pulled", artifact=artifact.name)
            reached = float(np.mean(predict(pulled, heldout["images"]) == heldout["labels"]))
            row = measured[artifact.name]
            bounds = row["speedup_ci"]  # none where there was no time for enough rounds
            table.add_row(
                run.version,
                form,
                artifact.name,
                f"{artifact.size / 1000:.0f} kB",
                f"{row['p50_ms'] * 1000:.0f} µs",
                f"{row['speedup']:.2f}×" + (f" ({bounds[0]:.2f}–{bounds[1]:.2f})" if bounds else ""),
                row["verdict"],
                f"{reached:.2%}",
            )
            ranked.append((reached, row["speedup"], f"{reference} {artifact.name}"))
    console.print(table)
    console.print(f"speed-up over the form that was uploaded; accuracy on {len(heldout['labels'])} held-out digits")
    return max(ranked)[2]


def predict(model: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(np.argmax(scores, axis=1))


def classify(client: Client, best: str, folder: Path) -> None:
    """Pull one variant, digest checked, and show it a digit that it has never seen."""
    reference, artifact = best.split()
    console.print(f"slipway pull {reference} --artifact {artifact}")
    model = client.pull(reference, to=folder / "pulled", artifact=artifact)
    heldout = np.load(folder / "digits-heldout.npz")
    image, label = heldout["images"][7], int(heldout["labels"][7])
    for line in image[0]:
        console.print("    " + escape("".join(SHADES[int(value * (len(SHADES) - 1))] * 2 for value in line)))
    answer = int(predict(model, image[None])[0])
    console.print(f"the model says {answer}, the label says {label}")
    if answer != label:
        sys.exit("The pulled model is wrong about a digit that the trained one knows.")


def ask(client: Client, best: str, folder: Path) -> None:
    """The same digit, sent to the endpoint that each version has."""
    heldout = np.load(folder / "digits-heldout.npz")
    digit, reference = folder / "digit.json", best.split(maxsplit=1)[0]
    digit.write_text(json.dumps(heldout["images"][7].tolist()))
    console.print(f"slipway predict {reference} --input {digit.name}")
    done = subprocess.run(
        [Path(sys.executable).parent / "slipway", "predict", reference, "--input", digit], check=False
    )
    answer = client.predict(reference, heldout["images"][7:8])
    (scores,) = answer.outputs.values()
    if done.returncode or int(np.argmax(scores)) != int(heldout["labels"][7]):
        sys.exit("The endpoint does not say what the model says.")


def show_missing(client: Client) -> None:
    """Said plainly: what this machine cannot do."""
    health = client.health()
    for name, (fine, detail) in sorted(health.components.items()):
        console.print(f"  {'ok     ' if fine else 'MISSING'} {name:<12} {escape(detail)}")
    if not Path("/dev/nvidiactl").exists():
        console.print(
            "  MISSING gpu          no GPU here: TensorRT variants are not built, everything was measured on the CPU"
        )


def show_addresses() -> None:
    console.rule("Have a look")
    console.print(f"  API       {os.environ['SLIPWAY_URL']}/docs")
    console.print(f"  endpoints {os.environ['SERVING_URL']}/v2/models/admin/{NAME}")
    console.print(f"  Flower    {os.environ.get('FLOWER_URL', 'not started')}")
    console.print("The demo stops what it started. `make up` brings it back at these addresses; the key is in "
                  f"{Path(os.environ['SLIPWAY_HOME']) / 'admin.key'}.")  # fmt: skip


if __name__ == "__main__":
    main()
