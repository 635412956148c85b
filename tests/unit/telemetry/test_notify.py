"""Messages to webhooks: batched, bounded, harmless, and never in anybody's way."""

import asyncio
import io
import json
import math
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from reaper.telemetry.log import LogFormat, LogLevel, make_log
from reaper.telemetry.notify import MAX_LINE, MAX_LINES, Hook, Notifier, escaped

from .webhook import Webhook, webhook

BRAKES = "brakes"
TERMINATIONS = "terminations"


@pytest.fixture
def away() -> Iterator[Webhook]:
    """A webhook, which a test may make slow or wrong."""
    with webhook() as hook:
        yield hook


@dataclass(slots=True)
class Desk:
    """A notifier with a log and counts that can be looked at."""

    timeout: float = 60.0
    logged: io.StringIO = field(default_factory=io.StringIO)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    notifier: Notifier = field(init=False)

    def __post_init__(self) -> None:
        log = make_log(LogFormat.JSON, LogLevel.DEBUG, to=self.logged)
        self.notifier = Notifier(log=log, counts=self.counts, timeout=self.timeout)

    async def send(self, *, now: float) -> None:
        """Send what is due at this moment, and wait for the answers."""
        self.notifier.send(now=now)
        await self.notifier.sent()


def hook_to(away: Webhook, *, name: str = "ops", every: float = 60, on: tuple[str, ...] = (BRAKES,)) -> Hook:
    return Hook(name=name, url=away.url, on=frozenset(on), every_seconds=every)


def play(scene: Callable[[Desk], Awaitable[None]], desk: Desk | None = None) -> Desk:
    desk = desk or Desk()

    async def run() -> None:
        async with asyncio.timeout(60):  # a hang is a failure
            await scene(desk)

    asyncio.run(run())
    return desk


def test_what_happens_within_the_time_of_a_hook_goes_into_one_message(away: Webhook) -> None:
    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook_to(away)])
        desk.notifier.notify(BRAKES, "orders", "one")
        await desk.send(now=100)
        desk.notifier.notify(BRAKES, "orders", "two")
        await desk.send(now=159)
        desk.notifier.notify(BRAKES, "stock", "three")
        assert away.lines == [["orders: one"]]
        await desk.send(now=160)

    desk = play(scene)
    assert away.lines == [["orders: one"], ["orders: two", "stock: three"]]
    assert away.types == ["application/json"] * 2
    assert desk.counts == {("ops", "sent"): 2, ("ops", "failed"): 0, ("ops", "dropped"): 0}


def test_a_hook_hears_only_what_it_asked_for(away: Webhook) -> None:
    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook_to(away)])
        desk.notifier.notify(TERMINATIONS, "orders", "who cares")
        await desk.send(now=100)

    play(scene)
    assert away.bodies == []


def test_too_many_lines_cost_the_oldest_and_the_message_says_how_many(away: Webhook) -> None:
    most = MAX_LINES

    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook_to(away)])
        for number in range(most + 7):
            desk.notifier.notify(BRAKES, "orders", str(number))
        await desk.send(now=100)

    desk = play(scene)
    assert away.lines[0][0] == "... and 7 more before these"
    assert away.lines[0][1:] == [f"orders: {number}" for number in range(7, most + 7)]
    assert desk.counts["ops", "dropped"] == 7


def test_a_slow_hook_delays_neither_the_telling_nor_another_hook(away: Webhook) -> None:
    async def scene(desk: Desk) -> None:
        with webhook() as quick:
            quick_hook = hook_to(quick, name="quick", every=0)
            desk.notifier.use([hook_to(away, name="slow", every=0), quick_hook])
            away.opened.clear()
            for number in range(1, 4):
                desk.notifier.notify(BRAKES, "orders", str(number))
                desk.notifier.send(now=number)
                sending = desk.notifier._queues[quick_hook].sending
                assert sending
                await sending
            assert quick.lines == [["orders: 1"], ["orders: 2"], ["orders: 3"]]
            away.opened.set()
            await desk.notifier.sent()
            await desk.send(now=4)

    play(scene)
    assert away.lines == [["orders: 1"], ["orders: 2", "orders: 3"]]


def test_a_hook_that_does_not_answer_is_given_up(away: Webhook) -> None:
    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook_to(away, every=0)])
        away.opened.clear()
        desk.notifier.notify(BRAKES, "orders", "one")
        await desk.send(now=100)
        assert desk.counts["ops", "failed"] == 1

    desk = play(scene, Desk(timeout=0.05))
    assert '"why": "TimeoutError"' in desk.logged.getvalue()
    assert len(away.bodies) <= 1


def test_a_hook_that_answers_without_end_is_given_up_and_asked_nothing_more_meanwhile(away: Webhook) -> None:
    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook_to(away, every=0)])
        away.opened.clear()
        away.drips = True
        desk.notifier.notify(BRAKES, "orders", "one")
        await desk.send(now=100)
        assert desk.counts["ops", "failed"] == 1
        await desk.send(now=200)
        assert desk.counts["ops", "failed"] == 1

    play(scene, Desk(timeout=1))
    assert away.asked.wait(60)
    assert len(away.bodies) == 1


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_what_was_refused_is_told_again_with_the_next_message(away: Webhook, status: int) -> None:
    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook_to(away)])
        away.answers.append(status)
        desk.notifier.notify(BRAKES, "orders", "one")
        await desk.send(now=100)
        desk.notifier.notify(BRAKES, "orders", "two")
        await desk.send(now=130)
        await desk.send(now=160)

    desk = play(scene)
    assert away.lines == [["orders: one"], ["orders: one", "orders: two"]]
    assert desk.counts == {("ops", "sent"): 1, ("ops", "failed"): 1, ("ops", "dropped"): 0}
    assert f"it answers {status}" in desk.logged.getvalue()


def test_a_hook_that_is_gone_for_long_costs_its_oldest_lines_and_no_more(away: Webhook) -> None:
    most = MAX_LINES

    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook_to(away)])
        away.answers += [500] * 3
        for number in range(4 * 30):
            desk.notifier.notify(BRAKES, "orders", str(number))
            if number % 30 == 29:
                await desk.send(now=100 * number)

    desk = play(scene)
    dropped = 4 * 30 - most
    expected = [f"orders: {number}" for number in range(dropped, 120)]
    assert away.lines[-1] == [f"... and {dropped} more before these", *expected]
    assert desk.counts["ops", "dropped"] == dropped


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(away: Webhook, status: int) -> None:
    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook_to(away)])
        away.answers.append(status)
        desk.notifier.notify(BRAKES, "orders", "one")
        await desk.send(now=100)

    desk = play(scene)
    assert len(away.paths) == 1
    assert desk.counts["ops", "failed"] == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_to_nobody_else(away: Webhook, status: int) -> None:
    with webhook() as elsewhere:
        away.location = elsewhere.url

        async def scene(desk: Desk) -> None:
            desk.notifier.use([hook_to(away)])
            away.answers.append(status)
            desk.notifier.notify(BRAKES, "orders", "one")
            await desk.send(now=100)

        desk = play(scene)

    assert elsewhere.paths == []
    assert f"it answers {status}" in desk.logged.getvalue()


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_end_is_not_listened_to(away: Webhook, status: int) -> None:
    away.gushes = True
    away.answers.append(status)

    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook_to(away)])
        desk.notifier.notify(BRAKES, "orders", "one")
        await desk.send(now=100)

    desk = play(scene)

    assert desk.counts == {
        ("ops", "sent"): int(status == 200),
        ("ops", "failed"): int(status != 200),
        ("ops", "dropped"): 0,
    }


def test_a_proxy_is_one_that_the_environment_names_and_no_proxy_goes_past_it(
    away: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with webhook() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)

        async def scene(desk: Desk) -> None:
            desk.notifier.use([hook_to(away, every=0)])
            monkeypatch.setenv("no_proxy", "")
            desk.notifier.notify(BRAKES, "orders", "one")
            await desk.send(now=100)
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            desk.notifier.notify(BRAKES, "orders", "two")
            await desk.send(now=200)

        play(scene)

        assert proxy.lines == [["orders: one"]]
    assert away.lines == [["orders: two"]]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/services/verysecrettoken",
        "http://user:verysecrettoken@127.0.0.1:1/x",
        "https://127.0.0.1:1/verysecrettoken",
        "http://nowhere.invalid/verysecrettoken",
        "http://127.0.0.1:99999/verysecrettoken",
    ],
)
def test_a_url_is_a_secret_and_stands_in_no_log_line(url: str) -> None:
    hook = Hook(name="ops", url=url, on=frozenset({BRAKES}), every_seconds=1)

    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook])
        desk.notifier.notify(BRAKES, "orders", "one")
        await desk.send(now=100)

    desk = play(scene)
    assert "notify.failed" in desk.logged.getvalue()
    assert "secret" not in desk.logged.getvalue() + repr(hook) + repr(desk.notifier._queues)


def test_at_the_end_what_waits_is_sent_without_waiting_for_its_time(away: Webhook) -> None:
    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook_to(away, every=math.inf)])
        desk.notifier.notify(BRAKES, "orders", "one")
        await desk.send(now=100)
        desk.notifier.notify(BRAKES, "orders", "last words")
        stop = asyncio.Event()
        stop.set()
        await desk.notifier.run(stop)

    play(scene)
    assert away.lines == [["orders: one"], ["orders: last words"]]


def test_a_hook_that_stays_keeps_its_lines_and_one_that_goes_leaves_nothing(away: Webhook) -> None:
    stays, goes = hook_to(away, name="stays"), hook_to(away, name="goes")

    async def scene(desk: Desk) -> None:
        desk.notifier.use([stays, goes])
        desk.notifier.notify(BRAKES, "orders", "one")
        desk.notifier.use([stays])
        await desk.send(now=100)

    desk = play(scene)
    assert away.lines == [["orders: one"]]
    assert {name for name, _ in desk.counts} == {"stays"}


def test_a_message_is_a_block_of_code_where_nothing_calls_anybody(away: Webhook) -> None:
    async def scene(desk: Desk) -> None:
        desk.notifier.use([hook_to(away)])
        said = "pid 7 <!channel> <@U123> <http://evil.example|click> ```@here\n*bold* \x1b[2J & \u202e"
        desk.notifier.notify(BRAKES, "orders", said)
        await desk.send(now=100)

    play(scene)
    shown = "pid 7 &lt;!channel&gt; &lt;@U123&gt; &lt;http://evil.example|click&gt; '''@here"
    assert away.texts == [f"```\norders: {shown}\\n*bold* \\x1b[2J &amp; \\u202e\n```"]


@given(st.text() | st.text(alphabet="<>&`@\n\r\u2028\ud800"))
def test_whatever_a_client_calls_itself_a_line_is_short_and_harmless(name: str) -> None:
    line = escaped(name)
    assert line.isprintable()
    assert not set(line) & set("<>`")
    assert len(line) <= 5 * MAX_LINE
    line.encode()


@pytest.fixture
def ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """The one authority that this host believes."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "root.crt")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.crt"))
    return ca


@pytest.mark.parametrize(("name", "why"), [("127.0.0.1", None), ("10.9.8.7", "SSLCertVerificationError")])
def test_a_host_is_told_only_if_it_proves_who_it_is(ca: trustme.CA, name: str, why: str | None) -> None:
    assert _sent(certified=ca, name=name) == why


def test_a_host_is_not_told_when_nobody_here_believes_its_certificate(ca: trustme.CA) -> None:
    del ca
    assert _sent(certified=trustme.CA(), name="127.0.0.1") == "SSLCertVerificationError"


def _sent(*, certified: trustme.CA, name: str) -> str | None:
    """Send a message to a host with such a certificate; why it could not be, or nothing."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certified.issue_cert(name).configure_cert(context)
    desk = Desk()
    with webhook(context) as away:

        async def scene(desk: Desk) -> None:
            desk.notifier.use([hook_to(away)])
            desk.notifier.notify(BRAKES, "orders", "one")
            await desk.send(now=100)

        play(scene, desk)
        logged = [json.loads(line)["why"] for line in desk.logged.getvalue().splitlines()]
        assert bool(logged) != (away.lines == [["orders: one"]])
        return logged[0] if logged else None
