"""`NAME[@REF]` and `OWNER/NAME[@REF]`: which version of which model somebody means."""

from __future__ import annotations

import re
from urllib.parse import quote

from slipway.errors import InvalidRequest

_NUMBER = re.compile(r"v?\d+(\.\d+){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,62}")


def parse(text: str) -> tuple[str, str]:
    """Split `NAME[@REF]` into name and REF: a SemVer (`1.0.0`), an ordinal (`3`), an alias or `latest`, the default.

    The name is one of your own, or `owner/name`.
    """
    name, at, ref = text.partition("@")
    ref = ref if at else "latest"
    if not all(name.split("/")) or name.count("/") > 1 or not (_NUMBER.fullmatch(ref) or _ALIAS.fullmatch(ref)):
        raise InvalidRequest(
            "bad_reference",
            f"{text!r} does not name a version.",
            hint="Write NAME, NAME@1.0.0, NAME@3 (the third upload), NAME@production or NAME@latest; of others OWNER/NAME.",
        )
    return name, ref


def moves(ref: str) -> bool:
    """Return whether a REF may mean another version tomorrow: an alias, or `latest`."""
    return not _NUMBER.fullmatch(ref)


def model_path(name: str) -> str:
    """Return where the API keeps a model: `owner/name` is `owner~name` in a path."""
    return f"/api/v1/models/{quote(name.replace('/', '~'), safe='')}"


def version_path(name: str, ref: str) -> str:
    """Return where the API keeps a version."""
    return f"{model_path(name)}/versions/{quote(ref, safe='')}"
