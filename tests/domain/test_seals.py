"""A seal holds where a trusted key signed the stored bytes, and these name what is published. Nothing less."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from registry.rules import VALID
from registry.seals import Manifest, Signed, fault, seal
from shared.signing import Signature, Signer

OURS, THEIRS = Signer("o" * 32), Signer("t" * 32)
PUBLISHED = {"onnx-fp32": "a" * 64, "sample": "b" * 64}
TRUSTED = [OURS.public_key]


def manifest(signer: Signer = OURS, *, version: str = "1.0.0", artifacts: dict[str, str] = PUBLISHED) -> Manifest:
    document: dict[str, Any] = {"version": version, "source": {"sha256": "s" * 64}}
    document["artifacts"] = [{"name": name, "sha256": sha256} for name, sha256 in artifacts.items()]
    content = json.dumps(document).encode()
    signed = Signed(signature=signer.sign(content), public_key=signer.public_key, created_at=datetime.now(UTC))
    return Manifest(
        name="manifest.json", sha256=hashlib.sha256(content).hexdigest(), content=content, signatures=[signed]
    )


def sealed(*manifests: Manifest, published: dict[str, str] = PUBLISHED, trusted: list[str] = TRUSTED) -> str:
    return seal(manifests, published, trusted, source="s" * 64, version="1.0.0")


def test_what_was_signed_here_is_sealed_and_so_is_what_a_trusted_instance_signed() -> None:
    assert sealed(manifest()) == VALID
    assert sealed(manifest(THEIRS), trusted=[*TRUSTED, THEIRS.public_key]) == VALID


def test_files_that_came_later_are_sealed_by_their_own_manifest() -> None:
    later = manifest(artifacts={"onnx-int8": "c" * 64})
    both = PUBLISHED | {"onnx-int8": "c" * 64}
    assert sealed(manifest(), published=both) == "no signed manifest names onnx-int8 as it is"
    assert sealed(manifest(), later, published=both) == VALID


def unsigned(made: Manifest) -> Manifest:
    return replace(made, signatures=())


def forged(made: Manifest) -> Manifest:
    """Other bytes under our name, with a record that fits them."""
    content = (made.content or b"").replace(b"a" * 64, b"e" * 64)
    return replace(made, content=content, sha256=hashlib.sha256(content).hexdigest())


def other_document(made: Manifest) -> Manifest:
    """Something else that our key has signed."""
    content = b'["an audit checkpoint"]'
    signed = replace(made.signatures[0], signature=OURS.sign(content))
    return replace(made, content=content, sha256=hashlib.sha256(content).hexdigest(), signatures=[signed])


def borrowed(made: Manifest) -> Manifest:
    """Somebody else's signature that says it is ours."""
    theirs = THEIRS.sign(made.content or b"")
    signature = Signature(key_id=OURS.key_id, value=theirs.value)
    return replace(made, signatures=[replace(made.signatures[0], signature=signature)])


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (unsigned(manifest()), "manifest.json is not signed"),
        (manifest(THEIRS), f"the key {THEIRS.key_id} is not trusted here"),
        (replace(manifest(), content=None), "manifest.json is not in storage"),
        (replace(manifest(), content=b"{}"), "manifest.json in storage is not the one that was recorded"),
        (forged(manifest()), "the signature does not fit manifest.json"),
        (borrowed(manifest()), "the signature does not fit manifest.json"),
        (other_document(manifest()), "manifest.json is signed, but no manifest"),
        (manifest(version="2.0.0"), "manifest.json is of another version"),
        (manifest(artifacts=PUBLISHED | {"onnx-fp32": "f" * 64}), "no signed manifest names onnx-fp32 as it is"),
    ],
)
def test_whatever_does_not_fit_breaks_the_seal(made: Manifest, says: str) -> None:
    assert sealed(made) == says


def test_one_good_signature_is_enough_whoever_else_signed() -> None:
    made = manifest()
    both = replace(made, signatures=[*borrowed(made).signatures, *made.signatures])
    assert sealed(both) == VALID
    assert [fault(both, each, TRUSTED) for each in both.signatures] == [
        "the signature does not fit manifest.json",
        None,
    ]


def test_without_a_manifest_there_is_no_seal() -> None:
    assert sealed() == "there is no manifest"
