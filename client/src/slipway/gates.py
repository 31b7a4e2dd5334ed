"""Gates: what a version must have shown before it goes to a target, and what they say of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from slipway import refs
from slipway.records import Json
from slipway.transport import Wire


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A rule with its parameters, for a target (`*`: all). `scope` is `global` (of all models) or `model`."""

    id: str
    scope: str
    target: str
    rule: str
    parameters: Json = field(default_factory=dict)
    created_by: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Gate:
        """Read it from an answer."""
        return cls(
            id=str(data["id"]),
            scope=str(data.get("scope") or ""),
            target=str(data.get("target") or ""),
            rule=str(data.get("rule") or ""),
            parameters=data.get("parameters") or {},
            created_by=data.get("created_by"),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Something that a gate can ask; `parameters` is a JSON schema of what it wants to be told."""

    name: str
    about: str
    parameters: Json = field(default_factory=dict)
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Rule:
        """Read it from an answer."""
        return cls(
            name=str(data["name"]),
            about=str(data.get("about") or ""),
            parameters=data.get("parameters") or {},
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one gate says: `state` is `passed failed unknown`, and `needed` the least that would do."""

    rule: str
    state: str
    reason: str
    scope: str = ""
    target: str = ""
    found: Any = None
    needed: str | None = None

    @classmethod
    def read(cls, data: Json) -> Outcome:
        """Read it from an answer."""
        return cls(
            rule=str(data["rule"]),
            state=str(data.get("state") or ""),
            reason=str(data.get("reason") or ""),
            scope=str(data.get("scope") or ""),
            target=str(data.get("target") or ""),
            found=data.get("found"),
            needed=data.get("needed"),
        )


@dataclass(frozen=True, kw_only=True)
class Promotability:
    """Whether a version may go to a target; `to_change` is the smallest set of facts that would have to change."""

    model: str
    version: str
    target: str
    promotable: bool
    to_change: tuple[str, ...]
    gates: tuple[Outcome, ...]
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Promotability:
        """Read it from an answer."""
        return cls(
            model=str(data.get("model") or ""),
            version=str(data.get("version") or ""),
            target=str(data.get("target") or ""),
            promotable=data.get("promotable") is True,
            to_change=tuple(str(item) for item in data.get("to_change") or ()),
            gates=tuple(Outcome.read(item) for item in data.get("gates") or ()),
            raw=data,
        )


class Gates:
    """Gates of a model, or of all models where no name is given (for admins to change)."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def of(self, name: str | None = None) -> list[Gate]:
        """Return a model's gates with those of all models, or only the latter."""
        return [Gate.read(item) for item in self._wire.json("GET", _path(name)).get("items") or ()]

    def add(
        self, rule: str, parameters: Mapping[str, Any] | None = None, *, target: str = "*", name: str | None = None
    ) -> Gate:
        """Set a gate; it counts from now on."""
        body = {"rule": rule, "parameters": dict(parameters or {}), "target": target}
        return Gate.read(self._wire.json("POST", _path(name), json=body))

    def remove(self, gate_id: str, *, name: str | None = None) -> None:
        """Remove a gate."""
        self._wire.send("DELETE", f"{_path(name)}/{quote(gate_id, safe='')}")

    def rules(self) -> list[Rule]:
        """Return what a gate can ask."""
        return [Rule.read(item) for item in self._wire.json("GET", "/api/v1/gates/rules").get("items") or ()]

    def why_not(self, ref: str, target: str = "production") -> Promotability:
        """Return what all gates say of the version that `NAME[@REF]` means."""
        path = refs.version_path(*refs.parse(ref)) + "/promotability"
        return Promotability.read(self._wire.json("GET", path, params={"target": target}))


def _path(name: str | None) -> str:
    return "/api/v1/gates" if name is None else f"{refs.model_path(name)}/gates"
