"""`slipway-admin gc|storage check|restore check`: what lies in storage, who needs it, whether it is encrypted, what a restore has lost."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Literal, get_args

from pipeline import garbage, purging, restoring
from shared.db import Begin
from shared.errors import DependencyUnavailable, ObjectMissing
from shared.settings import Settings
from shared.storage import Bucket, Storage, Stored

Room = Literal["staging", "registry", "quarantine"]
ROOMS: tuple[Room, ...] = get_args(Room)


def add_commands(commands: Any) -> None:
    """To a parser's sub-commands."""
    collecting = commands.add_parser("gc", help="remove rows whose time is over and bytes that no row names")
    collecting.add_argument("--dry-run", action="store_true", help="remove nothing, say what would go")
    collecting.add_argument("--json", action="store_true", help="one JSON document")
    storing = commands.add_parser("storage", help="look at what is stored").add_subparsers(dest="what", required=True)
    checking = storing.add_parser("check", help="list objects that are not encrypted as S3_ENCRYPTION says")
    checking.add_argument("--encrypt", action="store_true", help="write them again, encrypted")
    checking.add_argument("--json", action="store_true", help="one JSON document")
    restored = commands.add_parser("restore", help="after a restore").add_subparsers(dest="what", required=True)
    looking = restored.add_parser("check", help="list objects that rows name and storage does not hold")
    looking.add_argument("--digests", action="store_true", help="read every object and compare its SHA-256")
    looking.add_argument("--repair", action="store_true", help="have runs go on from where their bytes allow it")
    looking.add_argument("--json", action="store_true", help="one JSON document")


def run(wish: argparse.Namespace, begin: Begin, settings: Settings) -> int:
    storage = Storage(**settings.storage)
    buckets = {room: storage.bucket(settings.bucket(room)) for room in ROOMS}
    if wish.command == "gc":
        return _collect(wish, begin, settings, buckets)
    if wish.command == "restore":
        return _restored(wish, begin, buckets)
    if settings.s3_encryption == "none" and not settings.storage_key.get_secret_value():
        sys.stderr.write("S3_ENCRYPTION is none: there is nothing that an object should be encrypted by.\n")
        return 2
    return _check(wish, [*buckets.values(), storage.bucket(settings.bucket("exports"))])


def _collect(wish: argparse.Namespace, begin: Begin, settings: Settings, buckets: dict[Any, Bucket]) -> int:
    told: list[dict[str, Any]] = []

    def tell(bucket: Bucket, stored: Stored) -> None:
        if wish.json:
            told.append({"bucket": bucket.name, "key": stored.key, "size": stored.size})
        else:
            sys.stdout.write(f"{bucket.name}/{stored.key}  {stored.size:,} bytes\n")

    purged = 0 if wish.dry_run else purging.purge_overdue(begin, settings.delete_retention)
    grace = timedelta(seconds=settings.gc_grace)
    swept = garbage.collect(begin, **buckets, grace=grace, dry_run=wish.dry_run, tell=tell)
    objects, size = swept.objects.total(), swept.bytes.total()
    if wish.json:
        document = {"dry_run": wish.dry_run, "purged": purged, "objects": objects, "bytes": size, "removed": told}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        verb = "would go" if wish.dry_run else "are gone"
        sys.stdout.write(f"{objects:,} objects, {size:,} bytes {verb}; {purged} models and versions were purged.\n")
    return 0


def _check(wish: argparse.Namespace, buckets: list[Bucket]) -> int:
    """0 where all is encrypted by the end, else 1."""
    looked, plain, failed = 0, [], []
    for bucket in buckets:
        for stored in bucket.list():
            try:
                if bucket.encrypted(stored.key):
                    looked += 1
                    continue
            except ObjectMissing:  # gone since it was listed
                continue
            looked += 1
            found = {"bucket": bucket.name, "key": stored.key, "size": stored.size}
            plain.append(found)
            said = ""
            if wish.encrypt:
                try:
                    bucket.encrypt(stored.key)
                    said = "  encrypted now"
                except ObjectMissing:
                    said = "  gone meanwhile"
                except DependencyUnavailable as error:  # one that cannot be read must not keep the others in the clear
                    failed.append(found | {"code": error.code, "message": error.message})
                    said = f"  {error.message}"
            if not wish.json:
                sys.stdout.write(f"{bucket.name}/{stored.key}{said}\n")
    if wish.json:
        told = {"objects": looked, "plain": plain, "encrypted_now": wish.encrypt, "failed": failed}
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        state = "were" if wish.encrypt else "are"
        sys.stdout.write(f"{len(plain):,} of {looked:,} objects {state} not encrypted as S3_ENCRYPTION says.\n")
    return 1 if failed or (plain and not wish.encrypt) else 0


def _restored(wish: argparse.Namespace, begin: Begin, buckets: dict[Any, Bucket]) -> int:
    """0 where every object is there, else 1."""
    checked = restoring.check(begin, **buckets, digests=wish.digests, repair=wish.repair)
    if wish.json:
        sys.stdout.write(json.dumps(asdict(checked) | {"repaired": wish.repair}, default=str) + "\n")
        return 1 if checked.faults else 0
    for fault in checked.faults:
        sys.stdout.write(f"{fault.what}: {fault.bucket}/{fault.key} of {fault.version}\n")
    verb = "goes on" if wish.repair else "would go on"
    for run in checked.repeated:
        sys.stdout.write(f"Run {run.run_id} {verb} from {run.stage}: what that step had made is gone.\n")
    where = "are taken from quarantine" if wish.repair else "would be taken from quarantine"
    sys.stdout.write(
        f"{len(checked.faults):,} of {checked.objects:,} objects are missing or altered; {len(checked.found)} originals "
        f"{where}, {len(checked.repeated)} runs repeat steps.\n"
    )
    return 1 if checked.faults else 0
