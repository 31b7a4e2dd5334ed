"""What a version promises to whoever calls it: inputs, outputs, classes. What changed, and which number that takes. Pure.

A number that says less than the change would let somebody's client break behind a patch. Source for what the numbers
mean: https://semver.org/spec/v2.0.0.html (§4: before 1.0.0 anything may change).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from semver import Version

from registry.errors import Conflict
from registry.versions import Bump, following

Shape = tuple[int | None, ...]
Side = Literal["input", "output"]

_WEIGHT: Mapping[str, int] = {"patch": 0, "minor": 1, "major": 2}


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output: numpy's dtype name, None in `shape` where a size is free; `shape` is None if unknown."""

    name: str
    dtype: str
    shape: Shape | None


@dataclass(frozen=True, kw_only=True)
class Contract:
    """`classes` are names in the order of the scores; empty where none are known."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    classes: tuple[str, ...] = ()

    @classmethod
    def read(cls, facts: Mapping[str, Any], declared: Mapping[str, Any]) -> Contract:
        """From what validation found in the file, `{"inputs": [{name, dtype, shape}], "outputs", "classes"}`.

        Classes that the file does not name are those that were declared, in the form or in a package's config.
        """
        packed = facts.get("declared") or {}
        return cls(
            inputs=_ports(facts.get("inputs") or ()),
            outputs=_ports(facts.get("outputs") or ()),
            classes=tuple(facts.get("classes") or declared.get("classes") or packed.get("classes") or ()),
        )

    def declaring(self, declared: Mapping[str, Any]) -> Contract:
        """The same contract with what an uploader says of the next version put in its place, and the rest as it was."""
        return replace(
            self,
            inputs=_declared(self.inputs, declared.get("input_shape")),
            outputs=_declared(self.outputs, declared.get("output_shape")),
            classes=tuple(declared.get("classes") or self.classes),
        )


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference, and the number that must go up for it."""

    bump: Literal["minor", "major"]
    subject: str
    what: str


def compare(before: Contract, after: Contract) -> list[Change]:
    """All that a caller of `before` would notice in `after`."""
    grown = len(after.classes) - len(before.classes) if _extends(before.classes, after.classes) else 0
    return [
        *_sides("input", before.inputs, after.inputs),
        *_sides("output", before.outputs, after.outputs, grown=grown),
        *_classes(before.classes, after.classes),
    ]


def needed(changes: Iterable[Change]) -> Bump:
    """The number that must go up for all of these."""
    bumps: list[Bump] = ["patch", *(each.bump for each in changes)]
    return max(bumps, key=_WEIGHT.__getitem__)


def claimed(before: str, after: str) -> Bump:
    """The number that goes up from one version to the next."""
    one, two = Version.parse(before), Version.parse(after)
    return "major" if one.major != two.major else "minor" if one.minor != two.minor else "patch"


def below(one: str, other: str) -> bool:
    """Whether the first number comes before the second."""
    return Version.parse(one) < Version.parse(other)


def predecessor(version: str, others: Iterable[str]) -> str | None:
    """The version that this one is measured by: the highest below it that is no pre-release."""
    itself = Version.parse(version)
    below = [one for one in map(Version.parse, others) if one < itself and one.prerelease is None]
    return str(max(below)) if below else None


def honest(before: str, after: str, changes: Sequence[Change]) -> bool:
    """Whether the step from one number to the next says at least as much as what changed."""
    return Version.parse(before).major == 0 or _WEIGHT[claimed(before, after)] >= _WEIGHT[needed(changes)]


def refuse_unless_honest(before: str, after: str, changes: Sequence[Change]) -> None:
    """Raises `Conflict("version_breaks_contract")`, naming the break and the number that it takes."""
    if honest(before, after, changes):
        return
    says, takes = claimed(before, after), needed(changes)
    worst = [each for each in changes if each.bump == takes]
    number = following([before], takes)
    detail = f"{after} says that it is a {says} change of {before}, but {worst[0].what}: that takes {number}."
    raise Conflict(
        "version_breaks_contract",
        detail,
        {
            "before": before,
            "claimed": says,
            "needed": takes,
            "number": number,
            "changes": [{"bump": each.bump, "subject": each.subject, "what": each.what} for each in changes],
        },
    )


def _sides(side: Side, before: Sequence[Port], after: Sequence[Port], *, grown: int = 0) -> list[Change]:
    was, now = {port.name: port for port in before}, {port.name: port for port in after}
    gone = [port for port in before if port.name not in now]
    new = [port for port in after if port.name not in was]
    changes = []
    for old in list(gone):
        renamed = next((port for port in new if (port.dtype, port.shape) == (old.dtype, old.shape)), None)
        if renamed is not None:
            gone.remove(old)
            new.remove(renamed)
            changes.append(_change("major", side, old, f"is called {renamed.name} now"))
    changes += [_change("major", side, port, "is gone") for port in gone]
    # A caller need not read a new output, but has to fill a new input.
    changes += [_change("minor" if side == "output" else "major", side, port, "is new") for port in new]
    for port in before:
        if port.name in now:
            changes += _one(side, port, now[port.name], grown)
    return changes


def _one(side: Side, old: Port, new: Port, grown: int) -> list[Change]:
    changes = []
    if old.dtype and new.dtype and old.dtype != new.dtype:
        changes.append(_change("major", side, old, f"was {old.dtype} and is {new.dtype}"))
    if old.shape is None or new.shape is None or old.shape == new.shape:
        return changes
    said = f"was {shown(old.shape)} and is {shown(new.shape)}"
    return [*changes, _change(_reshaped(side, old.shape, new.shape, grown), side, old, said)]


def _reshaped(side: Side, old: Shape, new: Shape, grown: int) -> Literal["minor", "major"]:
    if len(old) != len(new):
        return "major"
    for was, now in zip(old, new, strict=True):
        same = was == now
        wider = now is None or (side == "output" and was is None)
        scores = side == "output" and grown > 0 and was is not None and now is not None and now - was == grown
        if not (same or wider or scores):
            return "major"
    return "minor"


def _classes(before: Sequence[str], after: Sequence[str]) -> list[Change]:
    if tuple(before) == tuple(after):
        return []
    if _extends(before, after):
        what = f"classes are named now: {len(after)}" if not before else f"{len(after) - len(before)} classes are new"
        return [Change(bump="minor", subject="classes", what=what)]
    if not after:
        return [Change(bump="minor", subject="classes", what="its classes are no longer named")]  # no proof of a break
    place = next((at for at, (was, now) in enumerate(zip(before, after, strict=False)) if was != now), len(after))
    what = (
        f"class {place} was {before[place]} and is {after[place]}"
        if place < len(after)
        else f"class {place}, {before[place]}, is gone"
    )
    return [Change(bump="major", subject="classes", what=what)]


def _extends(before: Sequence[str], after: Sequence[str]) -> bool:
    return len(after) > len(before) and list(after[: len(before)]) == list(before)


def _change(bump: Literal["minor", "major"], side: Side, port: Port, said: str) -> Change:
    subject = f"{side} {port.name}"
    return Change(bump=bump, subject=subject, what=f"{subject} {said}")


def _ports(found: Iterable[Mapping[str, Any]]) -> tuple[Port, ...]:
    return tuple(
        Port(
            name=str(each["name"]),
            dtype=str(each.get("dtype") or ""),
            shape=None if each.get("shape") is None else tuple(each["shape"]),
        )
        for each in found
    )


def _declared(ports: tuple[Port, ...], said: Any) -> tuple[Port, ...]:
    """A bare list of sizes speaks for the only port; where there are several it may mean any of them."""
    if isinstance(said, Mapping):
        known = {port.name for port in ports}
        added = tuple(Port(name=name, dtype="", shape=_sizes(said[name])) for name in said if name not in known)
        return tuple(_reshape(port, said.get(port.name)) for port in ports) + added
    return (_reshape(ports[0], said),) if len(ports) == 1 and said else ports


def _reshape(port: Port, said: Any) -> Port:
    """The port as declared. What does not contradict its shape changes nothing: a size may be fixed, the batch left out."""
    if not said or port.shape is None:
        return port
    sizes = _sizes(said)
    full = (port.shape[0], *sizes) if len(sizes) == len(port.shape) - 1 and port.shape[0] in (None, 1) else sizes
    fits = len(full) == len(port.shape) and all(
        None in (new, old) or new == old for new, old in zip(full, port.shape, strict=True)
    )
    return port if fits else replace(port, shape=full)


def _sizes(said: Sequence[int | None]) -> Shape:
    return tuple(None if size in (None, -1) else size for size in said)


def shown(shape: Sequence[int | None]) -> str:
    """A shape for people: `[?, 3, 224, 224]`."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
