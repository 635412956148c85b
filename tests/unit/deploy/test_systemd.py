"""The unit, held to the command that it starts, to the record that it keeps, and to itself."""

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
    """Every line that is neither a comment nor blank; anything that is no unit fails."""
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


def values(key: str) -> list[str]:
    return [each.value for each in ALL if each.key == key]


def value(key: str) -> str:
    (only,) = values(key)
    return only


def environment() -> dict[str, str]:
    return dict(variable.split("=", maxsplit=1) for variable in values("Environment"))


def seconds(key: str) -> float:
    said = value(key)
    assert said.endswith("s")
    return float(said[:-1])


def command(name: str) -> click.Command:
    found = reaper.get_command(click.Context(reaper), name)
    assert found
    return found


def started() -> list[list[str]]:
    """Every `reaper ...` that the unit runs, word by word."""
    lines = [each.value for each in ALL if each.key.startswith("Exec")]
    return [
        shlex.split(call)[1:] for line in lines for call in re.findall(rf"{PREFIX}/bin/reaper[^>&;']*", line)
    ]


def test_it_has_the_sections_of_a_service() -> None:
    assert list(dict.fromkeys(each.section for each in ALL)) == ["Unit", "Service", "Install"]


def test_a_setting_is_given_once_unless_it_is_a_list() -> None:
    lists = {"Environment", "SystemCallFilter"}
    once = [each.key for each in ALL if each.key not in lists]
    assert sorted(once) == sorted(set(once))


@pytest.mark.parametrize("text", [UNIT, NETWORKS], ids=["reaper.service", "networks.conf"])
def test_every_limit_and_every_wall_has_its_reason_above_it(text: str) -> None:
    service = [each for each in directives(text) if each.section == "Service"]
    first = next(i for i, each in enumerate(service) if each.key in {"TasksMax", "IPAddressDeny"})
    assert [each.key for each in service[first:] if not re.match(r"# \S.*[.:,]$", each.above)] == []


def test_what_it_starts_exists_with_every_option() -> None:
    calls = started()
    assert [words[0] for words in calls] == ["run", "check"]
    for name, *words in calls:
        known = {option for param in command(name).params for option in param.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known


def test_every_variable_of_ours_belongs_to_an_option_that_takes_the_value() -> None:
    options = {param.envvar: param for param in command("run").params if isinstance(param.envvar, str)}
    ours = {name: text for name, text in environment().items() if name.startswith("REAPER_")}
    assert ours
    for name, text in ours.items():
        options[name].type.convert(text, options[name], None)


def test_it_is_not_started_again_for_a_mistake_in_the_configuration_alone() -> None:
    assert value("Restart") == "on-failure"
    assert value("RestartPreventExitStatus") == str(Exit.USAGE.value)


def test_an_end_by_sigterm_before_it_heeds_signals_is_a_clean_one_to_systemd() -> None:
    """As it is by default, for `on-failure` too."""
    assert not {"SuccessExitStatus", "RestartForceExitStatus", "KillSignal"} & {each.key for each in ALL}


def test_a_bad_file_fails_the_reload_before_the_signal() -> None:
    words = shlex.split(value("ExecReload"))
    assert words[-1] == f"{PREFIX}/bin/reaper check --offline >/dev/null && kill -HUP $MAINPID"


def test_it_waits_longer_than_a_server_may_keep_it() -> None:
    assert seconds("TimeoutStartSec") > connection._CONNECT_SECONDS
    assert seconds("TimeoutStopSec") > connection._CONNECT_SECONDS + connection._WATCHDOG_SECONDS
    assert seconds("WatchdogSec") > connection._WATCHDOG_SECONDS


def test_its_folders_are_those_of_its_files() -> None:
    etc, state, run = (
        f"{root}/{value(key)}"
        for root, key in (
            ("/etc", "ConfigurationDirectory"),
            ("/var/lib", "StateDirectory"),
            ("%t", "RuntimeDirectory"),
        )
    )
    variables = environment()
    passfile, source = value("LoadCredential").split(":")
    assert PurePosixPath(variables["REAPER_AUDIT_LOG"]).parent == PurePosixPath(state)
    assert {
        str(PurePosixPath(path).parent)
        for path in (variables["REAPER_POLICIES"], source, value("EnvironmentFile").removeprefix("-"))
    } == {etc}
    assert value("ExecStartPre").split()[-2:] == [f"%d/{passfile}", variables["PGPASSFILE"]]
    assert str(PurePosixPath(variables["PGPASSFILE"]).parent) == run


def test_no_way_of_opening_its_files_is_left_to_others() -> None:
    assert value("UMask") == "0077"
    assert {value("StateDirectoryMode"), value("RuntimeDirectoryMode")} == {"0700"}
    assert " -m 600 " in value("ExecStartPre")


def test_the_record_is_rotated_where_it_is_written_and_in_the_way_that_loses_nothing() -> None:
    head, _, body = LOGROTATE.partition(" {\n")
    words = {line.strip() for line in body.splitlines()}
    assert head.splitlines()[-1] == environment()["REAPER_AUDIT_LOG"]
    # The crash recovery looks into audit.jsonl.1, and that file must be neither dated nor compressed.
    assert words >= {"nocreate", "nocopytruncate", "delaycompress", "nodateext"}
    assert not words & {"copytruncate", "create", "dateext", "sharedscripts"}


def test_the_way_to_install_it_names_what_it_needs() -> None:
    head = UNIT.partition("[Unit]")[0]
    variables = environment()
    wanted = {
        value("ExecStart").split()[0].removesuffix("/bin/reaper"),
        variables["REAPER_POLICIES"],
        value("LoadCredential").split(":")[1],
        value("EnvironmentFile").removeprefix("-"),
        *(str(path.relative_to(DEPLOY.parent)) for path in SYSTEMD.iterdir()),
        "deploy/runtime.lock",
        "deploy/sql/grants.sql",
    }
    assert {each for each in wanted if each not in head} == set()
