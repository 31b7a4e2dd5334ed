"""Whether a project may use a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slipway import refs
from slipway.transport import Wire

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LicenceAnswer:
    """`answer` is `compatible`, `incompatible` or `unknown`; `compatible` is None where it is unknown. No legal advice."""

    answer: str
    compatible: bool | None
    project_licence: str | None
    model_licence: str | None
    reason: str
    warnings: tuple[str, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> LicenceAnswer:
        """Read it from an answer."""
        return cls(
            answer=str(data["answer"]),
            compatible=data.get("compatible"),
            project_licence=data.get("project_licence"),
            model_licence=data.get("model_licence"),
            reason=str(data.get("reason") or ""),
            warnings=tuple(str(warning) for warning in data.get("warnings") or ()),
            raw=data,
        )


class Licences:
    """What `Client.licences` can do."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def check(
        self, ref: str, *, licence: str | None = None, github_url: str | None = None, text: str | None = None
    ) -> LicenceAnswer:
        """Hold a project's licence against that of `NAME[@REF]`; it is given by name, by repository or as its text."""
        name, version = refs.parse(ref)
        given = {"licence": licence, "github_url": github_url, "text": text}
        body = {"version": version} | {key: value for key, value in given.items() if value is not None}
        return LicenceAnswer.read(self._wire.json("POST", f"{refs.model_path(name)}/licence-check", json=body))
