"""Intents are durable before the first signal, and a sink that fails gets its outcomes later."""

import pytest

from reaper.audit.events import CLOSED, INTENT, OPENED
from reaper.audit.ledger import Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.policy.plan import Outcome, Result

from .build import AUTHOR, HOST_TIME, SNAPSHOT, TERMINATED, MemorySink, act, candidate, ledger


def test_all_intents_are_durable_before_the_first_signal() -> None:
    sink = MemorySink()
    intents = ledger(sink).intend(AUTHOR, "c1", SNAPSHOT, [candidate(1), candidate(2)])
    assert sink.written == [OPENED, INTENT, INTENT]
    assert sink.durable == 3
    assert [intent.candidate.session.id.pid for intent in intents] == [1, 2]


def test_no_two_intents_have_one_id() -> None:
    log = ledger(MemorySink())
    first = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(1), candidate(2)])
    second = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(1)])
    assert len({intent.id for intent in (*first, *second)}) == 3


def test_a_quiet_cycle_writes_nothing() -> None:
    sink = MemorySink()
    log = ledger(sink)
    assert log.intend(AUTHOR, "c1", SNAPSHOT, []) == []
    log.log_safety_limit(AUTHOR, "c1", SNAPSHOT, [])
    log.close()
    assert sink.taken == []


def test_an_outcome_is_written_at_once_and_durable_after_a_flush() -> None:
    sink = MemorySink()
    log = ledger(sink)
    act(log)
    assert (sink.written[-1], sink.durable) == ("terminated", 2)
    log.flush()
    assert sink.durable == 3


def test_an_audit_log_that_cannot_be_written_is_found_at_the_start() -> None:
    with pytest.raises(AuditLogFailed, match="the audit log sink cannot be written: it is broken"):
        ledger(MemorySink(broken=True)).open()


def test_every_sink_gets_every_event() -> None:
    one, other = MemorySink(), MemorySink()
    log = ledger(one, other)
    act(log)
    log.close()
    assert one.written == other.written == [OPENED, INTENT, "terminated", CLOSED]
    assert one.closed
    assert other.closed


def test_a_ledger_without_a_sink_is_refused() -> None:
    with pytest.raises(ValueError, match="without a sink"):
        Ledger([], clock=lambda: HOST_TIME, run="run")


def test_when_one_sink_fails_the_intents_are_withdrawn_where_they_were_written() -> None:
    sound, broken, after = MemorySink(), MemorySink(), MemorySink()
    log = ledger(sound, broken, after)
    log.open()
    broken.unsyncable = True
    with pytest.raises(AuditLogFailed, match="nothing is terminated"):
        log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(1), candidate(2)])
    assert sound.written == [OPENED, INTENT, INTENT, "withdrawn", "withdrawn"]
    assert after.written == [OPENED]


def test_a_sink_that_failed_gets_the_withdrawal_when_it_works_again() -> None:
    sink = MemorySink(unsyncable=True)
    log = ledger(sink)
    with pytest.raises(AuditLogFailed):
        log.intend(AUTHOR, "c1", SNAPSHOT, [candidate()])
    sink.unsyncable = False
    sink.taken.clear()
    log.intend(AUTHOR, "c2", SNAPSHOT, [candidate()])
    assert [each for each in sink.written if each != OPENED] == ["withdrawn", INTENT]


def test_an_outcome_that_cannot_be_written_is_written_before_anything_else_later() -> None:
    sink = MemorySink()
    log = ledger(sink)
    one, other = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(1), candidate(2)])
    sink.broken = True
    for intent in (one, other):
        with pytest.raises(AuditLogFailed):
            log.log_outcomes([(intent, TERMINATED)])
    sink.broken = False
    log.intend(AUTHOR, "c2", SNAPSHOT, [candidate(3)])
    assert sink.written == [OPENED, INTENT, INTENT, "terminated", "terminated", INTENT]


def test_a_failing_sink_does_not_keep_an_outcome_from_the_others() -> None:
    failing, sound = MemorySink(), MemorySink()
    log = ledger(failing, sound)
    (intent,) = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate()])
    failing.broken = True
    with pytest.raises(AuditLogFailed):
        log.log_outcomes([(intent, TERMINATED)])
    assert sound.written[-1] == "terminated"


def test_outcomes_that_a_failed_flush_may_have_lost_are_written_again() -> None:
    sink = MemorySink()
    log = ledger(sink)
    act(log)
    sink.unsyncable = True
    with pytest.raises(AuditLogFailed):
        log.flush()
    sink.unsyncable = False
    log.flush()
    assert sink.written == [OPENED, INTENT, "terminated", "terminated"]
    assert sink.durable == 4


def test_a_sink_that_has_failed_is_tried_again_in_every_quiet_cycle() -> None:
    sink = MemorySink()
    log = ledger(sink)
    log.flush()
    sink.broken = True
    for attempt in (log.open, log.flush, log.flush):
        with pytest.raises(AuditLogFailed):
            attempt()
    sink.broken = False
    log.flush()


def test_while_outcomes_are_pending_no_intent_is_written_and_they_do_not_grow() -> None:
    sink = MemorySink()
    log = ledger(sink)
    (intent,) = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate()])
    sink.broken = True
    with pytest.raises(AuditLogFailed):
        log.log_outcomes([(intent, TERMINATED)])
    for _ in range(100):
        with pytest.raises(AuditLogFailed):
            log.intend(AUTHOR, "c2", SNAPSHOT, [candidate()])
    sink.broken = False
    log.flush()
    assert sink.written == [OPENED, INTENT, "terminated"]


def test_after_a_rotation_the_new_file_is_opened_by_the_next_event() -> None:
    sink = MemorySink()
    log = ledger(sink)
    (intent,) = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate()])
    log.reopen()
    log.log_outcomes([(intent, Outcome(result=Result.GONE))])
    assert sink.written == [OPENED, INTENT, OPENED, "gone"]
