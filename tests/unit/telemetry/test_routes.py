"""The paths of the HTTP port, and answers that are made once for all requests within some seconds."""

import asyncio
import json
from itertools import count

import pytest

from reaper.insight.dryrun.assessment import assess, assessment_document
from reaper.insight.dryrun.outcomes import DryRunOutcome
from reaper.policy.session import Identity
from reaper.policy.text import as_document
from reaper.telemetry.http import routes
from reaper.telemetry.http.routes import ResponseCache
from reaper.telemetry.http.server import MAX_CONNECTIONS
from reaper.telemetry.http.views import GuardedPool, Overview, ServiceAssessment
from tests.unit.insight.dry_runs import dry_runs
from tests.unit.service.build import Clock

from . import sights
from .pages import get

ASSESSED = assess([*dry_runs(3, DryRunOutcome.USED_AGAIN), *dry_runs(2, DryRunOutcome.UNUSED)])
POOL = GuardedPool(
    server="orders",
    policy="leaked",
    session=Identity("shop", "app_web", "\x1b[2J", None),
    until="2025-06-18T12:10:00Z",
    reason="refill guard: it refills",
)


pytestmark = pytest.mark.anyio


async def usual(name: str | None) -> Overview | None:
    return sights.usual() if name in {None, "orders"} else None


def test_every_page_has_its_type_and_a_strict_content_policy() -> None:
    types = {
        "/": "text/html; charset=utf-8",
        "/?server=orders&pause=1": "text/html; charset=utf-8",
        "/style.css": "text/css; charset=utf-8",
        "/icon.svg": "image/svg+xml",
        "/usage": "application/json",
    }
    for answer, kind in zip(get(*types, overview=usual), types.values(), strict=True):
        assert (answer.status, answer.headers["content-type"]) == (200, kind)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self';")
        assert "unsafe" not in policy


def test_an_unknown_server_is_404() -> None:
    paths = ("/?server=payroll", "/usage?server=payroll", f"/usage?server={'x' * 8_000}", "/nothing")
    assert {answer.status for answer in get(*paths, overview=usual)} == {404}


def test_usage_is_the_overview_as_ascii_json() -> None:
    (answer,) = get("/usage", overview=usual)
    assert answer.body.isascii()
    assert answer.content == {"usage": 1, "overview": as_document(sights.usual())}


def test_a_snapshot_is_taken_once_for_all_requests_and_needs_the_name_of_a_server() -> None:
    requested: list[str] = []

    async def snapshot(name: str) -> bytes | None:
        requested.append(name)
        return b'{"snapshot": 1}' if name == "orders" else None

    unknown = ("/snapshot", "/snapshot?server=payroll", f"/snapshot?server={'x' * 8_000}")
    answers = get(*["/snapshot?server=orders"] * 3, *unknown, snapshot=snapshot)
    assert [answer.status for answer in answers] == [200] * 3 + [404] * 3
    assert answers[0].headers["content-type"] == "application/json"
    assert requested == ["orders", "", "payroll", "x" * 200]


def test_many_clients_share_one_overview() -> None:
    requested: list[str | None] = []

    async def overview(name: str | None) -> Overview:
        requested.append(name)
        return sights.usual()

    answers = get(*["/", "/usage", "/?pause=1"] * (MAX_CONNECTIONS // 4), overview=overview)
    assert {answer.status for answer in answers} == {200}
    assert requested == [None]


def test_the_assessment_is_made_once_and_is_what_the_audit_log_gives() -> None:
    made: list[ServiceAssessment] = []

    async def assessment() -> ServiceAssessment:
        made.append(ServiceAssessment(policies=ASSESSED, watched=2, forgotten=1, refill_guarded=(POOL,)))
        return made[-1]

    answer, *_ = get(*["/assess"] * 5, assessment=assessment)
    assert len(made) == 1
    assert answer.content["policies"] == [assessment_document(one) for one in ASSESSED]
    assert (answer.content["watched"], answer.content["forgotten"]) == (2, 1)
    assert "\x1b" not in answer.body
    assert json.loads(answer.body)["refill_guarded"][0]["application"] == "\x1b[2J"


class Maker:
    """Makes answers with a number, when it is released."""

    def __init__(self, *, released: bool = True) -> None:
        self.numbers = count(1)
        self.released = asyncio.Event()
        if released:
            self.released.set()

    async def __call__(self, key: str) -> str:
        number = next(self.numbers)
        await self.released.wait()
        return f"{key} {number}"


async def test_an_answer_is_kept_until_it_is_too_old() -> None:
    clock = Clock()
    cache = ResponseCache(Maker(), seconds=2, clock=clock)
    answers = [await cache.get("a"), await cache.get("a")]
    clock.passes(1.9)
    answers.append(await cache.get("a"))
    clock.passes(0.1)
    assert [*answers, await cache.get("a"), await cache.get("b")] == ["a 1", "a 1", "a 1", "a 2", "b 3"]


@pytest.mark.parametrize("seconds", [2, 0])
async def test_a_request_waits_for_an_answer_in_progress_even_if_the_first_client_leaves(
    seconds: float,
) -> None:
    maker = Maker(released=False)
    cache = ResponseCache(maker, seconds=seconds, clock=Clock())
    first, second = (asyncio.create_task(cache.get("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    maker.released.set()
    assert [await second, await cache.get("a")] == ["a 1", "a 1" if seconds else "a 2"]


async def test_too_many_keys_are_answered_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_MAX_KEPT", 3)
    clock = Clock()
    cache = ResponseCache(Maker(), seconds=2, clock=clock)
    answers = [await cache.get(str(number)) for number in range(10)]
    assert answers[-1] == "9 10"
    assert len(cache._kept) == 3
    clock.passes(2)
    assert [await cache.get("new"), await cache.get("new")] == ["new 11"] * 2
    assert len(cache._kept) == 1


async def test_an_answer_that_failed_is_made_again_later() -> None:
    async def fails(_: str) -> str:
        raise ZeroDivisionError

    clock = Clock()
    cache = ResponseCache(fails, seconds=2, clock=clock)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await cache.get("a")
        clock.passes(2)
