"""The engine on a real database with real commits: one door, one truth, and everything at once or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text

from pipeline import engine, store
from pipeline.errors import NotFound, Stale
from pipeline.run import Broke, Cancel, Claimed, Passed, Refused, Retry, Status
from registry.lookup import Viewer
from shared.db import Begin
from shared.settings import Settings

FIRST = {"stage": "scan", "attempt": 1}


def kinds(begin: Begin, run_id: UUID) -> list[str]:
    with begin() as session:
        return [event.kind for event in store.events_after(session, run_id, -1)]


def outbox(begin: Begin, run_id: UUID) -> list[tuple[str, dict[str, object]]]:
    with begin() as session:
        rows = session.execute(text("SELECT topic, body FROM outbox WHERE run_id = :id ORDER BY id"), {"id": run_id})
        return [(row.topic, row.body) for row in rows]


def send(begin: Begin, run_id: UUID, signal: object) -> None:
    with begin() as session:
        engine.send(session, run_id, signal)  # type: ignore[arg-type]


def test_a_submitted_run_has_an_event_and_a_message_in_the_same_transaction(
    begin: Begin, submit: Callable[..., UUID]
) -> None:
    run_id = submit("scan", "promote", model="digits")
    assert kinds(begin, run_id) == ["submitted"]
    ((topic, body),) = outbox(begin, run_id)
    assert (topic, body) == ("ring", {"stage": "scan", "queue": "cpu", "attempt": 1, "model": "digits@1.0.0"})


def test_a_run_goes_from_submit_to_success_and_its_events_have_no_gaps(
    begin: Begin, submit: Callable[..., UUID]
) -> None:
    run_id = submit("scan", "promote")
    send(begin, run_id, Claimed(**FIRST, worker="w1"))
    send(begin, run_id, Passed(**FIRST, report={"facts": {"verdict": "clean"}, "files": []}))
    send(begin, run_id, Claimed(stage="promote", attempt=1))
    entry = {
        "name": "onnx-fp32",
        "role": "canonical",
        "key": "k",
        "sha256": "1" * 64,
        "size": 1,
        "media_type": "a/b",
        "meta": {},
    }
    send(begin, run_id, Passed(stage="promote", attempt=1, report={"facts": {"published": [entry]}, "files": []}))
    with begin() as session:
        events = store.events_after(session, run_id, -1)
        assert [event.seq for event in events] == list(range(5))
        assert [event.data["terminal"] for event in events] == [False] * 4 + [True]
        row = session.execute(
            text(
                "SELECT v.verdict, v.published_at, a.name FROM versions v JOIN artifacts a ON a.version_id = v.id "
                "JOIN runs r ON r.version_id = v.id WHERE r.id = :id"
            ),
            {"id": run_id},
        ).one()
    assert (row.verdict, row.name) == ("clean", "onnx-fp32")
    assert row.published_at is not None


def test_a_worker_that_comes_back_from_the_dead_changes_nothing(begin: Begin, submit: Callable[..., UUID]) -> None:
    run_id = submit()
    send(begin, run_id, Claimed(**FIRST))
    send(begin, run_id, Broke(**FIRST, code="worker_lost"))  # the sweeper
    before = kinds(begin, run_id)
    with pytest.raises(Stale):
        send(begin, run_id, Passed(**FIRST))  # the zombie
    assert kinds(begin, run_id) == before


def test_twenty_copies_of_a_message_are_claimed_once(begin: Begin, submit: Callable[..., UUID]) -> None:
    run_id = submit()
    start = threading.Barrier(20)
    outcomes: list[str] = []

    def claim(name: str) -> None:
        start.wait()
        try:
            send(begin, run_id, Claimed(**FIRST, worker=name))
            outcomes.append("claimed")
        except Stale:
            outcomes.append("stale")

    threads = [threading.Thread(target=claim, args=(f"w{i}",)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["claimed"] + ["stale"] * 19
    assert kinds(begin, run_id) == ["submitted", "claimed"]


def test_a_transaction_that_fails_leaves_no_state_no_event_and_no_message(
    begin: Begin, submit: Callable[..., UUID]
) -> None:
    run_id = submit()
    send(begin, run_id, Claimed(**FIRST))
    before = (kinds(begin, run_id), outbox(begin, run_id))

    def pass_and_stumble() -> None:
        with begin() as session:
            engine.send(session, run_id, Passed(**FIRST))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pass_and_stumble()
    assert (kinds(begin, run_id), outbox(begin, run_id)) == before
    with begin() as session:
        assert store.load(session, run_id).status is Status.RUNNING


def test_the_sweep_takes_the_attempt_of_a_silent_worker_and_leaves_a_living_one(
    begin: Begin, submit: Callable[..., UUID]
) -> None:
    silent, alive = submit(), submit()
    send(begin, silent, Claimed(**FIRST, lease=-1))
    send(begin, alive, Claimed(**FIRST, lease=-1))
    with begin() as session:
        assert store.renew(session, alive, "scan", 1, 60)
    with begin() as session:
        engine.sweep(session, ring_again=3600)
    assert kinds(begin, silent) == ["submitted", "claimed", "broke"]
    assert kinds(begin, alive) == ["submitted", "claimed"]
    with begin() as session:
        assert store.load(session, silent).attempt == 2
        assert not store.renew(session, silent, "scan", 1, 60), "the old attempt's lease cannot be renewed"


def test_a_doorbell_that_nobody_heard_is_rung_again_less_and_less_often(
    begin: Begin, submit: Callable[..., UUID]
) -> None:
    run_id = submit()
    with begin() as session:
        session.execute(text("DELETE FROM outbox WHERE run_id = :id"), {"id": run_id})  # delivered, then lost
        session.execute(text("UPDATE runs SET rung_at = now() - interval '31 s' WHERE id = :id"), {"id": run_id})
    with begin() as session:
        engine.sweep(session, ring_again=30)
    assert [body["attempt"] for _, body in outbox(begin, run_id)] == [1]
    with begin() as session:
        session.execute(text("DELETE FROM outbox WHERE run_id = :id"), {"id": run_id})
        session.execute(text("UPDATE runs SET rung_at = now() - interval '31 s' WHERE id = :id"), {"id": run_id})
    with begin() as session:
        engine.sweep(session, ring_again=30)
    assert outbox(begin, run_id) == [], "the second pause is twice as long"
    with begin() as session:
        engine.sweep(session, ring_again=30, broker_forgot=True)
    assert len(outbox(begin, run_id)) == 1, "a broker without memory is told everything at once"


def test_two_relays_never_take_the_same_message(begin: Begin, submit: Callable[..., UUID]) -> None:
    submit()
    with begin() as one, begin() as two:
        first = {message.id for message in store.take_messages(one, "ring", 1000)}
        second = {message.id for message in store.take_messages(two, "ring", 1000)}
    assert first
    assert not first & second


def test_a_delayed_message_is_not_due_yet(begin: Begin, submit: Callable[..., UUID]) -> None:
    run_id = submit()
    send(begin, run_id, Claimed(**FIRST))
    send(begin, run_id, Broke(**FIRST, code="unavailable"))
    with begin() as session:
        taken = [m.body["attempt"] for m in store.take_messages(session, "ring", 1000) if m.run_id == run_id]
        assert taken == [1]


def test_cancel_and_retry_go_through_the_same_door_and_keep_strangers_out(
    begin: Begin, submit: Callable[..., UUID], owner: UUID
) -> None:
    run_id = submit()
    stranger = Viewer(user_id=uuid4())
    with pytest.raises(NotFound), begin() as session:
        engine.send(session, run_id, Cancel(), viewer=stranger)
    with begin() as session:
        engine.send(session, run_id, Cancel(), viewer=Viewer(user_id=owner))
    with begin() as session:
        engine.send(session, run_id, Retry(), viewer=Viewer(user_id=owner))
    assert kinds(begin, run_id) == ["submitted", "cancelled", "retried"]


def test_a_refusal_keeps_the_findings_and_the_verdict(begin: Begin, submit: Callable[..., UUID], owner: UUID) -> None:
    run_id = submit()
    send(begin, run_id, Claimed(**FIRST))
    report = {"facts": {"verdict": "malicious", "findings": [{"rule": "pickle.global"}]}, "files": []}
    send(begin, run_id, Refused(**FIRST, code="malicious", detail="os.system", report=report))
    with begin() as session:
        row, steps = store.find(session, Viewer(user_id=owner), run_id)
        verdict = session.execute(
            text("SELECT verdict FROM versions WHERE id = :id"), {"id": row.version_id}
        ).scalar_one()
    assert (row.status, row.code, verdict) == ("rejected", "malicious", "malicious")
    assert steps[0].report == report
    assert [topic for topic, _ in outbox(begin, run_id)] == ["ring", "cleanup"]


def test_a_commit_rings_the_doorbell(begin: Begin, submit: Callable[..., UUID], settings: Settings) -> None:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as listener:
        listener.execute(f"LISTEN {store.NEWS}")
        run_id = submit()
        heard = [note.payload for note in listener.notifies(timeout=5, stop_after=1)]
    assert heard == [str(run_id)]


def test_two_uploads_at_once_get_two_ordinals(begin: Begin, submit: Callable[..., UUID]) -> None:
    threads = [threading.Thread(target=submit, kwargs={"model": "same"}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with begin() as session:
        rows = session.execute(
            text(
                "SELECT ordinal, version FROM versions v JOIN models m ON m.id = model_id WHERE m.name = 'same' ORDER BY 1"
            )
        ).all()
    assert [row.ordinal for row in rows] == list(range(1, 9))
    assert len({row.version for row in rows}) == 8
