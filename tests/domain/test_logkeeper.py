"""What is kept of the log: without secrets, without waiting, with a count of what was lost."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import pytest

from shared import logkeeper
from shared.logkeeper import LOT, ROOM, LogKeeper, Record


class Shelf:
    """Where records are written; `away` as long as it is told so."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.away = threading.Event()
        self.written = threading.Event()

    def __call__(self, records: Sequence[Record]) -> None:
        if self.away.is_set():
            raise ConnectionError("password=hunter2")
        self.records += records
        self.written.set()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logkeeper, "PAUSE", 0.01)


def say(keeper: LogKeeper, level: str = "warning", **fields: Any) -> None:
    keeper(None, level, {"event": "something.happened", "level": level, **fields})


def kept(keeper: LogKeeper, shelf: Shelf) -> list[Record]:
    keeper.close()
    return shelf.records


def test_what_is_worth_it_is_kept_and_goes_on_unchanged() -> None:
    shelf = Shelf()
    keeper = LogKeeper(shelf, level=logging.WARNING)
    said = {"event": "http.request", "level": "warning", "trace_id": "t1", "status": 404, "seconds": 0.5, "none": None}
    assert keeper(None, "warning", said) is said
    say(keeper, "info")
    say(keeper, "error", broken=float("nan"))
    first, second = kept(keeper, shelf)
    assert (first.event, first.level, first.trace_id) == ("http.request", 30, "t1")
    assert first.fields == {"status": 404, "seconds": 0.5}
    assert (second.level, second.fields) == (40, {"broken": "nan"})


@pytest.mark.parametrize(
    "field",
    [
        {"password": "hunter2"},
        {"jwt_secret": "hunter2"},
        {"Authorization": "Bearer hunter2"},
        {"note": "came with slw_hunter2hunter2hunter2"},
        {"note": "Bearer eyJhbGciOiJIUzI1NiJ9.eyJodW50ZXIyIjoxfQ.hunter2"},
        {"url": "postgresql://slipway:hunter2@db/slipway"},
        {"url": "https://s3/x?X-Amz-Algorithm=A&X-Amz-Signature=hunter2&x=1"},
    ],
)
def test_no_secret_is_kept(field: dict[str, str]) -> None:
    shelf = Shelf()
    keeper = LogKeeper(shelf, level=logging.WARNING)
    say(keeper, **field)
    (record,) = kept(keeper, shelf)
    assert "hunter2" not in str(record)
    assert "…" in str(record.fields)


def test_of_an_exception_kind_and_place_are_kept_and_not_its_text() -> None:
    shelf = Shelf()
    keeper = LogKeeper(shelf, level=logging.WARNING)
    try:
        raise ValueError("hunter2 is not a number")
    except ValueError as error:
        say(keeper, "error", exc_info=True)
        say(keeper, "error", exc_info=error)
    for record in kept(keeper, shelf):
        assert str(record.fields["exception"]).startswith("ValueError at test_logkeeper.py:")
        assert "hunter2" not in str(record)


def test_values_are_bounded_and_storable() -> None:
    shelf = Shelf()
    keeper = LogKeeper(shelf, level=logging.WARNING)
    say(keeper, long="x" * 10_000, odd="a\0b\ud800", **{f"f{number}": number for number in range(100)})
    (record,) = kept(keeper, shelf)
    assert len(record.fields) == logkeeper.MOST
    assert record.fields["long"] == "x" * logkeeper.LONGEST
    assert record.fields["odd"] == "ab?"


def test_nobody_waits_and_what_was_lost_is_counted() -> None:
    shelf = Shelf()
    shelf.away.set()
    keeper = LogKeeper(shelf, level=logging.WARNING)
    sent = ROOM + 5 * LOT
    for number in range(sent):
        say(keeper, number=number)
    shelf.away.clear()
    assert shelf.written.wait(10)
    keeper.close(10)
    lost = sum(int(record.fields["records"]) for record in shelf.records if record.event == "log.lost")
    there = [record for record in shelf.records if record.event != "log.lost"]
    assert lost > 0
    assert lost + len(there) == sent


def test_a_forked_child_writes_on_its_own() -> None:
    shelf = Shelf()
    keeper = LogKeeper(shelf, level=logging.WARNING)
    say(keeper, where="parent")
    assert shelf.written.wait(10)
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12 it warns of what this test is about
        child = os.fork()
    if child == 0:
        say(keeper, where="child")
        keeper.close(5)
        os.write(writer, str(shelf.records[-1].fields["where"]).encode())
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 100) == b"child"
    os.close(reader)
    os.waitpid(child, 0)
    keeper.close()
    assert [record.fields["where"] for record in shelf.records] == ["parent"]
