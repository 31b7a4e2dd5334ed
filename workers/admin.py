"""`slipway-admin rescan|audit`: what an operator does by hand, with the settings of every other process."""

from __future__ import annotations

import argparse
import sys

from pipeline.stage import discover
from registry import audit, reviews
from shared import observe
from shared.db import Begin, connect, transactions
from shared.settings import Settings
from workers.rescan import current_rules, queue


def main() -> None:
    parser = argparse.ArgumentParser(prog="slipway-admin", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    looking = commands.add_parser("rescan", help="queue another scan of versions whose verdict is out of date")
    looking.add_argument("--all", action="store_true", help="of every clean version, whatever rules it was judged by")
    commands.add_parser("audit", help="read the audit trail and check that every entry seals the one before")
    wish = parser.parse_args()
    settings = Settings()
    observe.configure(fmt=settings.log_format, level=settings.log_level)
    begin = transactions(connect(settings.sqlalchemy_url, pool_size=1))
    sys.exit(_rescan(begin, settings, everything=wish.all) if wish.command == "rescan" else _audit(begin))


def _rescan(begin: Begin, settings: Settings, *, everything: bool) -> int:
    stages = discover(settings.stage_packages)
    if everything:
        with begin() as session:
            reviews.forget_rules(session)
    queued = queue(begin, stages, current_rules(settings.second_opinions))
    sys.stdout.write(f"{queued} re-scans are queued; follow them as runs.\n")
    return 0


def _audit(begin: Begin) -> int:
    with begin() as session:
        chain = audit.verify(session)
    if chain.broken_at is not None:
        sys.stderr.write(f"The trail is broken at entry {chain.broken_at}; {chain.entries} before it are intact.\n")
        return 1
    sys.stdout.write(f"{chain.entries} entries, intact. Head: {chain.head}\n")
    return 0


if __name__ == "__main__":
    main()
