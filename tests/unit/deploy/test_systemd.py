"""The systemd unit matches the command that it starts and the files that it uses."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import click
import pytest

from reaper.cli.app import reaper
from reaper.cli.errors import Exit
from reaper.postgres import connection

DEPLOY: Final = Path(__file__).parents[3] / "deploy"
SYSTEMD: Final = DEPLOY / "systemd"
UNIT: Final = (SYSTEMD / "reaper.service").read_text(encoding="utf-8")
NETWORKS: Final = (SYSTEMD / "networks.conf").read_text(encoding="utf-8")
LOGROTATE: Final = (SYSTEMD / "logrotate").read_text(encoding="utf-8")

PREFIX: Final = "/opt/pg-reaper"


class Directive(NamedTuple):
    """One line of a unit, and the line above it."""

    section: str
    key: str
    value: str
    above: str


def directives(text: str) -> Iterator[Directive]:
    """Every line that is neither a comment nor blank; fails if it is not of a unit file."""
    section, above = "", ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert section, line
            assert equals, line
            assert re.fullmatch(r"[A-Z][A-Za-z]+", key), line
            yield Directive(section, key, value, above)
        above = line


ALL: Final = tuple(directives(UNIT))


ENVIRONMENT: Final = dict(each.value.split("=", maxsplit=1) for each in ALL if each.key == "Environment")


def value(key: str) -> str:
    (only,) = [each.value for each in ALL if each.key == key]
    return only


def seconds(key: str) -> float:
    return float(value(key).removesuffix("s"))


def command(name: str) -> click.Command:
    found = reaper.get_command(click.Context(reaper), name)
    assert found
    return found


def test_it_has_the_sections_of_a_service_and_each_setting_once_unless_it_is_a_list() -> None:
    assert list(dict.fromkeys(each.section for each in ALL)) == ["Unit", "Service", "Install"]
    once = [each.key for each in ALL if each.key not in {"Environment", "SystemCallFilter"}]
    assert sorted(once) == sorted(set(once))


@pytest.mark.parametrize("text", [UNIT, NETWORKS], ids=["reaper.service", "networks.conf"])
def test_every_restriction_has_its_reason_above_it(text: str) -> None:
    service = [each for each in directives(text) if each.section == "Service"]
    first = next(i for i, each in enumerate(service) if each.key in {"TasksMax", "IPAddressDeny"})
    assert [each.key for each in service[first:] if not re.match(r"# \S.*[.:,]$", each.above)] == []


def test_the_commands_that_it_runs_exist_with_every_option() -> None:
    lines = "\n".join(each.value for each in ALL if each.key.startswith("Exec"))
    calls = [shlex.split(call)[1:] for call in re.findall(rf"{PREFIX}/bin/reaper[^>&;'\n]*", lines)]
    assert [words[0] for words in calls] == ["run", "check"]
    for name, *words in calls:
        known = {option for param in command(name).params for option in param.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known


def test_every_variable_has_an_option_that_accepts_the_value() -> None:
    options = {param.envvar: param for param in command("run").params if isinstance(param.envvar, str)}
    ours = {name: text for name, text in ENVIRONMENT.items() if name.startswith("REAPER_")}
    assert ours
    for name, text in ours.items():
        options[name].type.convert(text, options[name], None)


def test_it_restarts_except_after_a_mistake_in_the_configuration() -> None:
    assert value("Restart") == "on-failure"
    assert value("RestartPreventExitStatus") == str(Exit.USAGE.value)
    # By default an exit by SIGTERM is a clean one, also before the service handles signals.
    assert not {"SuccessExitStatus", "RestartForceExitStatus", "KillSignal"} & {each.key for each in ALL}


def test_a_bad_file_fails_the_reload_before_the_signal() -> None:
    words = shlex.split(value("ExecReload"))
    assert words[-1] == f"{PREFIX}/bin/reaper check --offline >/dev/null && kill -HUP $MAINPID"


def test_its_timeouts_are_longer_than_those_of_a_server() -> None:
    assert seconds("TimeoutStartSec") > connection._CONNECT_SECONDS
    assert seconds("TimeoutStopSec") > connection._CONNECT_SECONDS + connection._WATCHDOG_SECONDS
    assert seconds("WatchdogSec") > connection._WATCHDOG_SECONDS


def test_its_folders_contain_its_files() -> None:
    passfile, source = value("LoadCredential").split(":")
    etc = PurePosixPath("/etc", value("ConfigurationDirectory"))
    for path in (ENVIRONMENT["REAPER_CONFIG"], source, value("EnvironmentFile").removeprefix("-")):
        assert PurePosixPath(path).parent == etc
    state = PurePosixPath("/var/lib", value("StateDirectory"))
    assert PurePosixPath(ENVIRONMENT["REAPER_AUDIT_LOG"]).parent == state
    assert value("ExecStartPre").split()[-2:] == [f"%d/{passfile}", ENVIRONMENT["PGPASSFILE"]]
    run = PurePosixPath("%t", value("RuntimeDirectory"))
    assert PurePosixPath(ENVIRONMENT["PGPASSFILE"]).parent == run


def test_other_users_cannot_read_its_files() -> None:
    assert value("UMask") == "0077"
    assert {value("StateDirectoryMode"), value("RuntimeDirectoryMode")} == {"0700"}
    assert " -m 600 " in value("ExecStartPre")


def test_the_audit_log_is_rotated_without_loss() -> None:
    head, _, body = LOGROTATE.partition(" {\n")
    words = {line.strip() for line in body.splitlines()}
    assert head.splitlines()[-1] == ENVIRONMENT["REAPER_AUDIT_LOG"]
    # The crash recovery reads audit.jsonl.1, which must be neither dated nor compressed.
    assert words >= {"nocreate", "nocopytruncate", "delaycompress", "nodateext"}
    assert not words & {"copytruncate", "create", "dateext", "sharedscripts"}


def test_the_instructions_name_every_file() -> None:
    head = UNIT.partition("[Unit]")[0]
    wanted = {
        value("ExecStart").split()[0].removesuffix("/bin/reaper"),
        ENVIRONMENT["REAPER_CONFIG"],
        value("LoadCredential").split(":")[1],
        value("EnvironmentFile").removeprefix("-"),
        *(str(path.relative_to(DEPLOY.parent)) for path in SYSTEMD.iterdir()),
        "deploy/runtime.lock",
        "deploy/sql/grants.sql",
    }
    assert {each for each in wanted if each not in head} == set()
