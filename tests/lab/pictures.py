"""The pictures of the README, made from the real command beside a real server."""

import math
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import psycopg
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.text import Text

from tests.lab.world.reaper import PORT, ReaperProcess, policy, rules
from tests.lab.world.server import REAPER, LabServer, lab_server
from tests.postgres.waiting import until
from tests.system.browser import PROGRAM, Browser
from tests.system.command import find

_SESSIONS: Final[Mapping[tuple[str, str], int]] = {
    ("other", "metabase"): 4,
    ("other", "pg_dump"): 1,
    ("app", "web-shop"): 11,
    ("app", "worker"): 6,
    ("app", "web-checkout"): 8,
    ("other", "psql"): 2,
}
_COLUMNS: Final = 80
_WIDTH: Final = 1100
_HEIGHT: Final = 860


def pictures(*, major: int, folder: str = ".github/images", seconds: float = 400.0) -> Iterator[str]:
    """Draw the status page and `reaper plan` for a server that leaked sessions for this time."""
    assert PROGRAM, "chromium is not installed here"
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        server, scratch = stack.enter_context(lab_server(major, max_connections="40"))
        text = _policies(server, seconds / 4)
        reaper = stack.enter_context(ReaperProcess(scratch / "reaper", text, listen=PORT))
        reaper.answers("/readyz")
        _open_sessions(server, stack, seconds)
        browser = stack.enter_context(Browser(PROGRAM))
        for name, dark in {"page": False, "page-dark": True}.items():
            with browser.page(width=_WIDTH, height=_HEIGHT, dark=dark) as view:
                view.open(f"http://{reaper.address}/")
                view.picture(target / f"{name}.png", whole=False)
        _draw("plan", reaper, scratch / "plan.svg")
        width, height = _size(scratch / "plan.svg")
        with browser.page(width=width, height=height) as view:
            view.open(f"file://{scratch / 'plan.svg'}")
            view.picture(target / "plan.png")
    yield "\n".join(sorted(map(str, target.glob("*.png"))))


def _open_sessions(server: LabServer, stack: ExitStack, seconds: float) -> None:
    """Open all sessions, most of them in the first half of the time and at equal distances."""
    began, total = time.monotonic(), sum(_SESSIONS.values())
    names = [name for name, count in _SESSIONS.items() for _ in range(count)]
    for number, (role, application) in enumerate(names):
        until(lambda: time.monotonic() - began > seconds / 2 / total * number, within=seconds)  # noqa: B023
        dsn = make_conninfo(server.dsn_of(role), application_name=application)
        session = stack.enter_context(psycopg.connect(dsn, autocommit=application != "worker"))
        session.execute("SELECT 1")
    until(lambda: time.monotonic() - began > seconds, within=seconds)


def _policies(server: LabServer, limit: float) -> str:
    leaked = policy("leaked-web-sessions", limit, mode="dry-run", application="web-*")
    forgotten = policy("forgotten-transactions", limit, mode="dry-run", state="idle in transaction")
    idle = policy(
        "idle-for-long", limit, mode="dry-run", role="other", keys={"allowlist": {"application": "metabase"}}
    )
    return rules(server.dsn_of(REAPER), leaked, forgotten, idle, interval=10, name="orders")


def _draw(command: str, reaper: ReaperProcess, path: Path) -> None:
    """Save what a command prints on a terminal of 80 columns as SVG."""
    shell = f"stty cols {_COLUMNS} rows 40; {find('reaper')} {command}"
    environment = {**reaper.environment, "TERM": "xterm-256color"}
    printed = subprocess.run(
        ["script", "--quiet", "--return", "--command", shell, "/dev/null"],  # noqa: S607
        cwd=reaper.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    console = Console(record=True, width=_COLUMNS, file=StringIO(), force_terminal=True)
    console.print(f"$ reaper {command}", style="bold")
    console.print(Text.from_ansi(printed))
    # Without the fonts that rich would load from the network.
    path.write_text(re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="reaper"), flags=re.DOTALL))


def _size(svg: Path) -> tuple[int, int]:
    """The width and height of a picture."""
    _, _, width, height = ET.parse(svg).getroot().attrib["viewBox"].split()  # noqa: S314 (rich wrote it)
    return math.ceil(float(width)), math.ceil(float(height))
