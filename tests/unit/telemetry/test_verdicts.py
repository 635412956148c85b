"""The verdicts of a rehearsal on the service's own port."""

import json

from prometheus_client.parser import text_string_to_metric_families as parse_text

from reaper.insight.dryrun.assessment import assess
from reaper.insight.dryrun.assessment import assessment_document as as_document
from reaper.insight.dryrun.outcomes import Fate
from reaper.policy.rules import Mode, Rules
from reaper.policy.session import Identity
from reaper.telemetry.http.views import GuardedPool, ServiceAssessment
from reaper.telemetry.metrics.collect import Metrics
from tests.unit.insight.trials import trials
from tests.unit.policy.build import policy

from .pages import Pages, visit

ASSESSED = assess([*trials(3, Fate.REVIVED), *trials(2, Fate.UNUSED)])
POOL = GuardedPool(
    server="orders",
    policy="leaked",
    session=Identity("shop", "app_web", "\x1b[2J", None),
    until="2025-06-18T12:10:00Z",
    reason="churn: it refills",
)


async def verdicts() -> ServiceAssessment:
    return ServiceAssessment(policies=ASSESSED, watched=2, forgotten=1, refill_guarded=(POOL,))


def test_the_page_tells_what_the_record_would_tell() -> None:
    async def scene(pages: Pages) -> None:
        answer = await pages.ask("/assess")
        assert answer.status == 200
        assert answer.content["policies"] == [as_document(one) for one in ASSESSED]
        assert (answer.content["watched"], answer.content["forgotten"]) == (2, 1)

    visit(scene, assessment=verdicts)


def test_a_hostile_name_stays_a_value_of_the_page() -> None:
    async def scene(pages: Pages) -> None:
        answer = await pages.ask("/assess")
        assert "\x1b" not in answer.body
        assert json.loads(answer.body)["refill_guarded"][0]["application"] == "\x1b[2J"

    visit(scene, assessment=verdicts)


def test_it_is_judged_once_for_all_who_ask_within_some_seconds() -> None:
    asked = 0

    async def counting() -> ServiceAssessment:
        nonlocal asked
        asked += 1
        return await verdicts()

    async def scene(pages: Pages) -> None:
        for _ in range(5):
            assert (await pages.ask("/assess")).status == 200

    visit(scene, assessment=counting)
    assert asked == 1


def test_fates_and_churn_are_counted_from_zero_for_the_policies_that_can_come_to_them() -> None:
    metrics = Metrics("1")
    server = metrics.server("orders")
    dry, real = policy("dry", mode=Mode.DRY_RUN), policy("real")
    server.use_rules(Rules(policies=(dry, real)))
    server.dry_run_outcome(dry, Fate.REVIVED)
    server.refill_guarded(real)

    page = metrics.exposition().body.decode()
    counted = {
        (sample.labels["policy"], sample.labels.get("outcome")): sample.value
        for family in parse_text(page)
        for sample in family.samples
        if sample.name in {"reaper_dry_run_outcomes_total", "reaper_refill_guard_pauses_total"}
    }

    assert counted == {
        ("dry", "unused"): 0,
        ("dry", "left"): 0,
        ("dry", "revived"): 1,
        ("dry", "unknown"): 0,
        ("real", None): 1,
    }
