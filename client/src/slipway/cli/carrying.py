"""Commands about versions that travel: as a bundle from one server to another, or in parts to this machine; and usage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from slipway import bundles, refs
from slipway.bundles import Bundle
from slipway.cli import tables, wording
from slipway.cli.pushing import Meter
from slipway.cli.reading import Ref
from slipway.cli.running import launched
from slipway.cli.screen import Json, Quiet, Screen, guarded, plain, session, text, usage
from slipway.components import COMPONENTS
from slipway.errors import Conflict, NotFound

BundleFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A bundle.", exists=True, dir_okay=False, readable=True)
]
Variant = Annotated[str | None, typer.Option("--variant", help="Which one; default: the best on the device.")]
Device = Annotated[str | None, typer.Option("--device", "-d", help="cpu, or a GPU's architecture, such as sm90.")]
Keys = Annotated[
    list[str] | None,
    typer.Option("--key", help="A public key (base64) that you trust; may be repeated. Without it none is asked for."),
]

verify = typer.Typer(no_args_is_help=True, help="Check files offline, without any server.")


def export(
    ref: Ref,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: NAME-VERSION.slipway.zip.", dir_okay=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a file that is there.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a version with its history and its evidence into one signed file, and check it."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        name, _ = refs.parse(ref)
        version = client.version(ref).version
        target = output or Path(f"{Path(name.replace('/', '-')).name}-{version}.slipway.zip")
        if target.exists() and not force:
            raise Conflict("file_exists", f"{target} is there already.", hint="Replace it with --force.")
        screen.say(text(f"exporting {name}@{version}"))
        _shown(screen, client.bundles.export(f"{name}@{version}", target), target)


def export_triton(  # noqa: PLR0917 - one parameter per option
    ref: Ref,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A folder: the model repository, for several models.", file_okay=False),
    ] = Path("model_repository"),
    stored: Annotated[bool, typer.Option("--s3", help="Instead: put it into the server's storage.")] = False,
    variant: Variant = None,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a version as a model repository that Triton Inference Server serves."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if stored:
            made = client.exports.triton(ref, variant=variant, device=device)
            until = f"  until {made.expires_at:%Y-%m-%d %H:%M}" if made.expires_at else ""
            lines = [text(f"{made.address}{until}", "bold"), *(text(each, "cyan") for each in made.commands)]
            screen.result(made.raw, Group(*lines), bare=made.address)
            return
        paths = client.exports.repository(ref, output, variant=variant, device=device)
        command = f"tritonserver --model-repository={output.absolute()}"
        human = Group(*(text(path) for path in paths), text(command, "cyan"))
        document = {"files": [str(path) for path in paths], "commands": [command]}
        screen.result(document, human, bare=str(output))


def export_kserve(  # noqa: PLR0917 - one parameter per option
    ref: Ref,
    storage_uri: Annotated[
        str | None, typer.Option("--storage-uri", help="Where you have put the repository; default: our storage.")
    ] = None,
    variant: Variant = None,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print a KServe InferenceService for a version, to pipe into kubectl apply -f -."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        made = client.exports.kserve(ref, storage_uri=storage_uri, variant=variant, device=device)
        if as_json:
            screen.document(made.raw)
        else:
            screen.line((made.manifest or "").rstrip("\n"))


def bring(  # noqa: PLR0917 - one parameter per option
    file: BundleFile,
    name: Annotated[str | None, typer.Option("--name", "-n", help="The model's name here.")] = None,
    key: Keys = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay until the run is over.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take the version in a bundle in: scanned, converted and measured here again."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        with Meter(screen, file) as meter:
            run = client.bundles.send(file, name=name, keys=key or (), progress=meter.see)
        finished = launched(client, screen, run, stay=watch)
        if watch and finished.status == "succeeded":
            origin = client.bundles.origin(f"{finished.model}@{finished.version}")
            for form in origin.artifacts:
                screen.say(text(f"{form['name']}: {form['outcome']} as on the other server", "dim"))


@verify.command("bundle")
def verify_bundle(file: BundleFile, key: Keys = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Check a bundle's signature, every file's digest and the seals of its audit entries. Exit 3 where one is wrong."""
    screen = Screen(as_json=as_json, quiet=quiet)
    with guarded(screen):
        _shown(screen, bundles.verify(file, key or ()), file)


def used(
    name: Annotated[str | None, typer.Argument(help="A model; without it: what you have and may have.")] = None,
    days: Annotated[int, typer.Option(help="How many days back.", min=1)] = 30,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show how much a model is used, or how much of your quota."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if name is None:
            mine = client.usage.mine()
            made = tables.table("what", "used", "allowed", right=("used", "allowed"))
            for what, amount, shown in (("models", mine.models, str), ("bytes", mine.bytes, wording.size)):
                allowed = "no limit" if amount.allowed is None else shown(amount.allowed)
                made.add_row(what, shown(amount.used), allowed)
            screen.result(mine.raw, Group(text(f"plan {mine.plan}"), made), bare=str(mine.bytes.used))
            return
        found = client.usage.of(name, days=days)
        made = tables.table("version", "downloads", "predictions", "bytes", "last used", right=("downloads",))
        for row in found.by_version:
            cells = (str(row["downloads"]), str(row["predictions"]), wording.size(row["bytes"]))
            made.add_row(text(row["version"]), *cells, text(row["last_used"] or ""))
        total = f"{found.downloads} downloads, {found.predictions} predictions in {wording.count(days, 'day')}"
        screen.result(found.raw, Group(text(total), made), bare=str(found.downloads + found.predictions))


def get(
    ref: Ref,
    component: Annotated[list[str], typer.Argument(metavar="COMPONENT...", help=", ".join(COMPONENTS))],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder.")] = Path(),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch whole components of a version into a folder, every file's digest checked."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if unknown := [each for each in component if each not in COMPONENTS]:
            raise usage(f"{unknown[0]} is no component.", f"It is one of {', '.join(COMPONENTS)}.")
        offered = client.components.of(ref, component)
        for name, reason in offered.missing.items():
            screen.say(text(f"no {name}: {reason}", "yellow"))
        if not offered.files:
            raise NotFound("nothing_there", f"{ref} has nothing of {', '.join(component)}.")
        with Meter(screen, output) as meter:
            paths = client.components.fetch(offered, ref, output, progress=meter.see)
        listed = [
            {"path": str(path), "component": kind, "sha256": file.sha256, "size": file.size}
            for path, (kind, file) in zip(paths, offered.files, strict=True)
        ]
        human = Group(*(text(f"{each['path']}  {each['component']}  SHA-256 {each['sha256']}") for each in listed))
        document = {"files": listed, "missing": dict(offered.missing)}
        screen.result(document, human, bare="\n".join(str(path) for path in paths))


def _shown(screen: Screen, bundle: Bundle, path: Path) -> None:
    if bundle.trusted is None:
        screen.hint(f"The key {bundle.public_key} signed it; whether you trust it, say with --key.")
    human = Text(plain(path), style="bold").append(
        f"  {plain(bundle.owner)}/{plain(bundle.model)}@{plain(bundle.version)}, "
        f"{wording.count(bundle.files, 'file')}, {wording.size(bundle.bytes)}, "
        f"{bundle.audit_entries} audit entries, signed by {plain(bundle.key_id)}: all as it was signed",
        style="dim",
    )
    screen.result({"path": str(path), **bundle.as_json()}, human, bare=str(path))
