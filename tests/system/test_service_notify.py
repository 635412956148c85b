"""Webhooks of the running service: told, but never waited for, and their URL stays a secret."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg.sql import SQL, Identifier

from reaper.demo.server import EmbeddedServer
from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role
from tests.postgres.waiting import until
from tests.unit.telemetry.webhook import Webhook, webhook

from .command import Reaper
from .policies import FILE, leaked, policy_file
from .service import Service, events, started

_SECRET = "verysecrettoken"  # noqa: S105 (the end of the URL of `webhook`)


@pytest.fixture
def chat() -> Iterator[Webhook]:
    """Where the messages arrive."""
    with webhook() as hook:
        yield hook


def notifying(hook: Webhook, policies: str, *, every: str = "1s", **keys: object) -> str:
    """The policy file with this webhook in it."""
    notify = {"name": "ops", "webhook": hook.url, "every": every, **keys}
    return yaml.safe_dump({**yaml.safe_load(policies), "notify": [notify]})


def told(hook: Webhook, words: str) -> list[str]:
    """The lines of all messages so far in which these words stand."""
    return [line for lines in list(hook.lines) for line in lines if words in line]


def test_terminations_are_told_many_in_one_message(
    reaper: Reaper, app: Role, clients: Clients, chat: Webhook
) -> None:
    reaper.write(FILE, notifying(chat, policy_file(leaked(app))))
    service = started(reaper)
    service.life.logged("cycle.quiet")
    leaks = [clients.open(role=app, application=f"web-{number}") for number in range(5)]
    for leak in leaks:
        until(leak.left)
    until(lambda: len(told(chat, ": terminated pid ")) == 5)

    assert len(chat.bodies) < 5
    assert set(chat.types) == {"application/json"}
    assert all(body.keys() == {"text"} for body in chat.bodies)
    (line,) = told(chat, f"pid {leaks[0].pid} ")
    assert app.name in line
    assert line.endswith("(leaked)")
    service.shows(len(chat.bodies), "pg_reaper_notifications_total", hook="ops", result="sent")


def test_a_brake_is_told_once_however_long_it_holds(
    reaper: Reaper, app: Role, clients: Clients, chat: Webhook
) -> None:
    for _ in range(3):
        clients.open(role=app)
    safety_limit = {"share": "1%", "above": 1}
    reaper.write(
        FILE, notifying(chat, policy_file(leaked(app, safety_limit=safety_limit)), on=["safety_limit"])
    )
    service = started(reaper)
    service.life.logged("policy.safety_limit")
    service.life.logged("cycle.quiet", times=4)
    until(lambda: chat.bodies)
    service.life.end()  # what waits is sent before the end

    assert len(told(chat, "leaked: ")) == 1


def test_a_server_that_is_away_is_told_once_an_outage(
    tmp_path: Path, own_server: EmbeddedServer, chat: Webhook
) -> None:
    with Reaper(tmp_path, REAPER_DSN=own_server.dsn) as reaper:
        reaper.write(FILE, notifying(chat, policy_file(leaked(Role("app", "")))))
        own_server.shut_down("immediate")
        service = started(reaper)
        service.life.logged("server.unreachable", times=3)
        until(lambda: told(chat, "unreachable: "))
        own_server.start()
        service.life.logged("cycle.quiet")
        assert len(told(chat, "unreachable: ")) == 1

        own_server.shut_down("immediate")
        until(lambda: len(told(chat, "Connection refused")) == 2)
        service.life.end()


def test_whoever_hides_its_state_is_told(
    reaper: Reaper, app: Role, reaper_role: Role, clients: Clients, admin: psycopg.Connection, chat: Webhook
) -> None:
    reaper.write(FILE, notifying(chat, policy_file(leaked(app)), on=["unreadable"]))
    service = started(reaper)
    service.life.logged("cycle.quiet")
    leak = clients.open(role=app, state="idle in transaction")
    admin.execute(SQL("REVOKE pg_read_all_stats FROM {}").format(Identifier(reaper_role.name)))
    service.life.logged("server.unreadable", times=3)
    until(lambda: told(chat, "hide their state and are skipped"))
    service.life.end()

    assert len(told(chat, "hide their state and are skipped")) == 1
    assert leak.present()


def test_a_webhook_that_never_answers_keeps_no_cycle_waiting(
    reaper: Reaper, app: Role, clients: Clients, chat: Webhook
) -> None:
    chat.opened.clear()
    reaper.write(FILE, notifying(chat, policy_file(leaked(app))))
    service = started(reaper)
    until(clients.open(role=app, application="first").left)
    until(lambda: chat.bodies)

    # The message about the first is still on its way while all the others go.
    for number in range(3):
        until(clients.open(role=app, application=f"next-{number}").left)
    assert len(chat.bodies) == 1
    assert not events(service.life, "notify.failed")

    chat.opened.set()
    until(lambda: len(told(chat, "next-2")) == 1 or len(chat.bodies) > 1)


def places(service: Service) -> Iterator[str]:
    """Everywhere that others may look."""
    yield service.ask("metrics").body
    yield service.ask("readyz").body
    yield Path(f"/proc/{service.life.pid}/cmdline").read_text(encoding="utf-8")
    yield "".join(service.life.err)
    yield "".join(service.life.out)


@pytest.mark.parametrize("means", ["webhook", "webhook_file", "webhook_env"])
def test_the_url_is_shown_nowhere_even_when_sending_fails(
    reaper: Reaper, app: Role, clients: Clients, chat: Webhook, means: str
) -> None:
    chat.answers[:] = [500, 301]
    url = {"webhook": chat.url, "webhook_file": "url", "webhook_env": "CHAT_URL"}[means]
    reaper.write("url", f"{chat.url}\n")
    written = yaml.safe_load(policy_file(leaked(app)))
    notify = [{"name": "ops", means: url, "every": "1s"}]
    reaper.write(FILE, yaml.safe_dump({**written, "notify": notify}))
    reaper.environment["CHAT_URL"] = chat.url
    service = started(reaper)
    until(clients.open(role=app).left)
    service.life.logged("notify.failed", times=2)
    until(lambda: len(chat.bodies) == 3)

    assert not [place for place in places(service) if _SECRET in place]
    assert _SECRET not in service.life.end().err
    assert _SECRET not in (reaper.folder / "audit.jsonl").read_text(encoding="ascii")
    assert chat.paths == ["/services/T0/B0/verysecrettoken"] * 3
