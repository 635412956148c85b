"""Reload, by SIGHUP and by change of content: between two cycles, whole or not at all."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
import yaml
from psycopg.sql import SQL, Identifier

from tests.postgres.clients import Clients
from tests.postgres.conftest import StartServer
from tests.postgres.sandbox import Role, Sandbox
from tests.postgres.waiting import until

from .command import Life, Reaper
from .policies import FILE, Keys, leaked, policy_file
from .service import as_server, events, outcomes, password_of, sessions_of, started

_BAD: Final = (
    "version: 1\npolicies:\n  - name: leaked\n    mode: enfroce\n    match: {state: [idle], idle_for: 1s}\n"
)


@pytest.fixture
def fleet(tmp_path: Path, reaper_role: Role, clients: Clients) -> Iterator[Reaper]:
    """The command, whose policy file is to name the servers."""
    assert isinstance(clients, Clients)  # opened before, and so closed after the command has ended
    with Reaper(tmp_path, PGPASSWORD=password_of(reaper_role)) as reaper:
        yield reaper


def hang_up(life: Life) -> None:
    life.send(signal.SIGHUP)


def test_a_rehearsal_becomes_real_without_a_restart_on_the_same_connection(
    reaper: Reaper, app: Role, reaper_role: Role, clients: Clients, admin: psycopg.Connection
) -> None:
    leak = clients.open(role=app, application="leak")
    reaper.write(FILE, policy_file(leaked(app, mode="dry-run"), interval="1h"))
    service = started(reaper)
    service.life.logged("cycle.acted", **{"dry-run": 1})
    before = sessions_of(admin, reaper_role)
    assert leak.present()

    reaper.write(FILE, policy_file(leaked(app), interval="1h"))
    hang_up(service.life)
    reloaded = service.life.logged("policy.reloaded")
    until(leak.left)

    assert (reloaded["enforcing"], reloaded["dry_running"]) == (1, 0)
    assert sessions_of(admin, reaper_role) == before
    assert service.number("pg_reaper_leader") == 1
    assert len(events(service.life, "server.connected")) == 1
    assert len(events(service.life, "leader.acquired")) == 1


def test_a_change_of_content_is_noticed_without_a_signal(reaper: Reaper, app: Role, clients: Clients) -> None:
    leak = clients.open(role=app)
    reaper.write(FILE, policy_file(leaked(app, mode="disabled")))
    life = started(reaper).life
    life.logged("cycle.quiet")

    reaper.write(FILE, policy_file(leaked(app)))

    until(leak.left)
    assert life.has_logged("policy.reloaded", enforcing=1)


def test_a_swapped_link_is_noticed_as_a_mounted_volume_makes_it(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    leak = clients.open(role=app)
    for version, mode in (("..1", "disabled"), ("..2", "enforce")):
        (reaper.folder / version).mkdir()
        reaper.write(f"{version}/{FILE}", policy_file(leaked(app, mode=mode)))
    data = reaper.folder / "..data"
    data.symlink_to("..1")
    (reaper.folder / FILE).symlink_to(f"..data/{FILE}")
    life = started(reaper).life
    life.logged("cycle.quiet")

    swapped = reaper.folder / "..data_tmp"
    swapped.symlink_to("..2")
    swapped.rename(data)

    until(leak.left)
    assert life.has_logged("policy.reloaded", enforcing=1)


def test_a_shorter_interval_begins_at_once_and_not_after_the_longer_one(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    reaper.write(FILE, policy_file(leaked(app), interval="1h", min_interval="1h"))
    life = started(reaper).life
    life.logged("cycle.quiet")
    leak = clients.open(role=app)

    reaper.write(FILE, policy_file(leaked(app)))
    hang_up(life)

    until(leak.left)


def test_a_bad_file_is_told_at_its_place_and_the_last_good_one_stays_in_force_until_it_is_mended(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    good = policy_file(leaked(app))
    reaper.write(FILE, good)
    service = started(reaper)
    service.life.logged("cycle.quiet")
    assert service.number("pg_reaper_reload_success") == 1
    in_force = service.number("pg_reaper_policy_file_info")

    reaper.write(FILE, _BAD)
    hang_up(service.life)
    told = service.life.logged("policy.refused")
    service.shows(0, "pg_reaper_reload_success")
    until(clients.open(role=app, application="meanwhile").left)

    assert told["mistake"].startswith(f"{FILE}:4:11: ")
    assert "enfroce" in told["mistake"]
    assert service.number("pg_reaper_policy_file_info") == in_force == 1
    assert service.ask("readyz").status == 200

    service.life.logged("cycle.quiet", times=8)  # it has been looked at again meanwhile
    assert len(events(service.life, "policy.refused")) == 1

    reaper.write(FILE, good)
    service.shows(1, "pg_reaper_reload_success")
    until(clients.open(role=app, application="mended").left)
    assert not service.life.has_logged("policy.reloaded")


def test_a_file_that_contradicts_the_command_line_is_refused_as_it_would_be_at_the_start(
    reaper: Reaper, app: Role, reaper_role: Role, clients: Clients
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    service = started(reaper)
    service.life.logged("cycle.quiet")

    reaper.write(FILE, policy_file(leaked(app, mode="disabled"), servers=[as_server("one", reaper_role)]))
    hang_up(service.life)
    told = service.life.logged("policy.refused")

    assert "use --server NAME instead of --dsn or REAPER_DSN" in told["mistake"]
    assert told["mistake"] in reaper("run", "--listen", "off").err
    assert service.number("pg_reaper_reload_success") == 0
    until(clients.open(role=app).left)


def test_a_file_that_vanishes_changes_nothing_and_alarms(reaper: Reaper, app: Role, clients: Clients) -> None:
    path = reaper.write(FILE, policy_file(leaked(app)))
    service = started(reaper)
    service.life.logged("cycle.quiet")
    path.unlink()

    told = service.life.logged("policy.refused")
    assert "cannot be read: No such file or directory" in told["mistake"]
    assert service.number("pg_reaper_reload_success") == 0
    until(clients.open(role=app).left)


def test_servers_come_and_go(
    fleet: Reaper, app: Role, reaper_role: Role, sandbox: Sandbox, admin: psycopg.Connection
) -> None:
    first, second, third = (sandbox.create_database(name) for name in ("one", "two", "three"))
    listed = [as_server("one", reaper_role, dbname=first), as_server("two", reaper_role, dbname=second)]
    fleet.write(FILE, policy_file(leaked(app), servers=listed))
    service = started(fleet)
    for name in ("one", "two"):
        service.shows(1, "pg_reaper_leader", server=name)

    fleet.write(
        FILE, policy_file(leaked(app), servers=[listed[0], as_server("three", reaper_role, dbname=third)])
    )
    hang_up(service.life)
    service.shows(1, "pg_reaper_leader", server="three")
    service.shows(None, "pg_reaper_leader", server="two")
    until(lambda: {database for _, database in sessions_of(admin, reaper_role)} == {first, third})

    page = service.ask("metrics").body
    assert 'server="two"' not in page
    assert 'server="one"' in page
    assert len(events(service.life, "server.connected")) == 3
    stopped = {line["server"] for line in service.life.end().log if line["event"] == "reaper.stopped"}
    assert stopped == {"one", "two", "three"}


def test_lists_of_servers_come_and_go(fleet: Reaper, app: Role, reaper_role: Role, sandbox: Sandbox) -> None:
    databases = {name: sandbox.create_database(name) for name in ("one", "two")}
    (fleet.folder / "servers.d").mkdir()
    written = yaml.safe_load(policy_file(leaked(app)))
    fleet.write(FILE, yaml.safe_dump({**written, "servers_from": ["servers.d/*.yaml"]}))
    service = started(fleet)
    until(lambda: service.ask("readyz").status == 200)
    assert not service.life.has_logged("server.connected")

    for name, database in databases.items():
        fleet.write(f"servers.d/{name}.yaml", yaml.safe_dump([as_server(name, reaper_role, dbname=database)]))
    for name in databases:
        service.shows(1, "pg_reaper_leader", server=name)

    (fleet.folder / "servers.d" / "one.yaml").unlink()
    service.shows(None, "pg_reaper_leader", server="one")
    assert service.number("pg_reaper_leader", server="two") == 1


def test_a_server_that_is_named_twice_by_different_means_is_refused(
    fleet: Reaper, app: Role, reaper_role: Role, sandbox: Sandbox
) -> None:
    one = as_server("one", reaper_role, dbname=sandbox.database)
    (fleet.folder / "servers.d").mkdir()
    written = yaml.safe_load(policy_file(leaked(app), servers=[one]))
    fleet.write(FILE, yaml.safe_dump({**written, "servers_from": ["servers.d/*.yaml"]}))
    service = started(fleet)
    service.shows(1, "pg_reaper_leader", server="one")

    again = fleet.write("servers.d/again.yaml", yaml.safe_dump([one]))
    told = service.life.logged("policy.refused")
    assert told["mistake"].startswith("servers.d/again.yaml:2:9: ")
    assert "the name 'one' is already used by servers[0] of policies.yaml" in told["mistake"]
    assert service.number("pg_reaper_leader", server="one") == 1

    again.unlink()
    service.shows(1, "pg_reaper_reload_success")


def test_a_server_whose_connection_string_changes_is_left_and_found_at_the_new_place(
    fleet: Reaper, app: Role, reaper_role: Role, sandbox: Sandbox, clients: Clients, admin: psycopg.Connection
) -> None:
    old, new = sandbox.create_database("old"), sandbox.create_database("new")
    fleet.write(FILE, policy_file(leaked(app), servers=[as_server("shop", reaper_role, dbname=old)]))
    service = started(fleet)
    service.shows(1, "pg_reaper_leader", server="shop")
    until(clients.open(role=app, application="before").left)

    fleet.write(FILE, policy_file(leaked(app), servers=[as_server("shop", reaper_role, dbname=new)]))
    hang_up(service.life)
    until(lambda: [database for _, database in sessions_of(admin, reaper_role)] == [new])
    service.shows(1, "pg_reaper_leader", server="shop")
    until(clients.open(role=app, application="after").left)
    done = service.life.end()

    assert outcomes(fleet.record()) == {"before": "terminated", "after": "terminated"}
    (stopped,) = [line for line in done.log if line["event"] == "reaper.stopped"]
    assert (stopped["server"], stopped["terminated"]) == ("shop", 2)


def test_a_policy_for_some_servers_acts_only_there(
    fleet: Reaper, app: Role, reaper_role: Role, sandbox: Sandbox, clients: Clients
) -> None:
    one, two = sandbox.create_database("one"), sandbox.create_database("two")
    labelled: list[Keys] = [
        as_server("one", reaper_role, dbname=one, labels={"tier": "test"}),
        as_server("two", reaper_role, dbname=two, labels={"tier": "live"}),
    ]
    fleet.write(FILE, policy_file(leaked(app, servers={"tier": "test"}), servers=labelled))
    service = started(fleet)
    service.shows(1, "pg_reaper_policies", server="one", mode="enforce")
    service.shows(0, "pg_reaper_policies", server="two", mode="enforce")
    until(clients.open(role=app, application="before").left)

    fleet.write(FILE, policy_file(leaked(app, servers={"tier": "live"}), servers=labelled))
    hang_up(service.life)
    service.shows(0, "pg_reaper_policies", server="one", mode="enforce")
    service.shows(1, "pg_reaper_policies", server="two", mode="enforce")
    until(clients.open(role=app, application="after").left)

    fleet.recorded("session.outcome", application="after")
    done = {event["application"]: event["server"] for event in fleet.record() if "outcome" in event}
    assert done == {"before": "one", "after": "two"}
    assert len(events(service.life, "server.connected")) == 2


def test_a_policy_that_begins_to_enforce_without_the_right_is_refused_and_served_after_the_grant(
    reaper: Reaper, app: Role, reaper_role: Role, clients: Clients, admin: psycopg.Connection
) -> None:
    role = Identifier(reaper_role.name)
    admin.execute(SQL("REVOKE pg_signal_backend FROM {}").format(role))
    leak = clients.open(role=app, application="leak")
    reaper.write(FILE, policy_file(leaked(app, mode="dry-run")))
    service = started(reaper)
    service.life.logged("cycle.acted", **{"dry-run": 1})

    reaper.write(FILE, policy_file(leaked(app)))
    hang_up(service.life)
    told = service.life.logged("server.denied")
    until(lambda: service.ask("readyz").status == 503)
    service.shows(1, "pg_reaper_denied")
    assert "GRANT pg_signal_backend TO" in told["why"]
    assert leak.present()

    admin.execute(SQL("GRANT pg_signal_backend TO {}").format(role))
    until(leak.left)
    until(lambda: service.ask("readyz").status == 200)
    assert "denied" not in {event.get("outcome") for event in reaper.record()}


def test_a_longer_interval_takes_a_longer_lease_on_the_same_connection(
    tmp_path: Path, major: int, start_server: StartServer
) -> None:
    if major < 14:
        pytest.skip("idle_session_timeout, which the lease is made of, came with 14")
    own = start_server(log_statement="all")
    with Reaper(tmp_path, REAPER_DSN=own.dsn) as reaper:
        reaper.write(FILE, policy_file(leaked(Role("app", "")), interval="1s"))
        life = started(reaper).life
        life.logged("cycle.quiet")
        assert "'15000'" in own.log_text()

        reaper.write(FILE, policy_file(leaked(Role("app", "")), interval="1h"))
        hang_up(life)
        until(lambda: f"'{3 * 3_600_000}'" in own.log_text())
        assert len(events(life, "server.connected")) == 1
