"""Versions that travel: bundles checked without any server, components brought whole, and what is counted."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
from commands import slipway
from conditions import RUN, Harbour
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

SOURCE, CONFIG = b"the model", b"threshold: 1"

pytestmark = pytest.mark.usefixtures("signed_in")


def made_by(key: ECC.EccKey, *, source: bytes = SOURCE) -> bytes:
    """A bundle, made independently of the code that makes and checks them."""
    files = [("source", SOURCE, "digits.onnx"), ("config", CONFIG, "../digits.yaml")]
    entry = {
        "id": 7,
        "at": "2026-01-02T03:04:05.000000+00:00",
        "actor_id": None,
        "actor": "slipway",
        "action": "a",
        "subject": "v",
        "details": {},
    }
    sealed = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    seal = hashlib.sha256(b"0" * 64 + sealed.encode()).hexdigest()
    document = {
        "bundle": 1,
        "model": {"name": "digits", "owner": "ada"},
        "version": {"version": "1.0.0"},
        "history": {"audit": [entry | {"previous": "0" * 64, "hash": seal}]},
        "files": [
            {
                "role": role,
                "name": role,
                "sha256": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "meta": {"filename": name},
            }
            for role, content, name in files
        ],
    }
    body = json.dumps(document).encode()
    raw = key.public_key().export_key(format="raw")
    signature = {
        "algorithm": "ed25519",
        "key_id": hashlib.sha256(raw).hexdigest()[:32],
        "public_key": base64.b64encode(raw).decode(),
        "signature": base64.b64encode(eddsa.new(key, "rfc8032").sign(body)).decode(),
    }
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("bundle.sig", json.dumps(signature))
        archive.writestr("bundle.json", body)
        for _, content, _ in files:
            name = f"files/{hashlib.sha256(content).hexdigest()}"
            archive.writestr(name, source if content == SOURCE else content)
    return written.getvalue()


@pytest.fixture(scope="module")
def key() -> ECC.EccKey:
    return ECC.generate(curve="ed25519")


def public(key: ECC.EccKey) -> str:
    return base64.b64encode(key.public_key().export_key(format="raw")).decode()


@pytest.fixture
def bundle(key: ECC.EccKey, tmp_path: Path) -> Path:
    path = tmp_path / "digits.slipway.zip"
    path.write_bytes(made_by(key))
    return path


def test_a_bundle_is_verified_offline_and_exit_3_says_that_it_does_not_hold(
    bundle: Path, key: ECC.EccKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_URL", "http://127.0.0.1:1")
    done = slipway("verify", "bundle", bundle, "--key", public(key), "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert (said["trusted"], said["files"], said["audit_entries"]) == (True, 2, 1)
    unasked = slipway("verify", "bundle", bundle)
    assert (unasked.exit_code, "ada/digits@1.0.0" in unasked.stdout) == (0, True)
    assert "--key" in unasked.stderr
    stranger = slipway("verify", "bundle", bundle, "--key", public(ECC.generate(curve="ed25519")))
    assert (stranger.exit_code, "untrusted_key" in stranger.stderr) == (3, True)
    bundle.write_bytes(made_by(key, source=b"the m0del"))
    assert slipway("verify", "bundle", bundle).exit_code == 3
    bundle.write_bytes(b"no zip at all")
    assert slipway("verify", "bundle", bundle).exit_code == 3


def test_an_export_is_checked_before_it_is_there(server: Harbour, key: ECC.EccKey, tmp_path: Path) -> None:
    server.bundle = made_by(key)
    target = tmp_path / "out.zip"
    assert slipway("export", "digits@1.0.0", "-o", target, "-q").stdout.strip() == str(target)
    assert target.read_bytes() == server.bundle
    assert slipway("export", "digits@1.0.0", "-o", target).exit_code == 6
    good, server.bundle = server.bundle, made_by(key, source=b"the m0del")
    assert slipway("export", "digits@1.0.0", "-o", target, "--force").exit_code == 3
    assert target.read_bytes() == good
    assert list(tmp_path.glob("*.part")) == []


def test_an_import_sends_what_the_bundle_names_and_follows_the_run(server: Harbour, bundle: Path) -> None:
    done = slipway("import", bundle, "--name", "theirs", "--watch")
    assert done.exit_code == 0, done.stderr
    assert server.upload["fields"] == {"name": "theirs"}
    files = server.upload["files"]
    assert list(files) == ["bundle_file", "signature_file", "config_file", "model_file"]
    assert (files["model_file"], files["config_file"]) == (("digits.onnx", SOURCE), ("digits.yaml", CONFIG))
    assert "onnx-fp32: same as on the other server" in done.stderr
    assert slipway("import", bundle, "-q").stdout.strip() == RUN


def test_components_are_brought_whole_and_what_is_missing_is_said(server: Harbour, tmp_path: Path) -> None:
    server.bytes_by_artifact = {"onnx-fp32": b"weights", "onnx-int8": b"small"}
    done = slipway("get", "digits", "weights", "code", "-o", tmp_path / "digits", "-q")
    assert done.exit_code == 0, done.stderr
    assert [Path(line).read_bytes() for line in done.stdout.splitlines()] == [b"weights", b"small"]
    assert (tmp_path / "digits" / "onnx-fp32.onnx").is_file()
    loud = slipway("get", "digits", "full", "-o", tmp_path)
    assert "no code: no code came with it" in loud.stderr
    assert slipway("get", "digits", "bones").exit_code == 2
    server.bytes_by_artifact = {}
    assert slipway("get", "digits", "code").exit_code == 5


def test_usage_is_shown(server: Harbour) -> None:
    assert "3 downloads, 40 predictions in 7 days" in slipway("usage", "digits", "--days", "7").stdout
    mine = slipway("usage").stdout
    assert "no limit" in mine
    assert "4 kB" in mine or "4.1 kB" in mine
