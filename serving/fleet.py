"""The loaded variants of one process, within a budget of memory: loads once however many ask, the longest unused one makes room.

A file's digest is checked each time before it is loaded. What died is loaded again at once; what dies again and again has
to wait longer each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import structlog

from pipeline.errors import SlipwayError
from pipeline.sandbox import PASSABLE, Zygote, discard
from serving.runtime import Load, Runtime
from shared.errors import AdapterError
from shared.storage import Bucket

log = structlog.get_logger()

T = TypeVar("T")

_WEIGHT = 3
"""How many times its file's size a variant is taken to need until it has been loaded."""
_DRAIN = 30.0
_LINGER = 0.25
"""Seconds between a request's knowing its variant and its reaching it, at most."""
_PATIENCE = 10.0
_TICK = 0.005
"""Seconds that an event loop's clock may be before the system's."""
_LOADERS = 4
"""Variants that are fetched and loaded at once."""
_PAUSES = (0.0, 0.5, 2.0, 5.0, 15.0, 30.0)
"""Seconds before the next try, after so many failures or deaths in a row."""
_SOUND_AFTER = 60.0
"""Seconds of life after which earlier deaths are forgotten."""


class NotLoaded(Exception):
    """It is not loaded (yet). `status` and `code` are for the client, `retry_after` in seconds where it may come again."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


Identity = tuple[UUID, str, str]
"""Of a variant: its version, its name, its digest."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One servable form of one version: where its bytes lie, what they must be, and how it is run."""

    version_id: UUID
    model: str
    version: str
    name: str
    key: str
    sha256: str
    size: int
    way: Mapping[str, Any]
    inputs: Sequence[Any]
    signature: Mapping[str, Any]

    @property
    def identity(self) -> Identity:
        return self.version_id, self.name, self.sha256


@dataclass(kw_only=True)
class _Berth:
    variant: Variant
    runtime: Runtime | None = None
    loading: asyncio.Task[None] | None = None
    used: float = field(default_factory=time.monotonic)
    wanted: bool = False
    beside: Identity | None = None
    born: float = 0.0
    failures: int = 0
    not_before: float = 0.0
    refusal: NotLoaded | None = None
    memory: int = 0


@dataclass(frozen=True, kw_only=True)
class Outfit:
    """How this process runs models: bytes, requests, threads; `device` as `selection.best` names it."""

    memory: int
    child_memory: int
    queue: int
    threads: int
    largest: int
    device: str = "cpu"
    gpu: str | None = None


class Fleet:
    """All methods belong to one event loop. `folder` is this process's own."""

    def __init__(self, *, bucket: Bucket, zygote: Zygote, folder: Path, outfit: Outfit) -> None:
        self._bucket, self._zygote, self._folder, self.outfit = bucket, zygote, folder, outfit
        self._berths: dict[Identity, _Berth] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._files: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._threads = ThreadPoolExecutor(_LOADERS, "load")

    async def prepare(self) -> None:
        """Import the libraries that runtime children are forked with, before anybody waits for it. Raises `Unavailable`."""

        def once() -> None:
            folder = Path(tempfile.mkdtemp(prefix="prepare-", dir=self._folder))
            folder.chmod(PASSABLE)
            (folder / "scratch").mkdir()
            with self._zygote.open(read=[], scratch=folder / "scratch"):
                pass
            discard(folder)

        await self._in_thread(once)

    async def get(self, variant: Variant, *, wait: float, beside: Variant | None = None) -> Runtime:
        """The loaded variant; waits so many seconds for it. Makes no room at the cost of `beside`. Raises `NotLoaded`."""
        berth = self._berth(variant)
        berth.used = time.monotonic()
        berth.beside = None if beside is None else beside.identity
        runtime = berth.runtime
        if runtime is not None and runtime.alive:
            return runtime
        self._begin(berth)
        if wait > 0 and berth.loading is not None:
            await asyncio.wait({berth.loading}, timeout=wait)
        if berth.runtime is not None and berth.runtime.alive:
            return berth.runtime
        if berth.refusal is not None:
            raise berth.refusal
        raise NotLoaded(503, "loading", f"{variant.model} {variant.version} is being loaded.", retry_after=1)

    def ready(self, variant: Variant) -> bool:
        berth = self._berths.get(variant.identity)
        return berth is not None and berth.runtime is not None and berth.runtime.alive

    def loaded_version(self, version_id: UUID) -> bool:
        """Whether a version can answer at once."""
        return any(variant.version_id == version_id for variant, _, _ in self.loaded())

    def warm(self, variant: Variant) -> None:
        """Begin to load it, where there is room without ending another."""
        berth = self._berth(variant)
        if self._room() >= _needed(variant) or berth.runtime is not None:
            self._begin(berth)

    def keep(self, identities: Collection[Identity]) -> None:
        """Which variants are meant by somebody now: the others make room first."""
        for identity, berth in list(self._berths.items()):
            berth.wanted = identity in identities
            if not berth.wanted and berth.runtime is None and berth.loading is None:
                del self._berths[identity]

    def retire(self, variant: Variant, meant: Callable[[], Collection[Identity]]) -> None:
        """End one that another has taken the place of, once it has answered what it was asked, unless it is `meant` again.

        Requests that were on their way to it still find it.
        """

        async def leave() -> None:
            await asyncio.sleep(_LINGER)
            ended = None if variant.identity in meant() else self._berths.pop(variant.identity, None)
            if ended is not None:
                self._end(ended, drain=_DRAIN)

        self._keep(leave())

    def loaded(self) -> list[tuple[Variant, Runtime, int]]:
        """What is loaded now, and the bytes it takes."""
        return [
            (berth.variant, berth.runtime, berth.memory)
            for berth in self._berths.values()
            if berth.runtime is not None and berth.runtime.alive
        ]

    def look(self) -> None:
        """Once in a while: how much memory each takes, and whether room has to be made."""
        for berth in self._berths.values():
            if berth.runtime is not None and berth.runtime.alive:
                berth.memory = berth.runtime.look()
        newest = max(self._berths.values(), key=lambda berth: berth.used, default=None)
        if newest is not None:  # one that is too large for the budget is served alone
            self._make_room(besides=newest)

    async def close(self) -> None:
        """End all, after what they are working at; what takes longer than `_PATIENCE` ends with the process it was forked from."""
        berths, self._berths = list(self._berths.values()), {}
        for berth in berths:
            self._end(berth, drain=_PATIENCE)
        under_way = {*self._closing, *(berth.loading for berth in berths if berth.loading is not None)}
        if under_way:
            await asyncio.wait(under_way, timeout=_PATIENCE + _LINGER)
        await asyncio.to_thread(self._zygote.close)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        self._threads.shutdown(wait=True)

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """On a thread of the loaders', so that nobody who asks the database waits behind a download."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _berth(self, variant: Variant) -> _Berth:
        berth = self._berths.get(variant.identity)
        if berth is None:
            berth = self._berths[variant.identity] = _Berth(variant=variant)
        return berth

    def _begin(self, berth: _Berth) -> None:
        if (
            berth.loading is None
            and not (berth.runtime and berth.runtime.alive)
            and time.monotonic() >= berth.not_before
        ):
            berth.loading = asyncio.get_running_loop().create_task(
                self._load(berth), name=f"load {berth.variant.sha256[:12]}"
            )

    async def _load(self, berth: _Berth) -> None:
        variant, began = berth.variant, time.monotonic()
        try:
            self._make_room(besides=berth)
            path = await self._file(variant)
            outfit = self.outfit
            load = Load(
                path=path,
                way=variant.way,
                inputs=variant.inputs,
                signature=variant.signature,
                name=variant.model,
                version=variant.version,
                threads=outfit.threads,
                largest=outfit.largest,
                memory=outfit.child_memory,
                device=outfit.device,
                gpu=outfit.gpu,
            )
            runtime = await Runtime.start(
                self._zygote,
                load,
                queue=outfit.queue + outfit.threads,
                scratch=self._folder,
                threads=self._threads,
            )
        except NotLoaded as refusal:
            self._failed(berth, refusal)
        except (SlipwayError, AdapterError) as fault:
            away = not isinstance(fault, SlipwayError) or fault.code.startswith("sandbox")
            code = fault.code if away else "not_loadable"
            self._failed(berth, NotLoaded(503, code, f"The model could not be loaded. {fault.message}", retry_after=5))
        except OSError as fault:
            self._failed(
                berth,
                NotLoaded(503, "not_loadable", f"The model could not be loaded ({fault.strerror}).", retry_after=5),
            )
        except Exception:
            log.exception("variant.crashed", model=variant.model, version=variant.version, variant=variant.name)
            self._failed(
                berth, NotLoaded(503, "internal", "The model could not be loaded, by a fault of ours.", retry_after=5)
            )
        else:
            if self._berths.get(variant.identity) is not berth:  # nobody means it any more
                await runtime.close()
                return
            berth.runtime, berth.refusal, berth.born = runtime, None, time.monotonic()
            berth.memory = runtime.look()
            took = round(berth.born - began, 3)
            log.info(
                "variant.loaded", model=variant.model, version=variant.version, variant=variant.name, took=took,
                memory=berth.memory, **runtime.facts,
            )  # fmt: skip
            self._watch(berth, runtime)
        finally:
            berth.loading = None

    def _failed(self, berth: _Berth, refusal: NotLoaded) -> None:
        berth.failures += 1
        berth.not_before = time.monotonic() + _PAUSES[min(berth.failures, len(_PAUSES) - 1)]
        berth.refusal = refusal
        log.error(
            "variant.not_loaded", model=berth.variant.model, version=berth.variant.version,
            variant=berth.variant.name, code=refusal.code, why=refusal.message,
        )  # fmt: skip

    def _watch(self, berth: _Berth, runtime: Runtime) -> None:
        async def mourn() -> None:
            await runtime.gone()
            if berth.runtime is not runtime or self._berths.get(berth.variant.identity) is not berth:
                return  # it was ended by us
            now = time.monotonic()
            berth.runtime, berth.memory = None, 0
            berth.failures = 1 if now - berth.born > _SOUND_AFTER else berth.failures + 1
            # The first death is forgiven at once: what was asked of it may never come again.
            berth.not_before = now + _PAUSES[min(berth.failures - 1, len(_PAUSES) - 1)]
            berth.refusal = NotLoaded(
                503, "runtime_died", "The model's runtime has ended and is started again.", retry_after=1
            )
            await asyncio.sleep(berth.not_before - now + _TICK)
            if self._berths.get(berth.variant.identity) is berth:
                self._begin(berth)

        self._keep(mourn())

    def _end(self, berth: _Berth, *, drain: float) -> None:
        """Those who have been given the runtime still reach it."""

        async def leave(runtime: Runtime) -> None:
            await asyncio.sleep(_LINGER)
            await runtime.close(drain=drain)

        runtime, berth.runtime = berth.runtime, None
        if runtime is not None:
            self._keep(leave(runtime))

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _room(self) -> int:
        taken = sum(
            max(berth.memory, _needed(berth.variant))
            for berth in self._berths.values()
            if berth.runtime or berth.loading
        )
        return self.outfit.memory - taken

    def _make_room(self, *, besides: _Berth) -> None:
        """End the longest unused ones, those that are not live first, until all that is loaded or being so fits, or one is left."""
        idle = [
            each
            for each in self._berths.values()
            if each is not besides
            and each.variant.identity != besides.beside
            and each.runtime is not None
            and not each.loading
        ]
        idle.sort(key=lambda each: (each.wanted, each.used))
        room = self._room()
        for berth in idle:
            if room >= 0:
                return
            room += max(berth.memory, _needed(berth.variant))
            log.info(
                "variant.made_room",
                model=berth.variant.model,
                version=berth.variant.version,
                variant=berth.variant.name,
            )
            self._berths.pop(berth.variant.identity, None)
            self._end(berth, drain=_DRAIN)

    async def _file(self, variant: Variant) -> Path:
        """A local copy whose digest has just been checked. Raises `NotLoaded` (409) for bytes that are not what was published."""
        suffix = ".engine" if variant.name.startswith("tensorrt-") else ".onnx"
        path = self._folder / f"{variant.sha256}{suffix}"
        async with self._files[variant.sha256]:
            if await self._in_thread(_digest, path) == variant.sha256:
                return path
            self._forget_files()
            fetched = await self._in_thread(self._fetch, variant, path)
        if fetched != variant.sha256:
            log.critical("variant.digest_mismatch", key=variant.key, wanted=variant.sha256, found=fetched)
            raise NotLoaded(
                409,
                "digest_mismatch",
                f"What storage holds of {variant.name} is not what was published; it is not loaded.",
            )
        return path

    def _fetch(self, variant: Variant, path: Path) -> str:
        partial = path.with_suffix(".part")
        found = self._bucket.download(variant.key, partial)
        if found == variant.sha256:
            partial.chmod(0o444)
            partial.replace(path)
        else:
            partial.unlink()
        return found

    def _forget_files(self) -> None:
        """Keep no more bytes of local copies than twice what the loaded models may take, the newest, and what is being loaded."""
        in_use = {berth.variant.sha256 for berth in self._berths.values() if berth.loading is not None}
        copies = [file for file in self._folder.iterdir() if file.is_file() and file.suffix != ".part"]
        total = 0
        for file in sorted(copies, key=lambda one: one.stat().st_mtime, reverse=True):
            total += file.stat().st_size
            if total > 2 * self.outfit.memory and file.stem not in in_use:
                file.unlink()


def _needed(variant: Variant) -> int:
    return _WEIGHT * variant.size


def _digest(path: Path) -> str | None:
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
