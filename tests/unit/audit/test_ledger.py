"""The order of things: intents last before anybody acts, and a sink that fails is told later."""

import pytest

from reaper.audit.events import CLOSED, INTENT, OPENED
from reaper.audit.ledger import Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.policy.plan import Outcome, Result

from .build import AUTHOR, HOST_TIME, SNAPSHOT, TERMINATED, MemorySink, ledger, reap


def test_all_intents_last_before_the_first_signal() -> None:
    sink = MemorySink()
    intents = ledger(sink).intend(AUTHOR, "c1", SNAPSHOT, [reap(1), reap(2)])
    assert sink.told == [OPENED, INTENT, INTENT]
    assert sink.durable == 3
    assert [intent.reap.session.id.pid for intent in intents] == [1, 2]


def test_an_intent_is_never_named_twice_not_even_in_the_same_cycle() -> None:
    book = ledger(MemorySink())
    first = book.intend(AUTHOR, "c1", SNAPSHOT, [reap(1), reap(2)])
    second = book.intend(AUTHOR, "c1", SNAPSHOT, [reap(1)])
    assert len({intent.id for intent in (*first, *second)}) == 3


def test_a_quiet_cycle_writes_nothing() -> None:
    sink = MemorySink()
    book = ledger(sink)
    assert book.intend(AUTHOR, "c1", SNAPSHOT, []) == []
    book.log_safety_limit(AUTHOR, "c1", SNAPSHOT, [])
    book.close()
    assert sink.taken == []


def test_an_outcome_is_written_at_once_and_lasts_after_a_flush() -> None:
    sink = MemorySink()
    book = ledger(sink)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    book.log_outcomes([(intent, TERMINATED)])
    assert (sink.told[-1], sink.durable) == ("terminated", 2)
    book.flush()
    assert sink.durable == 3


def test_opening_says_at_the_start_that_the_record_cannot_be_written() -> None:
    with pytest.raises(AuditLogFailed, match="the audit log sink cannot be written: it is broken"):
        ledger(MemorySink(broken=True)).open()


def test_every_sink_gets_every_event() -> None:
    one, other = MemorySink(), MemorySink()
    book = ledger(one, other)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    book.log_outcomes([(intent, TERMINATED)])
    book.close()
    assert one.told == other.told == [OPENED, INTENT, "terminated", CLOSED]
    assert one.closed
    assert other.closed


def test_a_ledger_without_a_sink_is_refused() -> None:
    with pytest.raises(ValueError, match="without a sink"):
        Ledger([], clock=lambda: HOST_TIME, run="life")


def test_when_one_sink_fails_the_intents_are_withdrawn_where_they_arrived() -> None:
    sound, broken, after = MemorySink(), MemorySink(), MemorySink()
    book = ledger(sound, broken, after)
    book.open()
    broken.unsyncable = True
    with pytest.raises(AuditLogFailed, match="nothing is terminated"):
        book.intend(AUTHOR, "c1", SNAPSHOT, [reap(1), reap(2)])
    assert sound.told == [OPENED, INTENT, INTENT, "withdrawn", "withdrawn"]
    assert after.told == [OPENED]


def test_a_sink_that_failed_learns_of_the_withdrawal_when_it_works_again() -> None:
    sink = MemorySink(unsyncable=True)
    book = ledger(sink)
    with pytest.raises(AuditLogFailed):
        book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    sink.unsyncable = False
    sink.taken.clear()
    book.intend(AUTHOR, "c2", SNAPSHOT, [reap()])
    assert [told for told in sink.told if told != OPENED] == ["withdrawn", INTENT]


def test_an_outcome_that_cannot_be_written_is_written_before_anything_else_later() -> None:
    sink = MemorySink()
    book = ledger(sink)
    one, other = book.intend(AUTHOR, "c1", SNAPSHOT, [reap(1), reap(2)])
    sink.broken = True
    for intent in (one, other):
        with pytest.raises(AuditLogFailed):
            book.log_outcomes([(intent, TERMINATED)])
    sink.broken = False
    book.intend(AUTHOR, "c2", SNAPSHOT, [reap(3)])
    assert sink.told == [OPENED, INTENT, INTENT, "terminated", "terminated", INTENT]


def test_a_failing_sink_does_not_keep_an_outcome_from_the_others() -> None:
    failing, sound = MemorySink(), MemorySink()
    book = ledger(failing, sound)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    failing.broken = True
    with pytest.raises(AuditLogFailed):
        book.log_outcomes([(intent, TERMINATED)])
    assert sound.told[-1] == "terminated"


def test_outcomes_that_a_failed_flush_may_have_lost_are_written_again() -> None:
    sink = MemorySink()
    book = ledger(sink)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    book.log_outcomes([(intent, TERMINATED)])
    sink.unsyncable = True
    with pytest.raises(AuditLogFailed):
        book.flush()
    sink.unsyncable = False
    book.flush()
    assert sink.told == [OPENED, INTENT, "terminated", "terminated"]
    assert sink.durable == 4


def test_a_sink_that_has_failed_is_tried_again_in_every_quiet_cycle() -> None:
    sink = MemorySink()
    book = ledger(sink)
    book.flush()
    sink.broken = True
    for act in (book.open, book.flush, book.flush):
        with pytest.raises(AuditLogFailed):
            act()
    sink.broken = False
    book.flush()


def test_while_a_sink_owes_outcomes_nothing_new_is_intended_and_debts_do_not_grow() -> None:
    sink = MemorySink()
    book = ledger(sink)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    sink.broken = True
    with pytest.raises(AuditLogFailed):
        book.log_outcomes([(intent, TERMINATED)])
    for _ in range(100):
        with pytest.raises(AuditLogFailed):
            book.intend(AUTHOR, "c2", SNAPSHOT, [reap()])
    sink.broken = False
    book.flush()
    assert sink.told == [OPENED, INTENT, "terminated"]


def test_after_a_rotation_the_new_file_is_opened_by_the_next_event() -> None:
    sink = MemorySink()
    book = ledger(sink)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    book.reopen()
    book.log_outcomes([(intent, Outcome(result=Result.GONE))])
    assert sink.told == [OPENED, INTENT, OPENED, "gone"]
