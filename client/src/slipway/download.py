"""Bytes that come down: continued where they broke off, and never put in place before their digest is right."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path, PurePosixPath

import httpx2

from slipway.errors import DigestMismatch, NotAllowed, NotFound, SlipwayError, Unreachable
from slipway.records import Download
from slipway.transport import Wire, again_after, problem, unreachable
from slipway.upload import Listener, Progress, digest_of, ignore


def target_for(download: Download, to: str | Path) -> Path:
    """Return the file to write: `to` itself, or the server's name for it inside `to` where that is a folder.

    A folder is what is one already, and text that ends in a slash.
    """
    slash = isinstance(to, str) and to.endswith(("/", os.sep))
    to = Path(to)
    if not (slash or to.is_dir()):
        return to
    name = PurePosixPath(download.filename.replace("\\", "/")).name  # a server must not choose the folder
    return to / (name if name not in {"", ".", ".."} else f"{download.sha256[:12]}.bin")


def part_for(target: Path, sha256: str) -> Path:
    """Return where the unfinished bytes wait. The digest is in the name, so that two versions are never mixed."""
    return target.with_name(f"{target.name}.{sha256[:12]}.part")


def fetch(wire: Wire, link: Callable[[], Download], target: Path, first: Download, listen: Listener = ignore) -> None:
    """Bring `first` to `target`. `link` gives a fresh address for it, where the first has expired.

    A part that an earlier call left is continued. Bytes with the wrong digest are thrown away and fetched anew,
    once; then DigestMismatch is raised. `target` is replaced in one step, or not at all.
    """
    part = part_for(target, first.sha256)
    if target.is_file() and target.stat().st_size == first.size and digest_of(target) == first.sha256:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    for last_chance in (False, True):
        _fill(wire, link, part, first, listen)
        found = digest_of(part, listen, phase="checking")
        if found == first.sha256:
            part.replace(target)
            return
        part.unlink()
        if last_chance:
            raise DigestMismatch(
                "digest_mismatch",
                f"The bytes of {first.name} have SHA-256 {found}, promised was {first.sha256}.",
                hint="Nothing was kept. If it happens again, the stored file is damaged: tell the server's operator.",
            )


def _fill(wire: Wire, link: Callable[[], Download], part: Path, download: Download, listen: Listener) -> None:
    """Append to `part` until it is whole, over as many connections as it takes while each brings something."""
    failures, fresh_links = 0, 0
    if part.exists() and part.stat().st_size > download.size:
        part.unlink()
    while (have := _size(part)) < download.size or not part.exists():
        try:
            _append(wire, part, download, have, listen)
            error: SlipwayError = Unreachable("short_answer", f"The bytes of {download.name} ended too early.")
        except SlipwayError as failure:
            error = failure
        if _size(part) >= download.size and part.exists():
            return
        if (
            isinstance(error, NotAllowed | NotFound) and fresh_links == 0
        ):  # the address has expired, or the file has moved
            fresh_links += 1
            download = link()
            continue
        if _size(part) > have:
            failures, fresh_links = 0, 0
        failures += 1
        pause = again_after(error, failures, wire.retry)
        if pause is None or failures >= wire.retry.attempts:
            error.hint = error.hint or "What came is kept: the same command continues where it stopped."
            raise error
        time.sleep(pause)


def _append(wire: Wire, part: Path, download: Download, have: int, listen: Listener) -> None:
    ours = download.url.startswith("/")  # only our own API gets the credential, never a storage server
    url = httpx2.URL(wire.url + download.url if ours else download.url)
    headers = {"Accept-Encoding": "identity"} | (wire.headers() if ours else {})
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with wire.pool() as pool, pool.stream("GET", url, headers=headers) as answer:
            if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
                raise Unreachable("range_refused", "The server does not continue this download; it starts anew.")
            if not answer.is_success:
                answer.read()
                raise problem(answer)
            done = have if _continues(answer, have) else 0
            with part.open("ab" if done else "wb") as file:
                for chunk in answer.iter_raw():
                    file.write(chunk[: download.size - done])  # what is too long cannot fill the disk
                    done = min(download.size, done + len(chunk))
                    listen(Progress(phase="downloading", done=done, total=download.size))
                    if done == download.size:
                        break
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise unreachable(f"{url.scheme}://{url.netloc.decode()}", error) from error


def _continues(answer: httpx2.Response, have: int) -> bool:
    """Whether the answer starts at the byte that we miss first."""
    if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
        return False
    start = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
    if start is None or int(start[1]) != have:
        raise Unreachable("wrong_range", "The server sent another part of the file than was asked for.")
    return True


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
