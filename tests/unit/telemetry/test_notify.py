"""Messages to webhooks: batched, bounded, harmless, and never a reason to wait."""

import asyncio
import io
import json
import math
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from reaper.telemetry.log import LogFormat, LogLevel, make_log
from reaper.telemetry.notify import MAX_LINE, MAX_LINES, Hook, Notifier, escaped

from .webhook import Webhook, webhook

LIMITS = "safety limits"
pytestmark = pytest.mark.anyio


@pytest.fixture
def chat() -> Iterator[Webhook]:
    """A webhook, which a test may make slow or wrong."""
    with webhook() as hook:
        yield hook


@dataclass(slots=True)
class Sender:
    """A notifier with its log and its counts."""

    timeout: float = 60.0
    logged: io.StringIO = field(default_factory=io.StringIO)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    notifier: Notifier = field(init=False)

    def __post_init__(self) -> None:
        log = make_log(LogFormat.JSON, LogLevel.DEBUG, to=self.logged)
        self.notifier = Notifier(log=log, counts=self.counts, timeout=self.timeout)

    def put(self, *texts: object) -> None:
        """Queue these lines."""
        for text in texts:
            self.notifier.notify(LIMITS, "orders", str(text))

    async def send(self, *, now: float) -> None:
        """Send what is due at this moment, and wait for the answers."""
        self.notifier.send(now=now)
        async with asyncio.timeout(60):  # a hang is a failure
            await self.notifier.sent()


@pytest.fixture
def sender() -> Sender:
    return Sender()


def hook_to(chat: Webhook, *, name: str = "ops", every: float = 60) -> Hook:
    return Hook(name=name, url=chat.url, on=frozenset({LIMITS}), every_seconds=every)


async def sent_once(hook: Hook, text: str = "one") -> Sender:
    """A sender that has tried to send one line to this webhook."""
    sender = Sender()
    sender.notifier.use([hook])
    sender.put(text)
    await sender.send(now=100)
    return sender


async def test_lines_for_a_webhook_within_its_interval_are_one_message(chat: Webhook, sender: Sender) -> None:
    sender.notifier.use([hook_to(chat)])
    sender.put("one")
    sender.notifier.notify("terminations", "orders", "not for this webhook")
    await sender.send(now=100)
    sender.put("two")
    await sender.send(now=159)
    sender.notifier.notify(LIMITS, "stock", "three")
    assert chat.lines == [["orders: one"]]
    await sender.send(now=160)
    assert chat.lines == [["orders: one"], ["orders: two", "stock: three"]]
    assert chat.types == ["application/json"] * 2
    assert sender.counts == {("ops", "sent"): 2, ("ops", "failed"): 0, ("ops", "dropped"): 0}


async def test_too_many_lines_drop_the_oldest_and_the_message_has_their_number(
    chat: Webhook, sender: Sender
) -> None:
    sender.notifier.use([hook_to(chat)])
    sender.put(*range(MAX_LINES + 7))
    await sender.send(now=100)
    assert chat.lines[0][0] == "... and 7 more before these"
    assert chat.lines[0][1:] == [f"orders: {number}" for number in range(7, MAX_LINES + 7)]
    assert sender.counts["ops", "dropped"] == 7


async def test_a_slow_webhook_delays_neither_the_caller_nor_another_webhook(
    chat: Webhook, sender: Sender
) -> None:
    with webhook() as quick:
        quick_hook = hook_to(quick, name="quick", every=0)
        sender.notifier.use([hook_to(chat, name="slow", every=0), quick_hook])
        chat.opened.clear()
        for number in range(1, 4):
            sender.put(number)
            sender.notifier.send(now=number)
            sending = sender.notifier._queues[quick_hook].sending
            assert sending
            await sending
        assert quick.lines == [["orders: 1"], ["orders: 2"], ["orders: 3"]]
        chat.opened.set()
        await sender.notifier.sent()
        await sender.send(now=4)
    assert chat.lines == [["orders: 1"], ["orders: 2", "orders: 3"]]


async def test_a_webhook_whose_answer_never_ends_fails_and_gets_no_second_request_meanwhile(
    chat: Webhook,
) -> None:
    sender = Sender(timeout=1)
    sender.notifier.use([hook_to(chat, every=0)])
    chat.opened.clear()
    chat.drips = True
    sender.put("one")
    for now in (100, 200):
        await sender.send(now=now)
        assert sender.counts["ops", "failed"] == 1
    assert '"why": "TimeoutError"' in sender.logged.getvalue()
    assert chat.requested.wait(60)
    assert len(chat.bodies) == 1


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_a_message_that_failed_is_sent_again_with_the_next_one(
    chat: Webhook, sender: Sender, status: int
) -> None:
    sender.notifier.use([hook_to(chat)])
    chat.answers.append(status)
    sender.put("one")
    await sender.send(now=100)
    sender.put("two")
    await sender.send(now=130)
    await sender.send(now=160)
    assert chat.lines == [["orders: one"], ["orders: one", "orders: two"]]
    assert sender.counts == {("ops", "sent"): 1, ("ops", "failed"): 1, ("ops", "dropped"): 0}
    assert f"it answers {status}" in sender.logged.getvalue()


async def test_a_webhook_that_fails_for_long_loses_only_its_oldest_lines(
    chat: Webhook, sender: Sender
) -> None:
    sender.notifier.use([hook_to(chat)])
    chat.answers += [500] * 3
    for number in range(4 * 30):
        sender.put(number)
        if number % 30 == 29:
            await sender.send(now=100 * number)
    dropped = 4 * 30 - MAX_LINES
    expected = [f"orders: {number}" for number in range(dropped, 120)]
    assert chat.lines[-1] == [f"... and {dropped} more before these", *expected]
    assert sender.counts["ops", "dropped"] == dropped


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error_and_is_not_followed(chat: Webhook, status: int) -> None:
    with webhook() as elsewhere:
        chat.location = elsewhere.url
        chat.answers.append(status)
        sender = await sent_once(hook_to(chat))

    assert (len(chat.paths), elsewhere.paths) == (1, [])
    assert f"it answers {status}" in sender.logged.getvalue()


@pytest.mark.parametrize("status", [200, 500])
async def test_the_body_of_an_answer_is_not_read(chat: Webhook, status: int) -> None:
    chat.gushes = True
    chat.answers.append(status)
    counts = (await sent_once(hook_to(chat))).counts

    assert (counts["ops", "sent"], counts["ops", "failed"]) == (int(status == 200), int(status != 200))


async def test_a_proxy_of_the_environment_is_used_unless_no_proxy_excludes_the_host(
    chat: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with webhook() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        await sent_once(hook_to(chat), "one")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        await sent_once(hook_to(chat), "two")

        assert proxy.lines == [["orders: one"]]
    assert chat.lines == [["orders: two"]]


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
async def test_a_url_is_a_secret_and_in_no_log_line(url: str) -> None:
    hook = Hook(name="ops", url=url, on=frozenset({LIMITS}), every_seconds=1)
    sender = await sent_once(hook)

    assert "notify.failed" in sender.logged.getvalue()
    assert "secret" not in sender.logged.getvalue() + repr(hook) + repr(sender.notifier._queues)


async def test_at_the_end_the_waiting_lines_are_sent_at_once(chat: Webhook, sender: Sender) -> None:
    sender.notifier.use([hook_to(chat, every=math.inf)])
    sender.put("one")
    await sender.send(now=100)
    sender.put("last words")
    stop = asyncio.Event()
    stop.set()
    await sender.notifier.run(stop)
    assert chat.lines == [["orders: one"], ["orders: last words"]]


async def test_a_webhook_that_stays_keeps_its_lines_and_a_removed_one_leaves_nothing(
    chat: Webhook, sender: Sender
) -> None:
    stays, goes = hook_to(chat, name="stays"), hook_to(chat, name="goes")

    sender.notifier.use([stays, goes])
    sender.put("one")
    sender.notifier.use([stays])
    await sender.send(now=100)
    assert chat.lines == [["orders: one"]]
    assert {name for name, _ in sender.counts} == {"stays"}


async def test_a_message_is_a_block_of_code_without_mentions_and_links(chat: Webhook) -> None:
    text = "pid 7 <!channel> <@U123> <http://evil.example|click> ```@here\n*bold* \x1b[2J & \u202e"
    await sent_once(hook_to(chat), text)

    shown = "pid 7 &lt;!channel&gt; &lt;@U123&gt; &lt;http://evil.example|click&gt; '''@here"
    assert chat.texts == [f"```\norders: {shown}\\n*bold* \\x1b[2J &amp; \\u202e\n```"]


@given(st.text() | st.text(alphabet="<>&`@\n\r\u2028\ud800"))
def test_a_line_is_short_and_harmless_whatever_a_client_wrote(name: str) -> None:
    line = escaped(name)
    assert line.isprintable()
    assert not set(line) & set("<>`")
    assert len(line) <= 5 * MAX_LINE
    line.encode()


@pytest.fixture
def ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """The one authority that this host trusts."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "root.crt")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.crt"))
    return ca


@pytest.mark.parametrize(
    ("name", "trusted", "accepted"),
    [("127.0.0.1", True, True), ("10.9.8.7", True, False), ("127.0.0.1", False, False)],
)
async def test_a_host_gets_a_message_only_with_a_trusted_certificate_of_its_name(
    ca: trustme.CA, name: str, *, trusted: bool, accepted: bool
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (ca if trusted else trustme.CA()).issue_cert(name).configure_cert(context)
    with webhook(context) as chat:
        sender = await sent_once(hook_to(chat))
        reasons = [json.loads(line)["why"] for line in sender.logged.getvalue().splitlines()]
        assert reasons == ([] if accepted else ["SSLCertVerificationError"])
        assert chat.lines == ([["orders: one"]] if accepted else [])
