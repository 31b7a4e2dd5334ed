"""Archives written by `torch.jit.save` (TorchScript) and `torch.save` (checkpoints): pickles, code and raw tensors.

Every member must be one that torch writes; every tensor record must be named by a pickle and be as long as it says.
"""

from __future__ import annotations

import re
from functools import partial

from pipeline.readers import pickle, script_code
from pipeline.readers.allowed import SCRIPT, TENSORS, Allowed, full_modules
from pipeline.readers.archive import Archive, Layout
from pipeline.readers.inspection import Inspection, Malformed
from pipeline.readers.machine import Storage
from pipeline.readers.tensors import STORAGE_BYTES

_SMALL = {
    "version": re.compile(rb"\d{1,3}\n?"),
    ".data/version": re.compile(rb"\d{1,3}\n?"),
    "byteorder": re.compile(rb"little|big"),
    ".data/serialization_id": re.compile(rb"\d{1,60}"),
    ".format_version": re.compile(rb"\d{1,3}\n?"),
    ".storage_alignment": re.compile(rb"\d{1,6}"),
}
_CODE = re.compile(r"code/[\w/]+\.py")
_DEBUG = re.compile(r"code/[\w/]+\.py\.debug_pkl")
_LONGEST_CODE = 32 << 20


def root_of(names: frozenset[str]) -> str | None:
    """The one folder in which all members of a torch archive stand, with its slash."""
    roots = {name.split("/", 1)[0] for name in names}
    return f"{roots.pop()}/" if len(roots) == 1 else None


def examine_script(archive: Archive, inspection: Inspection) -> None:
    _Reading(archive, inspection, SCRIPT).run(
        pickles={name: f"{name.removesuffix('.pkl')}/" for name in ("data.pkl", "constants.pkl", "traced_inputs.pkl")},
        code=True,
    )


def examine_checkpoint(archive: Archive, inspection: Inspection) -> None:
    """Tensors, plain data, and whole modules whose classes are those of the frameworks."""
    _Reading(archive, inspection, full_modules()).run(pickles={"data.pkl": "data/"}, code=False)


def examine_tensors(archive: Archive, inspection: Inspection) -> None:
    """The same without classes."""
    _Reading(archive, inspection, TENSORS).run(pickles={"data.pkl": "data/"}, code=False)


def small_file(name: str, content: bytes, path: str, inspection: Inspection) -> bool:
    """Judge one of the short files every torch archive holds; False when this is none of them."""
    pattern = _SMALL.get(name)
    if pattern is None:
        return False
    if pattern.fullmatch(content) is None:
        inspection.unknown("torch.record", path, 0, f"{name} holds something else than it should.")
    inspection.credit("torch", len(content))
    return True


class _Reading:
    """One torch archive while it is judged member by member."""

    def __init__(self, archive: Archive, inspection: Inspection, allowed: Allowed) -> None:
        self.archive = archive
        self.inspection = inspection
        self.allowed = allowed
        root = root_of(frozenset(archive.members))
        if root is None:
            raise Malformed("torch.layout", "The members of the archive do not share one folder.")
        self.root = root
        self.left = {name.removeprefix(root) for name in archive.members}
        self.records: dict[str, int] = {}

    def run(self, *, pickles: dict[str, str], code: bool) -> None:
        for name, folder in pickles.items():
            if name in self.left:
                self.pickle(name, folder)
        for name in sorted(self.left):
            path = self.path(name)
            size = self.archive.members[self.root + name].size
            if size <= 1024 and small_file(name, self.content(name), path, self.inspection):
                continue
            if code and _CODE.fullmatch(name):
                self.inspection.guarded(path, partial(self.code, name))
            elif code and _DEBUG.fullmatch(name):
                self.inspection.guarded(path, partial(self.debug, name))
            elif code and name.startswith("extra/") and not name.endswith("/"):
                self.inspection.examine(self.archive.open(self.root + name), path)
            elif name.startswith(("data/", "constants/", "traced_inputs/")):
                self.inspection.unknown("torch.orphan", path, None, f"No pickle names the tensor record {name!r}.")
            else:
                self.inspection.unknown("torch.member", path, None, f"torch writes no member {name[:100]!r}.")

    def path(self, name: str) -> str:
        return self.archive.path_of(self.root + name)

    def content(self, name: str) -> bytes:
        source = self.archive.open(self.root + name)
        return source.read(0, source.size)

    def pickle(self, name: str, folder: str) -> None:
        """One pickle and the tensor records that it names."""
        self.left.discard(name)
        path = self.path(name)
        source = self.archive.open(self.root + name)

        def work() -> None:
            walk = pickle.walk(source, path, self.inspection, self.allowed)
            if walk.end != source.size:
                raise Malformed("pickle.trailing", f"{source.size - walk.end:,} bytes follow the pickle.", walk.end)
            self.inspection.credit("pickle", source.size)
            for storage in walk.storages:
                self.record(folder + storage.key, storage, path)

        self.inspection.guarded(path, work)

    def record(self, name: str, storage: Storage, path: str) -> None:
        member = self.archive.members.get(self.root + name)
        width = STORAGE_BYTES.get(storage.kind)
        if member is None or width is None:
            self.inspection.unknown("torch.record", path, storage.offset, f"The tensor record {name!r} is not there.")
        elif member.size != storage.count * width and not (member.size == 0 and name.startswith("traced_inputs/")):
            self.inspection.unknown(
                "torch.record",
                path,
                storage.offset,
                f"The record {name!r} has {member.size:,} bytes, not {storage.count:,} elements of {width}.",
            )
        elif name in self.left:
            self.left.discard(name)
            self.inspection.credit("tensors", member.size)

    def code(self, name: str) -> None:
        source = self.archive.open(self.root + name)
        if source.size > _LONGEST_CODE:
            raise Malformed("limit.code", "One file of code is longer than any real model's.")
        try:
            text = source.read(0, source.size).decode("ascii")
        except UnicodeDecodeError as error:
            raise Malformed("torchscript.code", "The code holds other than plain characters.", error.start) from None
        script_code.check(text, self.path(name), self.inspection)
        self.inspection.credit("torchscript", source.size)

    def debug(self, name: str) -> None:
        source = self.archive.open(self.root + name)
        walk = pickle.walk(source, self.path(name), self.inspection, SCRIPT)
        if walk.end != source.size or walk.storages:
            raise Malformed("pickle.trailing", "The debug pickle holds more than source ranges.", walk.end)
        self.inspection.credit("pickle", source.size)


def _is_script(names: frozenset[str]) -> bool:
    root = root_of(names)
    return root is not None and any(name.startswith(f"{root}code/") for name in names) and f"{root}data.pkl" in names


def _is_checkpoint(names: frozenset[str]) -> bool:
    root = root_of(names)
    return (
        root is not None
        and f"{root}data.pkl" in names
        and not any(name.startswith((f"{root}code/", f"{root}models/")) for name in names)
    )


LAYOUTS = (
    Layout(name="torchscript", recognises=_is_script, examine=examine_script),
    Layout(name="checkpoint", recognises=_is_checkpoint, examine=examine_checkpoint, version=2),
)
