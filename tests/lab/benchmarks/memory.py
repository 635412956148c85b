"""Memory of a real reaper with everything on, while clients come with new names all the time."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import yaml

from reaper.demo.server import free_ports
from tests.lab.clients.crowd import IdleCrowd
from tests.lab.clients.sleepers import ROOT
from tests.lab.report import figure, table
from tests.lab.world.observe import memory as memory_of
from tests.lab.world.reaper import CYCLES, NO_LIMITS, PORT, ReaperProcess, policy, rules
from tests.lab.world.server import REAPER, LabServer, lab_server

_POLICIES: Final = 20
_AT_ONCE: Final = 10
_KEPT: Final = 50
_PARTS: Final = 4
_PAUSE: Final = 0.05
_PAGES: Final = ("/", "/usage", "/assess", "/snapshot?server=server")


def memory(*, major: int, seconds: float = 1_200.0, renamed: int = 850) -> Iterator[str]:
    """Memory with everything on, among new names.

    This number of sessions change their application names every second: a million names in 20 minutes.
    """
    room = str(renamed + 200)
    with lab_server(major, max_connections=room) as (server, folder), LabServer(major) as beside:
        beside.run((ROOT / "deploy" / "sql" / "record_table.sql").read_bytes())
        rows = list(_everything(server, beside, folder, seconds, renamed))
    yield table(
        f"Memory: one server; everything is {_POLICIES} policies that terminate, one dry run, the audit log\n"
        "in a file and in a table, a history every second, HTTP scraped all the time, a webhook, the whole\n"
        "log; and clients with new names: some are terminated, others change their names",
        ("", "cycles", "names", "terminations", "RSS", "PSS"),
        rows,
    )


def _everything(
    server: LabServer, beside: LabServer, folder: Path, seconds: float, renamed: int
) -> Iterator[Sequence[str]]:
    hook = {"name": "unused", "webhook": f"http://127.0.0.1:{next(free_ports())}/", "every": "1s"}
    history = ("--history", "history", "--history-every", "1s")
    reaper = ReaperProcess(
        folder / "all",
        _policy_file(server.dsn_of(REAPER)) + yaml.safe_dump({"notify": [hook]}),
        *("--audit-table", beside.dsn, *history),
        listen=PORT,
        log_level="debug",
    )
    with reaper, IdleCrowd(server.port) as visitors, IdleCrowd(server.port) as others:
        others.open(renamed, ["other"])
        names, renamed_at = 0, 0.0
        reaper.wait(*CYCLES)
        yield ("at the start", *_now(reaper, names))
        for part in range(1, _PARTS + 1):
            end = time.monotonic() + seconds / _PARTS
            while time.monotonic() < end:
                # Visitors stay idle until they are terminated.
                visitors.open(_AT_ONCE, ["app"], new=names)
                names += _AT_ONCE
                visitors.close(max(0, len(visitors) - _KEPT))
                if time.monotonic() - renamed_at >= 1:
                    renamed_at = time.monotonic()
                    others.run(*(f"SET application_name = 'job-{names + each}'" for each in range(renamed)))
                    names += renamed
                reaper.get("/metrics")
                time.sleep(_PAUSE)
            yield (f"after {part}/{_PARTS}", *_now(reaper, names))
        for page in _PAGES:
            reaper.get(page)
        yield ("and after its pages were opened", *_now(reaper, names))


def _policy_file(dsn: str) -> str:
    """Policies of which the last two and the dry run are ever due; the others wait for a day."""
    return rules(
        dsn,
        *(policy(f"waits-{each}", 86_400, role=["app"]) for each in range(_POLICIES - 1)),
        policy("leaked", 0.1, role=["app"], keys=NO_LIMITS),
        policy("dry-run", 0.05, mode="dry-run", role=["app"], keys=NO_LIMITS),
        # Its candidates are decided in every cycle, and skipped.
        policy("renamed", 0.05, role=["other"], keys={"when": {"slots_used": "100%"}}),
        interval=1,
        min_interval=0.01,
    )


def _now(reaper: ReaperProcess, names: int) -> Sequence[str]:
    cycles, held = reaper.log.named(*CYCLES), memory_of(reaper.pid)
    ended = sum(cycle.fields.get("terminated", 0) for cycle in cycles)
    counts = (f"{each:,}" for each in (len(cycles), names, ended))
    return (*counts, figure(held.rss, "MiB"), figure(held.pss, "MiB"))
