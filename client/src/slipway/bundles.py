"""Bundles: a version with its history and its evidence as one signed file, brought here, checked offline, sent elsewhere.

Who checks a bundle brings the public keys that they trust; the key that a bundle carries proves nothing by itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from slipway import refs, upload
from slipway.errors import BrokenBundle
from slipway.records import Run
from slipway.transport import Wire, as_object
from slipway.upload import Listener, ignore

DOCUMENT, SIGNATURE, FILES = "bundle.json", "bundle.sig", "files/"
LARGEST_DOCUMENT = 256 << 20
_CHUNK = 1 << 20
_SEALED = ("id", "at", "actor_id", "actor", "action", "subject", "details")
MODEL_FILE = "model_file"
_PARTS = {
    "source": MODEL_FILE,
    "config": "config_file",
    "requirements": "requirements_file",
    "calibration": "calibration_file",
    "card": "card_file",
}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that holds together. `trusted` is None where no key was given to compare with."""

    model: str
    owner: str
    version: str
    key_id: str
    public_key: str
    trusted: bool | None
    files: int
    bytes: int
    audit_entries: int
    document: Mapping[str, Any] = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {name: value for name, value in vars(self).items() if name != "document"}


@dataclass(frozen=True, kw_only=True)
class Import:
    """From where a version came, and what was made of the same bytes there and here."""

    key_id: str
    owner: str
    model: str
    version: str
    artifacts: tuple[Mapping[str, Any], ...]
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Import:
        """Read it from an answer."""
        return cls(
            key_id=str(data.get("key_id") or ""),
            owner=str(data.get("owner") or ""),
            model=str(data.get("model") or ""),
            version=str(data.get("version") or ""),
            artifacts=tuple(data.get("artifacts") or ()),
            raw=data,
        )


class Bundles:
    """Versions between instances."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def export(self, ref: str, to: str | Path, *, keys: Sequence[str] = ()) -> Bundle:
        """Bring the bundle of a version here and check it; the file `to` is there afterwards, or was not touched."""
        target = Path(to)
        part = target.with_name(f"{target.name}.part")
        path = refs.version_path(*refs.parse(ref)) + "/bundle"
        try:
            with part.open("wb") as file:
                for chunk in self._wire.stream(path):
                    file.write(chunk)
            checked = verify(part, keys)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return checked

    def send(
        self, path: str | Path, *, name: str | None = None, keys: Sequence[str] = (), progress: Listener = ignore
    ) -> Run:
        """Check a bundle and have this server take its version in: the run that does it, queued.

        The server believes keys that it trusts itself; `keys` are for the check that is made here.
        """
        verify(path, keys)
        with unpacked(path) as (document, parts):
            body = upload.form({"name": name}, parts)
            answer = as_object(upload.send(self._wire, "/api/v1/bundles", body, progress))
        data = answer.get("data") or {}
        model = data.get("name") or document["model"]["name"]
        return Run.read({**answer["run"], "model": model, "version": data.get("version")})

    def origin(self, ref: str) -> Import:
        """Return where a version came from, and how its forms compare. Raises NotFound for one that was made here."""
        return Import.read(self._wire.json("GET", refs.version_path(*refs.parse(ref)) + "/import"))


def verify(path: str | Path, keys: Sequence[str] = ()) -> Bundle:
    """Check a bundle without any server: its signature, every file's digest, every audit entry's seal.

    `keys` are public keys (base64) of which one must have signed it. Raises BrokenBundle.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _verified(archive, keys)
    except zipfile.BadZipFile as error:
        raise BrokenBundle("not_a_bundle", f"{path} is no bundle: {error}.") from error


@contextmanager
def unpacked(path: str | Path) -> Iterator[tuple[Mapping[str, Any], dict[str, Path]]]:
    """Yield a checked bundle's document, and its parts for an import by their names in the form, as files."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        document = json.loads(archive.read(DOCUMENT))
        parts = _parts(document)
        yield document, {part: _extracted(archive, *parts[part], Path(folder, part)) for part in parts}


def _parts(document: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Part of the form → (member of the archive, file name); small files first, so that the server judges by them."""
    found = {"bundle_file": (DOCUMENT, DOCUMENT), "signature_file": (SIGNATURE, SIGNATURE)}
    try:
        for file in document["files"]:
            if file["role"] in _PARTS:
                found[_PARTS[file["role"]]] = (FILES + file["sha256"], str(file["meta"]["filename"]))
        return found | {MODEL_FILE: found.pop(MODEL_FILE)}
    except (KeyError, TypeError) as error:
        raise BrokenBundle("not_a_bundle", f"The bundle does not say what was uploaded: {error!r}.") from error


def _extracted(archive: zipfile.ZipFile, member: str, name: str, folder: Path) -> Path:
    folder.mkdir()
    own = Path(name.replace("\\", "/")).name  # a bundle must not choose the folder
    path = folder / (own if own not in {"", ".", ".."} else "file")
    with archive.open(member) as source, path.open("wb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)
    return path


def _verified(archive: zipfile.ZipFile, keys: Sequence[str]) -> Bundle:
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in archive.infolist()):
        raise BrokenBundle("not_a_bundle", "Something in it is compressed or encrypted, which Slipway never does.")
    body, said = _small(archive, DOCUMENT), _small(archive, SIGNATURE)
    try:
        signature = json.loads(said)
        public_key = str(signature["public_key"])
        trusted = _signed_by(body, signature, public_key, keys)
        document = json.loads(body)
        audited = [_sealed(entry) for entry in document["history"]["audit"]]
        named = {str(file["sha256"]): int(file["size"]) for file in document["files"]}
        told = {
            "model": str(document["model"]["name"]),
            "owner": str(document["model"]["owner"]),
            "version": str(document["version"]["version"]),
        }
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BrokenBundle("not_a_bundle", f"This is no bundle of Slipway's: {error!r}.") from error
    _in_order(document["history"]["audit"])
    for sha256, size in named.items():
        _check(archive, sha256, size)
    there = {member.removeprefix(FILES) for member in archive.namelist()} - {DOCUMENT, SIGNATURE}
    if surplus := sorted(there - set(named)):
        raise BrokenBundle("surplus_file", f"The bundle holds {surplus[0]}, which nobody has signed.")
    return Bundle(
        **told,
        key_id=str(signature["key_id"]),
        public_key=public_key,
        trusted=trusted,
        files=len(named),
        bytes=sum(named.values()),
        audit_entries=len(audited),
        document=document,
    )


def _small(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        if archive.getinfo(name).file_size > LARGEST_DOCUMENT:
            raise BrokenBundle("not_a_bundle", f"{name} is larger than any that Slipway writes.")
        return archive.read(name)
    except KeyError as error:
        raise BrokenBundle("not_a_bundle", f"There is no {name} in it.") from error


def _signed_by(body: bytes, signature: Mapping[str, Any], public_key: str, keys: Sequence[str]) -> bool | None:
    """Whether one of the keys made the signature, or None where there are none: then only that it is one."""
    from Crypto.Signature import eddsa  # only who checks a signature waits for it

    raw = base64.b64decode(public_key, validate=True)
    if signature["algorithm"] != "ed25519" or signature["key_id"] != hashlib.sha256(raw).hexdigest()[:32]:
        raise BrokenBundle("bad_signature", "The signature does not say by which key it was made.")
    try:
        key = eddsa.import_public_key(raw)
        eddsa.new(key, "rfc8032").verify(body, base64.b64decode(str(signature["signature"]), validate=True))
    except ValueError as error:
        raise BrokenBundle("bad_signature", "The signature is not one of this document: one was changed.") from error
    if not keys:
        return None
    if public_key not in keys:
        raise BrokenBundle(
            "untrusted_key",
            f"The bundle is signed by {public_key} (id {signature['key_id']}), which is none of the keys given.",
            hint="Ask the exporting instance's operator for its public key, by another way than this file.",
        )
    return True


def _sealed(entry: Mapping[str, Any]) -> str:
    """The hash of an audit entry, which must be the one it carries."""
    sealed = json.dumps(
        {name: entry[name] for name in _SEALED}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    found = hashlib.sha256(str(entry["previous"]).encode() + sealed.encode()).hexdigest()
    if found != entry["hash"]:
        raise BrokenBundle("broken_audit", f"Audit entry {entry['id']} does not have the hash that seals it.")
    return found


def _in_order(entries: Sequence[Mapping[str, Any]]) -> None:
    """Entries about other things lie between; where two are neighbours, the second must seal the first."""
    for before, after in pairwise(entries):
        if after["id"] <= before["id"] or (after["id"] == before["id"] + 1 and after["previous"] != before["hash"]):
            raise BrokenBundle("broken_audit", f"Audit entry {after['id']} does not follow on {before['id']}.")


def _check(archive: zipfile.ZipFile, sha256: str, size: int) -> None:
    digest, read = hashlib.sha256(), 0
    try:
        with archive.open(FILES + sha256) as member:
            while read <= size and (chunk := member.read(_CHUNK)):
                digest.update(chunk)
                read += len(chunk)
    except KeyError as error:
        raise BrokenBundle("missing_file", f"The bundle names a file {sha256} that it does not hold.") from error
    if (digest.hexdigest(), read) != (sha256, size):
        raise BrokenBundle("digest_mismatch", f"The file {sha256} has other bytes than were signed.")
