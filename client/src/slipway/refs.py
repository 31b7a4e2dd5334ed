"""`NAME[@REF]`: which version of which model somebody means."""

from __future__ import annotations

import re
from urllib.parse import quote

from slipway.errors import InvalidRequest

_REF = re.compile(r"latest|v?\d+(\.\d+){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


def parse(text: str) -> tuple[str, str]:
    """Split `NAME[@REF]` into name and REF: a SemVer (`1.0.0`), an ordinal (`3`) or `latest`, which is the default."""
    name, at, ref = text.partition("@")
    ref = ref if at else "latest"
    if not name or not _REF.fullmatch(ref):
        raise InvalidRequest(
            "bad_reference",
            f"{text!r} does not name a version.",
            hint="Write NAME, NAME@1.0.0, NAME@3 (the third upload) or NAME@latest.",
        )
    return name, ref


def model_path(name: str) -> str:
    """Return where the API keeps a model."""
    return f"/api/v1/models/{quote(name, safe='')}"


def version_path(name: str, ref: str) -> str:
    """Return where the API keeps a version."""
    return f"{model_path(name)}/versions/{quote(ref, safe='')}"
