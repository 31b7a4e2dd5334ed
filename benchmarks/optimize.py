"""Our best variant beside ONNX Runtime's and OpenVINO's defaults, onnxslim and Olive, on four kinds of network.

Ours is what would be served: the optimize stage makes and verifies, a first measurement and `selection.best` choose.
Then all take turns in a second one, each in a sandbox child of its own on one thread, by the protocol of the benchmark
stage. What others made is verified as the stage verifies ours, by the loosest budget there is, int8's: what misses it
is shown, and not compared. `OPTIMIZE_ROUNDS`, 60 by default; `OPTIMIZE_NETWORKS` names some only.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import numpy as np
import torch

from benchmarks import networks
from benchmarks.networks import Network
from benchmarks.peers import optimisers
from benchmarks.peers.optimisers import Peer
from pipeline import measuring, recipes, selection
from pipeline.canonical import finish
from pipeline.errors import Rejected
from pipeline.examination import Examination, way_of
from pipeline.formats import PRELOAD
from pipeline.measuring import CONTROL, SOURCE, Deadline, Form, Heat
from pipeline.sandbox import Zygote
from pipeline.signature import Tensor
from pipeline.stage import Context, File, Passage, Sandbox, Upload
from pipeline.stages import optimize

CLOSE = 0.03
"""By how much ours may be slower than the best of the others."""

NAMES = tuple(filter(None, os.environ.get("OPTIMIZE_NETWORKS", "").split(","))) or networks.NAMES
CHOOSING, ROUNDS = 15, int(os.environ.get("OPTIMIZE_ROUNDS", "60"))
TIMEOUT = 600.0
CANONICAL = "onnx-fp32"


@dataclass(kw_only=True)
class Shed:
    """What the optimize stage touches of its context."""

    upload: Upload
    sandbox: Sandbox
    scratch: Path
    earlier: Mapping[str, Passage]
    side_files: Mapping[str, Path]
    options: Mapping[str, Any] = field(default_factory=dict)

    def log(self, text: str) -> None:
        print(f"    {text}", file=sys.stderr)

    def fetch(self, file: File) -> Path:
        return Path(file.key)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network as the canonical file that convert would hand on, and its samples as a user would upload them."""

    path: Path
    inputs: Sequence[Tensor]
    samples: Mapping[str, Any]
    calibration: Path


def main() -> dict[str, Any]:
    """By network: how ours compares with the best of the others, and every form's speed over ONNX Runtime's default."""
    results: dict[str, Any] = {"versions": optimisers.versions(), "rounds": ROUNDS}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder, closing(Zygote(preload=PRELOAD)) as zygote:
            Path(folder).chmod(0o755)
            found = _compared(networks.make(name), Path(folder), zygote)
            results |= {f"{name}: {what}": said for what, said in found.items()}
            print(json.dumps({name: found}, indent=1), file=sys.stderr)
    return results


def _compared(network: Network, folder: Path, zygote: Sandbox) -> dict[str, Any]:
    model = _written(network, folder)
    shed = _shed(model, folder, zygote)
    found = optimize.STAGE.run(cast("Context", shed))
    ours = [Form(name=CANONICAL, role="canonical", form="onnx", path=model.path)]
    ours += [
        Form(name=one.meta["variant"], role="variant", form="onnx", path=one.path, way=way_of(one.meta))
        for one in found.files
    ]
    chosen = _chosen(_measured(shed, model, ours, "choosing", CHOOSING), ours, found.facts["variants"])
    others = list(optimisers.peers(model.path, model.samples, folder))
    forms = [Form(name=one.name, role="peer", form="onnx", path=one.path, way=one.way) for one in others if one.path]
    ranged = {one.name for one in others if one.ranged}
    ranged |= {name for one in recipes.discover() if one.ranged for name in (one.name, one.repair) if name}
    verified = _verified(shed, model, [chosen, *forms], ranged)
    heat = _measured(
        shed, model, [chosen, *(one for one in forms if isinstance(verified[one.name], dict))], "all", ROUNDS
    )
    return _told(chosen.name, heat, verified, others)


def _told(mine: str, heat: Heat, verified: Mapping[str, Any], others: Sequence[Peer]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, said in verified.items():
        if isinstance(said, str):
            rows[name] = said
            continue
        speed = heat.compare(SOURCE, name).facts()
        rows[name] = {
            "speed": speed["speedup"],
            "interval": speed["speedup_ci"],
            "clock": speed["speedup_clock"],
            **said,
        }
    rows |= {one.name: f"made nothing: {one.reason}" for one in others if one.reason}
    counting = [one.name for one in others if one.name in heat.turns and verified[one.name]["counts"]]
    best = max(counting, key=lambda name: heat.compare(SOURCE, name).ratio.value)
    over = heat.compare(best, mine).ratio
    return {
        "ours": mine,
        "best of the others": best,
        "ours over it": over.facts(),
        "holds": over.value >= 1 - CLOSE,
        "control": heat.control(heat.clock(SOURCE)).facts(),
        "rounds": heat.rounds,
        "load": round(os.getloadavg()[0], 1),
        **rows,
    }


def _chosen(heat: Heat, ours: Sequence[Form], variants: Sequence[Mapping[str, Any]]) -> Form:
    """The form that the rule of the registry picks by this measurement."""
    rows = [
        {"name": one.name, "size": one.path.stat().st_size, **heat.compare(SOURCE, one.name).facts()} for one in ours
    ]
    for row in rows:
        print(f"    {row['name']}: {row['speedup']} {row['speedup_ci']} {row['verdict']}", file=sys.stderr)
    best = selection.best([one.name for one in ours], variants, rows)
    return next(one for one in ours if one.name == best)


def _measured(shed: Shed, model: Model, forms: Sequence[Form], purpose: str, rounds: int) -> Heat:
    deadline = Deadline(TIMEOUT)
    source = {one: Form(name=one, role=one, form="onnx", path=model.path) for one in (SOURCE, CONTROL)}
    with ExitStack() as stack:
        entrants = {
            name: measuring.enter(
                stack,
                one,
                sandbox=shed.sandbox,
                scratch=shed.scratch / purpose / name.replace(" ", "-"),
                inputs=model.inputs,
                declared={},
                deadline=deadline,
                samples=model.calibration,
            )
            for name, one in (source | {one.name: one for one in forms}).items()
        }
        return measuring.measure(
            entrants, deadline, batch=1, looks=(rounds,), seconds=deadline.left, clear=lambda _: True
        )


def _verified(shed: Shed, model: Model, forms: Sequence[Form], ranged: Collection[str]) -> dict[str, Any]:
    """What verification says of each form beside the canonical file, a text where the form does not run.

    Those whose ranges were fixed on the samples (`ranged`) go by the samples only, all others by every question.
    """
    examination = Examination(cast("Context", shed), "peers", model.inputs)
    reference = examination.answers("reference", "onnx", model.path)
    found: dict[str, Any] = {}
    for one in forms:
        try:
            answers = examination.answers(one.name.replace(" ", "-"), "onnx", one.path, one.way)
            said = examination.compare(
                reference, answers, "int8", ["sample"] if one.name in ranged else None, locate=False
            )
        except Rejected as refusal:
            found[one.name] = f"does not run: {refusal.message}"
            continue
        (output,), accuracy = said["outputs"], said["accuracy"]
        found[one.name] = {
            "counts": said["verified"],
            "error": float(f"{output['rms_rel']:.2g}"),
            "decisions": f"{output['decisions']['flips']} of {output['decisions']['compared']} differ",
            "accuracy": None if accuracy is None else [accuracy["reference"], accuracy["candidate"]],
        } | ({} if said["verified"] else {"reason": said["reason"]})
    return found


def _written(network: Network, folder: Path) -> Model:
    raw, path = folder / "raw.onnx", folder / "model.onnx"
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        network.module,
        (network.inputs[:2],),
        dynamo=True,
        external_data=False,
        verbose=False,
        dynamic_shapes=({0: batch},),
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave nothing back")
    program.save(raw)
    told = finish(str(raw), str(path))
    arrays, (name,) = network.inputs.numpy(), told["inputs"]
    shape = list(arrays.shape[1:])
    tensor = Tensor(
        name=name, dtype=str(arrays.dtype), shape=[None, *shape], example=[1, *shape], below=told["indices"].get(name)
    )
    uploaded: dict[str, Any] = {name: arrays}
    uploaded |= {} if network.labels is None else {"labels": network.labels.numpy()}
    np.savez(folder / "samples.npz", allow_pickle=False, **uploaded)
    return Model(path=path, inputs=[tensor], samples={name: arrays}, calibration=folder / "samples.npz")


def _shed(model: Model, folder: Path, zygote: Sandbox) -> Shed:
    (folder / "scratch").mkdir()
    (folder / "scratch").chmod(0o711)
    sha256 = hashlib.sha256(model.path.read_bytes()).hexdigest()
    size = model.path.stat().st_size
    meta = {"inputs": [one.model_dump() for one in model.inputs], "outputs": []}
    file = File(name=CANONICAL, role="canonical", key=str(model.path), sha256=sha256, size=size, meta=meta)
    upload = Upload(
        version_id=UUID(int=0),
        model="m",
        version="1.0.0",
        format="onnx",
        filename=model.path.name,
        size=size,
        sha256=sha256,
        declared={},
    )
    return Shed(
        upload=upload,
        sandbox=zygote,
        scratch=folder / "scratch",
        earlier={"convert": Passage(facts={}, files=[file])},
        side_files={"calibration": model.calibration},
    )


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
