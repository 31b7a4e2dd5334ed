"""Where the client finds its server and credential: arguments, then the environment, then the file `login` wrote."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway.errors import InvalidRequest

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The server's address and the credential for it, each with where it was found.

    `serving` is the address of the serving process where `SLIPWAY_SERVING_URL` names it; else the server tells it.
    """

    url: str
    url_from: str
    token: str | None
    token_from: str | None
    serving: str | None = None


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the file lies: `$SLIPWAY_CONFIG`, else under `$XDG_CONFIG_HOME`, else under `~/.config`."""
    if named := environ.get("SLIPWAY_CONFIG"):
        return Path(named)
    home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "slipway" / "config.toml"


def saved(path: Path) -> dict[str, str]:
    """Return what `login` saved, or nothing; a file that cannot be read is an error, never silently nothing."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(
            "bad_config", f"{path} cannot be read: {error}", hint="Repair or remove the file, then: slipway login"
        ) from error
    return {key: value for key, value in content.items() if isinstance(value, str)}


def settings(url: str | None = None, token: str | None = None, *, environ: Mapping[str, str] = os.environ) -> Settings:
    """Decide which server and which credential.

    The saved token goes only to the server it was saved for: another `url` never gets to see it.
    """
    path = config_path(environ)
    needs_file = not ((url or environ.get("SLIPWAY_URL")) and (token or environ.get("SLIPWAY_TOKEN")))
    file = saved(path) if needs_file else {}
    addresses = (url, "the argument"), (environ.get("SLIPWAY_URL"), "SLIPWAY_URL"), (file.get("url"), str(path))
    address, address_from = next(
        ((value, source) for value, source in addresses if value), (DEFAULT_URL, "the default")
    )
    address = checked_url(address)
    credential, credential_from = next(
        (
            (value.strip(), source)
            for value, source in ((token, "the argument"), (environ.get("SLIPWAY_TOKEN"), "SLIPWAY_TOKEN"))
            if value
        ),
        (None, None),
    )
    if credential is None and file.get("token") and file.get("url", "").rstrip("/") == address:
        credential, credential_from = file["token"], str(path)
    return Settings(
        url=address,
        url_from=address_from,
        token=credential,
        token_from=credential_from,
        serving=environ.get("SLIPWAY_SERVING_URL") or None,
    )


def checked_url(url: str) -> str:
    """Return the address without its last slash, or raise InvalidRequest where it is none."""
    if not url.startswith(("http://", "https://")):
        raise InvalidRequest("bad_url", f"{url!r} is no server address.", hint="It starts with http:// or https://.")
    return url.rstrip("/")


def save(path: Path, values: Mapping[str, str]) -> None:
    """Write the file so that only its owner can read it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()]
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # mkstemp creates with 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(["# Written by `slipway login`. Holds a secret.\n", *lines])
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
