import hashlib
import re
from dataclasses import replace
from datetime import UTC
from ipaddress import ip_network
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from reaper.config import BadPolicyFile, Occasion, Server, Webhook, load, loader, read
from reaper.config.settings import LabelSelector
from reaper.policy import rules
from reaper.policy.match import Match
from reaper.policy.refill_guard import DEFAULT_REFILL_GUARD, RefillGuard
from reaper.policy.selector import NO_KEYS, From, Glob, Selector
from reaper.policy.time import SECOND, Duration, parse_duration

LEAST = b"version: 1\npolicies:\n  - name: a\n    match: {state: [idle], idle_for: 10m}\n"
EVERY_KEY = (Path(__file__).parent / "every-key.yaml").read_bytes()


def minutes(count: int) -> Duration:
    return Duration(count * 60 * SECOND)


def test_the_smallest_file_gets_every_default() -> None:
    settings = read(LEAST, file="x")
    assert settings.interval == 10 * SECOND
    assert settings.min_interval == SECOND // 4
    assert (settings.servers, settings.servers_from, settings.notify, settings.policy_labels) == (
        (),
        (),
        (),
        (),
    )
    assert settings.warnings == ()
    assert settings.rules.protect == NO_KEYS
    assert settings.rules.policies == (
        rules.Policy(
            name="a",
            match=Match(states=("idle",), idle_for=minutes(10)),
            mode=rules.Mode.DRY_RUN,
            action=rules.Action.TERMINATE,
            max_per_cycle=rules.DEFAULT_MAX_PER_CYCLE,
            safety_limit=rules.DEFAULT_SAFETY_LIMIT,
        ),
    )


def test_every_key_reaches_the_rules() -> None:
    settings = read(EVERY_KEY, file="x")
    assert (settings.interval, settings.min_interval) == (30 * SECOND, SECOND // 2)
    assert settings.servers == (
        Server(name="orders", dsn="host=db-1 user=reaper", labels=(("env", "prod"), ("team", "shop"))),
        Server(name="local", dsn=""),
    )
    assert settings.servers_from == ("servers.d/*.yaml",)
    assert settings.notify == (
        Webhook(
            name="ops", url="http://chat/hooks/reaper", on=frozenset(Occasion), every=Duration(60 * SECOND)
        ),
        Webhook(
            name="on-call",
            url="HTTPS://chat:8443/?a=b",
            on=frozenset({Occasion.UNREADABLE}),
            every=minutes(60),
        ),
    )
    shop_or_billing = frozenset({"shop", "billing"})
    labels = LabelSelector((("env", frozenset({"prod"})), ("team", shop_or_billing)))
    assert settings.policy_labels == (("everything", labels),)
    assert settings.rules.protect == Selector(role=(Glob("*_migrator"),))
    everything, capped, statements = settings.rules.policies
    assert everything == rules.Policy(
        name="everything",
        description="All at once",
        mode=rules.Mode.ENFORCE,
        match=Match(
            states=("idle", "idle in transaction (aborted)"),
            idle_for=minutes(90),
            transaction_for=minutes(2 * 24 * 60),
            connected_for=Duration(90 * SECOND),
            blocking=True,
            xmin_age=1000,
            selector=Selector(
                role=(Glob("app_*"),),
                database=(Glob("shop"),),
                application=(Glob("web-*"), Glob("")),
                client=(From(ip_network("10.1.0.0/16")), From(ip_network("10.2.3.4")), From(None)),
            ),
        ),
        allowlist=Selector(application=(Glob("metabase"),)),
        overrides=frozenset({"listeners", "poolers"}),
        when=rules.When(0.805),
        during=(
            rules.Window(
                days=frozenset({4, 5, 6, 0}),
                start=20 * 60,
                end=6 * 60,
                zone=ZoneInfo("Europe/Berlin"),
                text="Fri-Mon 20:00-06:00 Europe/Berlin",
            ),
            rules.Window(days=frozenset(range(7)), start=22 * 60, end=24 * 60, zone=UTC, text="22:00-24:00"),
        ),
        keep=rules.Keep(newest=2, per=("role", "client")),
        max_per_cycle=3,
        safety_limit=rules.SafetyLimit(share=0.25, above=0),
        refill_guard=RefillGuard(
            within=parse_duration("5s"),
            share=0.8,
            acts=20,
            pause=parse_duration("1m"),
            longest=parse_duration("1h"),
        ),
    )
    assert capped.max_sessions == rules.MaxSessions(most=20, per=("application",))
    assert capped.refill_guard == replace(DEFAULT_REFILL_GUARD, acts=4)
    assert capped.safety_limit == rules.SafetyLimit(share=rules.DEFAULT_SAFETY_LIMIT.share, above=9)
    assert statements.mode is rules.Mode.DISABLED
    assert statements.action is rules.Action.CANCEL
    assert statements.match.running_for == minutes(4 * 60)
    assert statements.safety_limit is None
    assert statements.refill_guard is None


def test_a_single_value_needs_no_list() -> None:
    listed = LEAST.replace(b"10m}", b'10m, role: ["app_*"]}') + b'    during: ["Sat,Sun 08:00-09:00"]\n'
    single = re.sub(rb"[][]|(?<=- name: a)", b"", listed)
    assert read(single, file="x").rules.policies == read(listed, file="x").rules.policies
    assert read(single, file="x").rules.policies[0].during[0].days == {5, 6}


def test_the_digest_is_of_the_bytes_that_were_read() -> None:
    assert read(LEAST, file="x").rules.digest == hashlib.sha256(LEAST).hexdigest()
    assert read(LEAST + b"#\n", file="x").rules.digest != read(LEAST, file="x").rules.digest


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [LEAST, b"changed meanwhile"]
    monkeypatch.setattr(loader, "contents", lambda *_, **__: answers.pop(0))
    assert load(tmp_path / "policies.yaml").rules.digest == hashlib.sha256(LEAST).hexdigest()
    assert len(answers) == 1


def test_a_byte_order_mark_moves_no_column() -> None:
    assert read(b"\xef\xbb\xbf" + LEAST, file="x").rules.policies
    with pytest.raises(BadPolicyFile, match=r"^x:1:10: version: 2 "):
        read(b"\xef\xbb\xbfversion: 2\npolicies: [{name: a, match: {state: [idle], idle_for: 1m}}]", file="x")


def test_an_unreadable_file_is_a_mistake(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    with pytest.raises(BadPolicyFile) as refused:
        load(missing)
    what = "the file cannot be read: No such file or directory"
    instead = "name a readable one with --config or REAPER_CONFIG"
    assert str(refused.value) == f"{missing}:1:1: file: {what}; {instead}"
    with pytest.raises(BadPolicyFile, match=r"cannot be read: Is a directory; "):
        load(tmp_path)
    with pytest.raises(BadPolicyFile, match=r"cannot be read: embedded null byte; "):
        load(Path("nul\0"))


def test_aliases_are_written_out() -> None:
    text = b"""
version: 1
policies:
  - name: a
    match: {state: &idle [idle], idle_for: 1h, role: [app]}
  - name: b
    match: {state: *idle, idle_for: 1m, role: [web]}
"""
    assert [policy.match.states for policy in read(text, file="x").rules.policies] == [("idle",), ("idle",)]
