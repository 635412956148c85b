"""The order of things: intents last before anybody acts, and a sink that fails is told later."""

import pytest

from reaper.audit.events import CLOSED, INTENT, OPENED
from reaper.audit.ledger import Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.policy.plan import Outcome, Result

from .build import AUTHOR, HOST_TIME, SNAPSHOT, TERMINATED, Shelf, ledger, reap


def test_all_intents_last_before_the_first_signal() -> None:
    shelf = Shelf()
    intents = ledger(shelf).intend(AUTHOR, "c1", SNAPSHOT, [reap(1), reap(2)])
    assert shelf.told == [OPENED, INTENT, INTENT]
    assert shelf.durable == 3
    assert [intent.reap.session.id.pid for intent in intents] == [1, 2]


def test_an_intent_is_never_named_twice_not_even_in_the_same_cycle() -> None:
    book = ledger(Shelf())
    first = book.intend(AUTHOR, "c1", SNAPSHOT, [reap(1), reap(2)])
    second = book.intend(AUTHOR, "c1", SNAPSHOT, [reap(1)])
    assert len({intent.id for intent in (*first, *second)}) == 3


def test_a_quiet_cycle_writes_nothing() -> None:
    shelf = Shelf()
    book = ledger(shelf)
    assert book.intend(AUTHOR, "c1", SNAPSHOT, []) == ()
    book.log_safety_limit(AUTHOR, "c1", SNAPSHOT, [])
    book.close()
    assert shelf.taken == []


def test_an_outcome_is_written_at_once_and_lasts_after_a_flush() -> None:
    shelf = Shelf()
    book = ledger(shelf)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    book.settle(intent, TERMINATED)
    assert (shelf.told[-1], shelf.durable) == ("terminated", 2)
    book.flush()
    assert shelf.durable == 3


def test_opening_says_at_the_start_that_the_record_cannot_be_written() -> None:
    with pytest.raises(AuditLogFailed, match="the audit record shelf cannot be written: it is broken"):
        ledger(Shelf(broken=True)).open()


def test_every_sink_gets_every_event() -> None:
    one, other = Shelf(), Shelf()
    book = ledger(one, other)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    book.settle(intent, TERMINATED)
    book.close()
    assert one.told == other.told == [OPENED, INTENT, "terminated", CLOSED]
    assert one.closed
    assert other.closed


def test_a_ledger_without_a_sink_is_refused() -> None:
    with pytest.raises(ValueError, match="without a sink"):
        Ledger([], clock=lambda: HOST_TIME, run="life")


def test_when_one_sink_fails_the_intents_are_withdrawn_where_they_arrived() -> None:
    sound, broken, after = Shelf(), Shelf(), Shelf()
    book = ledger(sound, broken, after)
    book.open()
    broken.unsyncable = True
    with pytest.raises(AuditLogFailed, match="nothing is terminated"):
        book.intend(AUTHOR, "c1", SNAPSHOT, [reap(1), reap(2)])
    assert sound.told == [OPENED, INTENT, INTENT, "withdrawn", "withdrawn"]
    assert after.told == [OPENED]


def test_a_sink_that_failed_learns_of_the_withdrawal_when_it_works_again() -> None:
    shelf = Shelf(unsyncable=True)
    book = ledger(shelf)
    with pytest.raises(AuditLogFailed):
        book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    shelf.unsyncable = False
    shelf.taken.clear()
    book.intend(AUTHOR, "c2", SNAPSHOT, [reap()])
    assert [told for told in shelf.told if told != OPENED] == ["withdrawn", INTENT]


def test_an_outcome_that_cannot_be_written_is_written_before_anything_else_later() -> None:
    shelf = Shelf()
    book = ledger(shelf)
    one, other = book.intend(AUTHOR, "c1", SNAPSHOT, [reap(1), reap(2)])
    shelf.broken = True
    for intent in (one, other):
        with pytest.raises(AuditLogFailed):
            book.settle(intent, TERMINATED)
    shelf.broken = False
    book.intend(AUTHOR, "c2", SNAPSHOT, [reap(3)])
    assert shelf.told == [OPENED, INTENT, INTENT, "terminated", "terminated", INTENT]


def test_a_failing_sink_does_not_keep_an_outcome_from_the_others() -> None:
    failing, sound = Shelf(), Shelf()
    book = ledger(failing, sound)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    failing.broken = True
    with pytest.raises(AuditLogFailed):
        book.settle(intent, TERMINATED)
    assert sound.told[-1] == "terminated"


def test_outcomes_that_a_failed_flush_may_have_lost_are_written_again() -> None:
    shelf = Shelf()
    book = ledger(shelf)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    book.settle(intent, TERMINATED)
    shelf.unsyncable = True
    with pytest.raises(AuditLogFailed):
        book.flush()
    shelf.unsyncable = False
    book.flush()
    assert shelf.told == [OPENED, INTENT, "terminated", "terminated"]
    assert shelf.durable == 4


def test_a_sink_that_has_failed_is_tried_again_in_every_quiet_cycle() -> None:
    shelf = Shelf()
    book = ledger(shelf)
    book.flush()
    shelf.broken = True
    for act in (book.open, book.flush, book.flush):
        with pytest.raises(AuditLogFailed):
            act()
    shelf.broken = False
    book.flush()


def test_while_a_sink_owes_outcomes_nothing_new_is_intended_and_debts_do_not_grow() -> None:
    shelf = Shelf()
    book = ledger(shelf)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    shelf.broken = True
    with pytest.raises(AuditLogFailed):
        book.settle(intent, TERMINATED)
    for _ in range(100):
        with pytest.raises(AuditLogFailed):
            book.intend(AUTHOR, "c2", SNAPSHOT, [reap()])
    shelf.broken = False
    book.flush()
    assert shelf.told == [OPENED, INTENT, "terminated"]


def test_after_a_rotation_the_new_file_is_opened_by_the_next_event() -> None:
    shelf = Shelf()
    book = ledger(shelf)
    (intent,) = book.intend(AUTHOR, "c1", SNAPSHOT, [reap()])
    book.reopen()
    book.settle(intent, Outcome(result=Result.GONE))
    assert shelf.told == [OPENED, INTENT, OPENED, "gone"]
