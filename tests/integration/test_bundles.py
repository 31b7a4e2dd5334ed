"""A version goes to another instance as one signed file: whole, checkable without us, and scanned again where it arrives."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from slipway import Client
from slipway.bundles import unpacked, verify
from slipway.errors import BrokenBundle, NotAllowed

from api.app import create_app
from api.deps import Services
from registry import store, usage
from shared.db import Begin
from shared.signing import Signer
from tests.integration.api_fixtures import (
    Person,
    ada,
    anonymous,
    app,
    join,
    parts,
    problem,
    served,
    serving,
    signed_in,
    url,
)
from tests.integration.shelf_fixtures import Shelf, shelf
from tests.integration.upload_fixtures import CONTENT_TYPE, file, form, safetensors, text

Join = Callable[..., Person]
SOURCE = safetensors(5000)


@pytest.fixture
def on(shelf: Callable[..., Shelf]) -> Shelf:
    return shelf(SOURCE, "digits.safetensors", "safetensors")


@pytest.fixture
def bundle(on: Shelf, ada: httpx2.Client, tmp_path: Path) -> Path:
    path = tmp_path / "digits.slipway.zip"
    path.write_bytes(ada.get(f"{on.path}/bundle").content)
    return path


@pytest.fixture(scope="module")
def elsewhere(parts: Services) -> Iterator[str]:
    """Another instance, with a key of its own, that trusts the first one."""
    trusting = parts.settings.model_copy(update={"trusted_keys": (parts.signer.public_key,)})
    other = replace(parts, settings=trusting, signer=Signer("another instance's secret, of 32 bytes"))
    with serving(create_app(other)) as running:
        yield running.url


@pytest.fixture
def grace(join: Join, elsewhere: str, parts: Services) -> Iterator[httpx2.Client]:
    """Somebody of the other instance."""
    with signed_in(elsewhere, parts.tokens.issue(str(join().id))) as client:
        yield client


def changed(bundle: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """The same bundle with other bytes under a name that begins so."""
    made = bundle.with_name(f"changed-{name.replace('/', '-')}.zip")
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(made, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            new.writestr(member, change(content) if member.startswith(name) else content)
    return made


def test_a_bundle_holds_all_there_is_and_is_checked_without_us(
    on: Shelf, bundle: Path, ada: httpx2.Client, parts: Services, begin: Begin
) -> None:
    checked = verify(bundle, [parts.signer.public_key])
    assert (checked.model, checked.version, checked.trusted) == ("digits", "1.0.0", True)
    roles = [each["role"] for each in checked.document["files"]]
    assert roles == ["source", "config", "canonical", "manifest", "sample"]
    told = [each["action"] for each in checked.document["history"]["audit"]]
    assert sorted(told) == ["alias.moved", "verdict.changed"]
    with zipfile.ZipFile(bundle) as archive:
        assert SOURCE in [archive.read(name) for name in archive.namelist()]

    with begin() as session:
        usage.count(session, on.version_id, "download")  # being read changes nothing about it
    assert ada.get(f"{on.path}/bundle").content == bundle.read_bytes()


def test_whatever_is_changed_in_a_bundle_shows(bundle: Path, parts: Services, tmp_path: Path) -> None:
    def code(path: Path, *keys: str) -> str:
        with pytest.raises(BrokenBundle) as caught:
            verify(path, keys)
        assert caught.value.exit_code == 3
        return caught.value.code

    assert (
        code(changed(bundle, "bundle.json", lambda content: content.replace(b"digits", b"digitz"))) == "bad_signature"
    )
    assert code(changed(bundle, "files/", lambda content: content[:-1] + b"!")) == "digest_mismatch"
    assert code(changed(bundle, "files/", lambda content: content + b"!")) == "digest_mismatch"
    assert code(bundle, Signer("somebody else's secret of 32 bytes").public_key) == "untrusted_key"
    cut = tmp_path / "cut.zip"
    cut.write_bytes(bundle.read_bytes()[:-100])
    assert code(cut) == "not_a_bundle"
    more = changed(bundle, "nothing", lambda content: content)
    with zipfile.ZipFile(more, "a") as archive:
        archive.writestr("files/more", b"!")
    assert code(more) == "surplus_file"


def test_an_audit_entry_that_does_not_fit_its_seal_shows_even_where_it_is_signed(bundle: Path, parts: Services) -> None:
    """An instance that rewrites its own trail can sign what it likes, but not with seals that hold."""

    def rewritten(content: bytes) -> bytes:
        document = json.loads(content)
        document["history"]["audit"][0]["details"]["to"] = "malicious"
        return json.dumps(document).encode()

    forged = changed(bundle, "bundle.json", rewritten)
    with zipfile.ZipFile(forged) as archive:
        made = parts.signer.sign(archive.read("bundle.json"))
    forged = changed(
        forged, "bundle.sig", lambda said: json.dumps(json.loads(said) | {"signature": made.value}).encode()
    )
    with pytest.raises(BrokenBundle) as caught:
        verify(forged, [parts.signer.public_key])
    assert caught.value.code == "broken_audit"


def test_only_the_owner_exports(on: Shelf, join: Join, anonymous: httpx2.Client) -> None:
    problem(join().client.get(f"{on.path}/bundle"), 403, "forbidden")  # it is public, and holds what was uploaded
    problem(anonymous.get(f"{on.path}/bundle"), 401, "unauthenticated")
    assert join("admin").client.get(f"{on.path}/bundle").status_code == 200


def test_a_version_moves_to_an_instance_that_trusts_the_first_and_is_judged_there_anew(
    on: Shelf, bundle: Path, grace: httpx2.Client, elsewhere: str, begin: Begin, tmp_path: Path
) -> None:
    token = grace.headers["Authorization"].removeprefix("Bearer ")
    with Client(elsewhere, token) as client:
        run = client.bundles.send(bundle, name="from-ada")
        assert (run.status, run.model, run.version) == ("queued", "from-ada", "1.0.0")
        here = client.version("from-ada@1.0.0")
        assert (here.verdict, here.published_at) == ("pending", None)  # trusted, and scanned all the same
        assert here.raw["declared"] == {"classes": ["zero", "one"], "description": "Handwritten digits"}
        assert list(here.raw["side_files"]) == ["config"]
        assert [each.name for each in here.artifacts] == ["source", "imported-bundle.json"]

        origin = client.bundles.origin("from-ada@1.0.0")
        assert (origin.model, origin.version) == ("digits", "1.0.0")
        assert [each["outcome"] for each in origin.artifacts] == ["absent"]
        with begin() as session:  # what the run would publish, had it converted to the same bytes
            store.publish(session, UUID(here.id), [on.made["onnx-fp32"]])
        (compared,) = client.bundles.origin("from-ada@1.0.0").artifacts
        assert (compared["outcome"], compared["toolchain_same"]) == ("same", True)
    problem(grace.get(f"{on.path}/import"), 404, "not_imported")


def test_a_bundle_is_taken_whole_from_a_trusted_key_or_not_at_all(
    bundle: Path, grace: httpx2.Client, join: Join, parts: Services
) -> None:
    with unpacked(bundle) as (_, paths):
        sent = {part: (path.name, path.read_bytes()) for part, path in paths.items()}

    def send(client: httpx2.Client, *fields: bytes, without: str = "", **other: bytes) -> httpx2.Response:
        files = [
            file(part, name, other.get(part, content)) for part, (name, content) in sent.items() if part != without
        ]
        return client.post("/api/v1/bundles", content=form(*fields, *files), headers={"Content-Type": CONTENT_TYPE})

    lie = sent["bundle_file"][1].replace(b"zero", b"null")
    problem(send(grace, bundle_file=lie), 403, "untrusted_bundle")
    stranger = Signer("nobody's secret that is long enough")
    made = stranger.sign(sent["bundle_file"][1])
    signature = json.loads(sent["signature_file"][1]) | {"key_id": stranger.key_id, "signature": made.value}
    problem(send(grace, signature_file=json.dumps(signature).encode()), 403, "untrusted_bundle")
    problem(send(grace, model_file=safetensors(5001)), 400, "digest_mismatch")
    problem(send(grace, without="config_file"), 400, "digest_mismatch")
    problem(send(grace, text("description", "another")), 422, "invalid_field")
    another = join().client
    problem(send(another, without="signature_file"), 400, "missing_file")
    for nonsense in (b"{}", b"[" * 100_000):
        problem(send(another, signature_file=nonsense), 422, "invalid_field")
    assert send(another).status_code == 202  # its own bundles an instance trusts
    reader = join("models:read").client
    problem(send(reader), 403, "forbidden")
