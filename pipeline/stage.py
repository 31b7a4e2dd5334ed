"""What a stage is and what it is handed. Knows nothing of Celery, databases, buckets or HTTP.

A stage is one file under `pipeline/stages/` that ends in `STAGE = Stage(...)`; `discover` finds it. Stages meet
the outside only through the small Protocols declared here.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import pkgutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from pipeline import extras
from pipeline.run import Purpose, Step
from registry.waivers import Waiver

Json = Any
"""Whatever `json.dumps` takes."""

SIDE_ROLES = ("config", "requirements", "calibration", "card")
"""What side files are for."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that a step made and that has been stored: `key` in the staging bucket, `size` in bytes, hex `sha256`.

    `role` says what it is for: `canonical`, `variant`, `manifest`, `sample`, `evidence`, or one of `SIDE_ROLES` for what a
    package held. `meta` travels with it.
    """

    name: str
    role: str
    key: str
    sha256: str
    size: int
    media_type: str = "application/octet-stream"
    meta: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A file that a stage leaves in its scratch folder, to be stored under the attempt's key when the step passes."""

    path: Path
    role: str
    media_type: str = "application/octet-stream"
    meta: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a stage learned (`facts`, JSON) and made (`files`, in its scratch folder).

    `key` names all that it depends on; once the step has passed, the report is recalled wherever the key comes up again.
    """

    facts: Mapping[str, Json] = field(default_factory=dict)
    files: Sequence[Made] = ()
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Passage:
    """What an earlier step reported: one of this run, or (not `own`) of the run that published the version."""

    facts: Mapping[str, Json]
    files: Sequence[File]
    own: bool = True


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What was uploaded and declared for one version; `declared` holds the form's fields as parsed JSON.

    Keys of `declared` used by stages: `input_shape` (list of int, -1 or null for dynamic, or name → list), `classes`
    (list of str), `config` (object), `framework`, `model_type`. `origin`: where another instance sent the version, the
    artifact that holds what it told: `name`, `role`, `sha256`, `size`, `meta`.
    """

    version_id: UUID
    model: str
    version: str
    format: str
    filename: str
    size: int
    sha256: str
    declared: Mapping[str, Json]
    origin: Mapping[str, Json] | None = None


def with_packed(declared: Mapping[str, Json], packed: Mapping[str, Json]) -> dict[str, Json]:
    """What was declared, filled up with what a package says of itself: the uploader's own word counts more."""
    config = {**(packed.get("config") or {}), **(declared.get("config") or {})}
    return {**packed, **declared, **({"config": config} if config else {})}


class Scanner(Protocol):
    """An antivirus daemon. Raises `Unavailable` when it could not look."""

    def scan(self, path: Path) -> AntivirusVerdict: ...


@dataclass(frozen=True, kw_only=True)
class AntivirusVerdict:
    """`threat` names what was recognised; `complete` is False when a limit kept the daemon from seeing every byte.

    `windows` is in how many overlapping pieces it was shown a file that is too long for it.
    """

    threat: str | None
    complete: bool
    engine: str
    windows: int = 1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one sandbox child may use. `wall` and `cpu` in seconds; `memory`, `file_size` in bytes.

    `gpu` names the one GPU that it may use, as in `CUDA_VISIBLE_DEVICES`. CUDA reserves far more address space than it
    uses, so that `memory` does not bind such a child; its worker's container does.
    """

    wall: float = 300.0
    cpu: int = 600
    memory: int = 8 << 30
    file_size: int = 4 << 30
    open_files: int = 256
    answer: int = 16 << 20
    gpu: str | None = None


class Child(Protocol):
    """A locked-down process that runs our functions over untrusted bytes, one call after the other."""

    def call(self, function: str, /, *, wall: float | None = None, **arguments: Json) -> Json:
        """Run `function` ("package.module:name") in the child and return its JSON answer.

        Paths travel as strings. `Rejected` raised in the child is raised again here; a child that crashes, runs out
        of time or memory raises `Rejected` (codes `crashed`, `time_limit`, `memory_limit`, `answer_invalid`).
        """
        ...

    @property
    def peak_memory(self) -> int:
        """Highest resident set so far, bytes."""
        ...

    def kill(self) -> None:
        """End the child now; may be called from another thread. A call under way raises `Unavailable`."""
        ...


class Sandbox(Protocol):
    """Starts children. Raises `Unavailable("sandbox_unavailable", …)` where this machine cannot lock one down."""

    def open(self, *, read: Sequence[Path], scratch: Path, limits: Limits = ...) -> SandboxSession:
        """A child that may read the files and folders of `read` and write only inside `scratch`."""
        ...


class SandboxSession(Protocol):
    def __enter__(self) -> Child: ...
    def __exit__(self, *exception: object) -> None: ...


class Context(Protocol):
    """All that a stage may touch."""

    @property
    def upload(self) -> Upload: ...
    @property
    def model(self) -> Path:
        """The uploaded file, read-only, its digest checked after download; its name ends in the uploaded suffix."""
        ...

    @property
    def side_files(self) -> Mapping[str, Path]:
        """Side files by role: `config`, `requirements`, `calibration`, `card`; those in a package where none came beside it."""
        ...

    @property
    def scratch(self) -> Path:
        """An empty folder that is this attempt's own and vanishes with it."""
        ...

    @property
    def earlier(self) -> Mapping[str, Passage]:
        """Reports of the steps before this one, by stage. One that was left out says why in its fact `skipped`."""
        ...

    @property
    def attempt(self) -> int: ...
    @property
    def scanner(self) -> Scanner | None:
        """None only where development mode runs without an antivirus daemon."""
        ...

    @property
    def sandbox(self) -> Sandbox: ...
    @property
    def options(self) -> Mapping[str, Json]:
        """Deployment settings of this stage (e.g. `benchmark_timeout`, seconds), and what this run was asked for.

        `gpu`: the GPU that this worker has for itself. `variants`: names of the only variants to make. `recorded`: what
        the version had in the registry when it was asked for, `{"name", "role", "sha256", "toolchain"}` each.
        """
        ...

    @property
    def publisher(self) -> Publisher: ...
    @property
    def reviews(self) -> Reviews: ...

    def fetch(self, file: File) -> Path:
        """A local, digest-checked copy of a file that an earlier step made, or of the `incumbent`."""
        ...

    def incumbent(self) -> File | None:
        """The form that is served of the model by default today, None where nothing is: its newest published version's best.

        `meta` tells beside what the file carries the `version` it belongs to.
        """
        ...

    def log(self, text: str) -> None:
        """One line for the people who watch this step."""
        ...

    def kept(self, name: str) -> Path | None:
        """A file that a step of the same owner has kept under that name, or None: it is a help, and may be gone any time."""
        ...

    def keep(self, name: str, path: Path) -> None:
        """Keep a file of the scratch folder for later steps of the same owner, in the place of what had that name."""
        ...

    def recall(self, key: str) -> Report | None:
        """What a step of the same owner reported under this key, its files in the scratch folder with their digests checked.

        Its facts have `cached`: true, and `cached_from`: the id of the run that it comes from. None where nothing is
        known, a file of it is gone or not what it was, or this run must not know (a rebuild).
        """
        ...


class Reviews(Protocol):
    """What reviewers have decided about files, as of now. Files go by their hex SHA-256."""

    def waivers(self, sha256: Collection[str]) -> Sequence[Waiver]:
        """Those for these files that count now."""
        ...

    def condemned(self, sha256: Collection[str]) -> Collection[str]:
        """Which of these files must never pass again. Why is the reviewers' business: others may hold the same file."""
        ...


class Publisher(Protocol):
    """Puts bytes into the registry bucket under keys that name their digest, so that no key is ever written twice."""

    def publish(self, file: File) -> str:
        """Copy, read back, compare the SHA-256 and return the key. Doing it twice is doing it once."""
        ...

    def write(self, name: str, content: bytes, media_type: str) -> File:
        """Store a small document of ours in the registry bucket under its digest."""
        ...

    def sign(self, content: bytes) -> Mapping[str, Json]:
        """Vouch for a document with this instance's key: `key_id`, `algorithm`, `value`, `public_key`, as texts."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A thing that can be done to a version.

    `queue` is the Celery queue; `after` names the stages it follows when they are in the plan; `max_attempts` counts
    tries of a step that broke; `time_limit` is the wall time of one attempt in seconds; `servable_only` keeps it out of
    plans for formats that cannot be served, and has it do nothing where `validate` finds that this file cannot.
    `opens_source` says that it opens the uploaded file by its format's library, which not every worker may have.
    `purposes` are the kinds of runs whose plans it belongs to; `offers` the variants that it can be asked for by name,
    later too. An intake goes on without an `optional` stage that nobody can carry out. `depends` tells, as JSON, all
    that the report depends on beside the pipeline's own code: where it is given, nothing is done twice.
    """

    name: str
    run: Callable[[Context], Report]
    queue: str = "cpu"
    after: tuple[str, ...] = ()
    max_attempts: int = 3
    time_limit: int = 900
    servable_only: bool = False
    opens_source: bool = False
    purposes: tuple[Purpose, ...] = (Purpose.INTAKE,)
    offers: tuple[str, ...] = ()
    optional: bool = False
    depends: Callable[[Context], Json] | None = None

    def carry_out(self, ctx: Context) -> Report:
        """Run the stage, recall what it reported before, or report why there is nothing to do."""
        if self.servable_only and not servable(ctx.earlier):
            return Report(facts={"skipped": "The model cannot be served."})
        if self.depends is None:
            return self.run(ctx)
        parts = json.dumps([self.name, code(), self.depends(ctx)], sort_keys=True, separators=(",", ":"))
        key = hashlib.sha256(parts.encode()).hexdigest()
        return ctx.recall(key) or replace(self.run(ctx), key=key)

    def step(self, extra: str | None = None) -> Step:
        """The stage in a plan, for a model whose format needs `extra`."""
        return Step(
            stage=self.name,
            queue=extras.queue(self.queue, extra if self.opens_source else None),
            max_attempts=self.max_attempts,
            time_limit=self.time_limit,
            optional=self.optional,
        )


@functools.cache
def code() -> str:
    """Hex SHA-256 of the pipeline's source: whatever is changed in it, results of before are worked out anew."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def servable(earlier: Mapping[str, Passage]) -> bool:
    """Whether validation, where it took place, found a model that can be served."""
    return "validate" not in earlier or earlier["validate"].facts.get("servable") is not False


def discover(packages: Iterable[str] = ("pipeline.stages",)) -> tuple[Stage, ...]:
    """Every stage found in the packages, each after the stages it names; ties in alphabetical order."""
    found: dict[str, Stage] = {}
    for package in packages:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            stage = getattr(importlib.import_module(f"{package}.{module.name}"), "STAGE", None)
            if not isinstance(stage, Stage):
                raise TypeError(f"{package}/{module.name}.py must end in STAGE = Stage(...)")
            if stage.name in found:
                raise TypeError(f"two files declare the stage {stage.name!r}")
            found[stage.name] = stage
    ordered: list[Stage] = []
    waiting = sorted(found)
    while waiting:
        ready = next((name for name in waiting if not set(found[name].after) & set(waiting)), None)
        if ready is None:
            raise TypeError(f"stages wait for each other: {', '.join(waiting)}")
        waiting.remove(ready)
        ordered.append(found[ready])
    return tuple(ordered)
