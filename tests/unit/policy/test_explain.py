"""Every policy's answer for one session, in the words of the decision."""

from dataclasses import replace

from reaper.policy.explain import Explanation, PolicyExplanation, explain
from reaper.policy.match import Match
from reaper.policy.plan import Candidate, SkipReason
from reaper.policy.rules import Mode, Policy, Rules, When
from reaper.policy.selector import NO_KEYS, Selector
from reaper.policy.session import ACTIVE, IDLE, Facts, Session
from reaper.policy.time import parse_duration

from .build import IDLE_10M, NOW, globs, policy, session, skipped, snapshot


def explained(seen: Session, *policies: Policy, protect: Selector = NO_KEYS) -> Explanation:
    other = session(1000, idle="3h")
    return explain(seen, snapshot=snapshot(other, seen), rules=Rules(policies=policies, protect=protect))


def answer_of(seen: Session, rule: Policy, *, protect: Selector = NO_KEYS) -> PolicyExplanation:
    (answer,) = explained(seen, rule, protect=protect).policies
    return answer


def said(answer: PolicyExplanation) -> list[tuple[str, bool, str]]:
    return [(one.criterion, one.holds, one.words) for one in answer.results]


SHOP = replace(IDLE_10M, selector=Selector(database=globs("shop", "stock"), application=globs("web-*")))


def test_every_criterion_that_was_given_is_answered_in_words() -> None:
    assert said(answer_of(session(idle="12m31s", application="metabase"), policy(match=SHOP))) == [
        ("state", True, "'idle', wanted idle"),
        ("database", True, "'shop', wanted shop, stock"),
        ("application", False, "'metabase', wanted web-*"),
        ("idle_for", True, "idle 12m31s, limit 10m"),
    ]


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    everything = Match(
        states=(ACTIVE, IDLE),
        transaction_for=parse_duration("1h"),
        running_for=parse_duration("1h"),
        xmin_age=100,
        blocking=True,
    )
    seen = snapshot(session(), facts=Facts())
    (answer,) = explain(session(), snapshot=seen, rules=Rules(policies=(policy(match=everything),))).policies
    assert said(answer)[1:] == [
        ("transaction_for", False, "not in transaction, limit 1h"),
        ("running_for", False, "not running, limit 1h"),
        ("xmin_age", False, "xmin age unknown transactions, limit 100"),
        ("blocking", False, "it is not known which sessions it blocks"),
    ]


def test_a_session_of_which_nothing_is_known_is_said_to_be_one() -> None:
    told = explained(session(state=None), policy())
    assert told.unknown == "state is not known"
    assert said(told.policies[0])[0] == ("state", False, "None, wanted idle")
    assert skipped(told.decision).by is SkipReason.UNKNOWN


def test_every_policy_answers_even_one_that_is_off() -> None:
    rules = (policy("a"), policy("b", mode=Mode.DRY_RUN), policy("c", mode=Mode.DISABLED))
    assert [answer.policy for answer in explained(session(), *rules).policies] == list(rules)


def test_a_policy_tells_every_protection_that_it_has_not_set_aside() -> None:
    seen = session(listens=True, superuser=True)
    bold = replace(policy(), overrides=frozenset({"superusers"}))
    protections = answer_of(seen, bold, protect=Selector(role=globs("app_*"))).protections
    assert [protection.name for protection in protections] == ["protect", "listeners"]


def test_self_is_told_even_when_a_policy_names_it() -> None:
    ours = session(role="reaper", application="pg-reaper")
    told = explained(ours, replace(policy(), overrides=frozenset({"self"})))
    assert [protection.name for protection in told.policies[0].protections] == ["self"]
    assert skipped(told.decision).protection == "self"


def test_a_policy_tells_its_allowlist_and_why_it_rests() -> None:
    resting = replace(policy(), allowlist=Selector(role=globs("app_web")), when=When(0.8))
    answer = answer_of(session(), resting)
    assert answer.allowlist == "role 'app_web'"
    assert answer.rests == "when: 10 of 100 slots used, acts from 80%"


def test_a_policy_that_nothing_keeps_from_acting_tells_nothing_of_that_kind() -> None:
    answer = answer_of(session(), policy())
    assert (answer.protections, answer.allowlist, answer.rests) == ((), None, None)


def test_a_policy_tells_when_the_session_falls_due() -> None:
    assert answer_of(session(idle="4m"), policy(match=SHOP)).due == NOW + parse_duration("6m")
    assert answer_of(session(idle="4m", application="x"), policy(match=SHOP)).due is None


def test_a_policy_matches_when_every_criterion_holds() -> None:
    assert answer_of(session(), policy(match=SHOP)).matches
    assert not answer_of(session(idle="1m"), policy(match=SHOP)).matches


def test_the_explanation_agrees_with_the_decision_among_all_sessions() -> None:
    slow = replace(policy(), max_per_cycle=1)
    told = explained(session(idle="1h"), slow)
    assert skipped(told.decision).reason == "max_per_cycle: 1 per cycle, 1 longer idle ones first"


def test_nobody_is_explained_away_as_seen_for_the_first_time() -> None:
    assert isinstance(explained(session(), policy()).decision, Candidate)
