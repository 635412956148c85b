"""Everything that a client can write, through every output there is: nothing in it does anything anywhere.

Whoever adds a command, a page or an occasion for a message is reminded here to say what clients can put
there.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final
from urllib.request import Request, urlopen

import psycopg
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from psycopg.conninfo import make_conninfo

from reaper.audit.reader import GROUPS
from reaper.cli.app import _COMMANDS
from reaper.config import Occasion
from reaper.history.snapshot import parse_snapshot
from reaper.policy.time import SECOND, Timestamp
from reaper.telemetry.http.routes import Health, application
from reaper.telemetry.http.views import ServiceAssessment
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.metrics.exposition import OPENMETRICS, TEXT
from reaper.telemetry.metrics.samples import TOP_APPLICATIONS
from tests.postgres.clients import Client, Clients
from tests.postgres.sandbox import Sandbox
from tests.postgres.server import Server
from tests.postgres.waiting import PATIENCE, until
from tests.unit.history.histories import writer
from tests.unit.telemetry.webhook import Webhook, webhook

from .command import Reaper
from .policies import FILE, policy_file
from .service import Service, started
from .test_hostile_names import NAMES, SHARE, harmless
from .test_service_manager import Manager

PLANTED: Final[Mapping[str, str]] = {
    **NAMES,
    "a metric": '"}\\\n# TYPE reaper_forged counter\nreaper_forged_total{a="',
    "a page": "<script>alert(1)</script><img src=x onerror=a>",
    "a line of logfmt": 'x" level=error msg="forged',
    "a sheet": "=cmd|' /C calc'!A0,+1,@SUM(1)",
    "a format": "{0.__class__} {why!r} %(x)s %s ${jndi:ldap://x}",
    "a message": "<!channel> @here ```x``` [a](http://x)",
    "a link of rich": "[link=http://x][blink]x[/][/nope]",
    "an end of JSON": '","event":"forged","x":"\\',
    "nothing to see": "a\u200b\u200d\ufeff\u00adb\x85\u2029\x7f",
}
CUT: Final = "é" * 31
"""Where there is no encoding the server cuts a name in the middle of a letter."""

SHOWN: Final = {
    *("usage", "advise", "run", "once", "plan", "explain", "check", "snapshot", "audit", "assess"),
    "backtest",
}
SHOWS_NO_CLIENT: Final = {"schema", "demo", "help", "completion", "history"}
PAGES: Final = {"/metrics", "/livez", "/readyz", "/", "/usage", "/assess", "/style.css", "/icon.svg"}


def test_every_command_page_and_occasion_is_tried_here() -> None:
    assert set(_COMMANDS) == SHOWN | SHOWS_NO_CLIENT

    def well() -> Health:
        return Health(good=True, reasons={})

    async def nothing(_: str | None) -> None:
        pass

    async def assessment() -> ServiceAssessment:
        return ServiceAssessment()

    pages = application(
        metrics=Metrics("1"), livez=well, readyz=well, overview=nothing, assessment=assessment
    )
    assert {getattr(route, "path", None) for route in pages.routes} == PAGES
    assert set(Occasion) == {"safety_limit", "unreadable", "failures", "terminations", "refill_guard"}


@pytest.fixture
def chat() -> Iterator[Webhook]:
    """Where the messages arrive."""
    with webhook() as hook:
        yield hook


@pytest.fixture
def planted(sandbox: Sandbox, clients: Clients, server: Server) -> Iterator[Mapping[str, Client]]:
    """A session of each of these names: as role, database, application and last query."""
    opened = {}
    database = sandbox.create_database(PLANTED["a terminal"])
    with ExitStack() as stack:
        bystander = sandbox.role("bystander")
        for name in PLANTED.values():
            clients.open(role=bystander, application=name)
        for name in (*PLANTED.values(), CUT):
            role = sandbox.role(name if name != CUT else "half")
            client = clients.open(role=role, database=database, application=SHARE + name)
            label = name.replace('"', "")[:20]
            client.connection.pgconn.exec_(f'SELECT $x${name}$x$ AS "{label}"'.encode())
            opened[name] = client
        stack.enter_context(_cut_short(sandbox, server, sandbox.name("half")))
        yield opened


@contextmanager
def _cut_short(sandbox: Sandbox, server: Server, role: str) -> Iterator[None]:
    """Give a role a name that ends amid a letter."""
    database = sandbox.create_database("ascii", encoding="SQL_ASCII")
    name = f"{role}{CUT}".encode()[:63]
    assert name != name.decode(errors="ignore").encode()
    dsn = make_conninfo(server.dsn, dbname=database, client_encoding="SQL_ASCII")
    with psycopg.connect(dsn, autocommit=True) as raw:
        raw.execute(b'ALTER ROLE "%s" RENAME TO "%s"' % (role.encode(), name))
        try:
            yield
        finally:
            raw.execute(b'ALTER ROLE "%s" RENAME TO "%s"' % (name, role.encode()))


def policies(sandbox: Sandbox, hook: Webhook) -> str:
    """All of them are condemned, and somebody is told."""
    match = {
        "state": ["idle"],
        "idle_for": "1ms",
        "role": [f"{sandbox.prefix}*"],
        "application": [f"{SHARE}*"],
    }
    limits = {"safety_limit": "none", "max_per_cycle": 99}
    policy = {"name": "hostile", "mode": "enforce", "match": match, **limits}
    notify = [{"name": "ops", "webhook": hook.url, "every": "1s"}]
    return yaml.safe_dump({**yaml.safe_load(policy_file(policy)), "notify": notify})


class Shown:
    """Collects what was shown, and holds each of it to doing nothing."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}

    def text(self, what: str, text: str) -> None:
        """Lines for people."""
        assert text, what
        assert harmless(text), f"{what}: {text!a}"

    def lines(self, what: str, text: str) -> list[Mapping[str, Any]]:
        """JSON lines, each by itself, and ASCII."""
        self.text(what, text)
        assert text.isascii(), what
        parsed = [json.loads(line) for line in text.splitlines()]
        assert all(isinstance(line, dict) and line["event"] != "forged" for line in parsed), what
        return parsed

    def document(self, what: str, as_json: str, as_yaml: str) -> Any:  # noqa: ANN401 (whatever it is)
        """One document in two forms."""
        self.text(what, as_json)
        self.text(what, as_yaml)
        assert as_json.isascii(), what
        document = json.loads(as_json)
        assert yaml.safe_load(as_yaml) == document, what
        return document


def ask(reaper: Reaper, shown: Shown, *command: str) -> Any:  # noqa: ANN401 (whatever it shows)
    """The same question in every form; the document."""
    table, as_json, as_yaml = (reaper(*command, "-o", form) for form in ("table", "json", "yaml"))
    what = " ".join(command)
    shown.text(what, table.out)
    assert not table.err + as_json.err + as_yaml.err, what
    return shown.document(what, as_json.out, as_yaml.out)


def test_no_name_does_anything_in_what_the_commands_show(
    reaper: Reaper, sandbox: Sandbox, planted: Mapping[str, Client], chat: Webhook
) -> None:
    shown = Shown()
    reaper.write(FILE, policies(sandbox, chat))
    taken = reaper("snapshot", "seen.json")
    assert (taken.code, taken.out, taken.err) == (0, "", "")
    saved = (reaper.folder / "seen.json").read_text(encoding="ascii")
    shown.text("snapshot", saved)

    plan = ask(reaper, shown, "plan", "--snapshot", "seen.json")
    assert len(plan["decisions"]) == len(planted)
    roles = {row["pid"]: row["role"] for row in plan["decisions"]}
    assert roles[planted[CUT].pid].endswith(r"\xc3")
    for name, client in planted.items():
        assert roles[client.pid].startswith(sandbox.prefix + name) or len(name.encode()) > 50
    for name in (CUT, PLANTED["a link of rich"]):
        explained = ask(reaper, shown, "explain", str(planted[name].pid), "--snapshot", "seen.json")
        assert explained["role"] == roles[planted[name].pid]
    usage = ask(reaper, shown, "usage", "--snapshot", "seen.json", "--top", "100")
    told = {group["name"] for group in usage["usage"]["census"]["roles"]["groups"]}
    assert {roles[client.pid] for client in planted.values()} <= told
    shown.text("check", reaper("check").out)
    assert reaper("once", "--dry-run", "--audit-log", "dry.jsonl").code == 0
    (assessed,) = ask(reaper, shown, "assess", "dry.jsonl")["policies"]
    assert assessed["dry_runs"] == len(planted)
    _backtested(reaper, shown, saved.encode(), len(planted))


def _backtested(reaper: Reaper, shown: Shown, saved: bytes, many: int) -> None:
    """The same sessions in a history, a while later: every one of them is taken."""
    seen = parse_snapshot(saved, file="seen.json")
    folder = reaper.folder / "history"
    keeper = writer(folder)
    for number in range(3):
        keeper.write(replace(seen, at=Timestamp(seen.at + number * SECOND)))
    keeper.close()
    for file in folder.iterdir():
        shown.text("a history", gzip.decompress(file.read_bytes()).decode("ascii"))

    account = ask(reaper, shown, "backtest", "--history", "history")
    (side,) = account["servers"][0]["sides"]
    assert side["taken"] == many
    compared = ("backtest", "--history", "history", "--compare", FILE, FILE)
    assert ask(reaper, shown, *compared)["servers"][0]["comparison"]["both"] == many
    done = reaper("backtest", "--history", "history", "--html", "report.html", "--acts", "acts.jsonl")
    assert (done.code, done.err) == (0, "")
    page = (reaper.folder / "report.html").read_text(encoding="utf-8")
    # The report has two scripts of its own, plotly and the drawing, beside data in which names are escaped.
    data = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert "<" not in "".join(data)
    rest = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)
    shown.text("a report", rest)
    assert "alert(1)" in rest
    assert "<script" not in rest
    assert "<img" not in rest
    acts = (reaper.folder / "acts.jsonl").read_text(encoding="ascii")
    assert len(acts.splitlines()) == many
    shown.text("acts", acts)

    advice = ask(reaper, shown, "advise", "--snapshot", "seen.json", "--idle-for", "100ms")
    assert advice["not_observed"]
    shown.text("advise, live", reaper("advise", "--for", "1s", "--idle-for", "100ms").out)
    drafted = reaper("advise", "--once", "--idle-for", "100ms", "--policy")
    shown.text("the drafted file", drafted.out)
    reaper.write("drafted.yaml", drafted.out)
    assert reaper("check", "-c", "drafted.yaml", "--offline", "--strict").code == 0


def test_no_name_does_anything_in_what_the_service_tells(
    reaper: Reaper, sandbox: Sandbox, planted: Mapping[str, Client], chat: Webhook
) -> None:
    shown = Shown()
    reaper.write(FILE, policies(sandbox, chat))
    dry_run_before = reaper("once", "--dry-run", "--with-query-literals", "--log-format", "human")
    shown.text("the log for people", dry_run_before.err)
    recorded = shown.lines("the record on stdout", dry_run_before.out)
    assert sum(event["event"] == "session.outcome" for event in recorded) == len(planted)
    reaper.write("rehearsed.jsonl", dry_run_before.out)
    for form in ("table", "json", "yaml"):
        shown.text(f"rehearsal as {form}", reaper("assess", "rehearsed.jsonl", "-o", form).out)

    manager = Manager(reaper.folder)
    reaper.environment["NOTIFY_SOCKET"] = str(manager.path)
    service = started(reaper, "--with-query-text")
    for client in planted.values():
        until(client.left)
    until(lambda: sum(len(lines) for lines in chat.lines) >= len(planted))
    _measured(service, shown)
    _seen(service, shown, reaper)
    for page in ("livez", "readyz"):
        shown.text(page, service.ask(page).body)
    ended = service.life.end()
    manager.close()

    shown.lines("the log", ended.err)
    record = shown.lines("the record", (reaper.folder / "audit.jsonl").read_text(encoding="ascii"))
    outcomes = [event for event in record if event["event"] == "session.outcome"]
    assert [event["outcome"] for event in outcomes] == ["terminated"] * len(planted)
    assert len({event["pid"] for event in outcomes}) == len(planted)
    for message in chat.texts:
        shown.text("a message", message)
        assert not set("<>`") & set(message.removeprefix("```").removesuffix("```"))
    for said in manager.said:
        assert not [line for line in said.split("\n") if not line.isprintable()]
    _audited(reaper, shown, len(planted))


def _measured(service: Service, shown: Shown) -> None:
    """The page in both forms, with those on it who were not meant."""
    where = f"http://{service.life.logged('http.listening')['at']}/metrics"
    for accept, parse in ((TEXT, parse_text), (OPENMETRICS, parse_openmetrics)):
        with urlopen(Request(where, headers={"accept": accept}), timeout=PATIENCE) as answer:
            page = answer.read().decode()
        shown.text("metrics", page)
        families = {family.name for family in parse(page)}
        assert "pg_reaper_sessions" in families
        assert all(name.startswith("pg_reaper_") and "forged" not in name for name in families)
        assert page.count("\npg_reaper_sessions{") > TOP_APPLICATIONS


def _seen(service: Service, shown: Shown, reaper: Reaper) -> None:
    """Those who were not meant are still there, on the status page and in what stands behind it."""
    page, document = service.ask("").body, service.ask("usage").body
    for told in (page, document):
        shown.text("the status page", told)
        assert "bystander" in told
    assert document.isascii()
    where = service.life.logged("http.listening")["at"]
    for form in ("table", "json", "yaml"):
        shown.text(f"usage as {form}", reaper("usage", "--url", where, "-o", form).out)


def _audited(reaper: Reaper, shown: Shown, many: int) -> None:
    assert len(ask(reaper, shown, "audit", "audit.jsonl")) == many
    for group in GROUPS:
        assert sum(row["total"] for row in ask(reaper, shown, "audit", "audit.jsonl", "--by", group)) == many
    for question in ("verify", "reconcile"):
        done = reaper("audit", question, "audit.jsonl")
        shown.text(f"audit {question}", done.out + done.err)
