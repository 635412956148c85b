"""A client may call itself what it likes: it can spare or endanger nobody but itself."""

from dataclasses import replace

import pytest
from psycopg.sql import SQL, Literal

from reaper.policy.plan import Reap, Result, Spare
from reaper.policy.selector import Glob, Selector

from .clients import Client
from .reaping import AT_ONCE, policy
from .stage import Stage


def rename(client: Client, name: str) -> None:
    client.connection.execute(SQL("SET application_name = {}").format(Literal(name)))


@pytest.mark.parametrize(
    ("allowlist", "is_fooled"),
    [
        (Selector(application=(Glob("metabase"),)), True),
        (Selector(role=(Glob("metabase"),)), False),
    ],
    ids=["by application", "by role"],
)
def test_an_allowlist_by_application_spares_whoever_uses_the_name_and_one_by_role_does_not(
    stage: Stage, allowlist: Selector, *, is_fooled: bool
) -> None:
    liar = stage.open()
    rename(liar, "metabase")
    match = replace(AT_ONCE, selector=Selector(role=(Glob(stage.app.name),)))

    verdict = stage.reaper.verdict(liar, replace(policy("*"), match=match, allowlist=allowlist))

    assert isinstance(verdict, Spare if is_fooled else Reap)


def test_a_client_that_takes_a_condemned_name_endangers_itself_alone(stage: Stage) -> None:
    liar, bystander = stage.open(application="honest"), stage.open(application="honest")
    rename(liar, stage.application)

    assert stage.reaper.act(stage.reaper.condemn(liar, policy(stage.application))).result is Result.TERMINATED
    assert bystander.alive()


def test_a_client_that_drops_its_condemned_name_in_time_has_woken_up_and_lives(stage: Stage) -> None:
    client = stage.open()
    reap = stage.reaper.condemn(client, policy(stage.application))

    rename(client, "honest")

    assert stage.reaper.signal(reap).result is Result.WOKE
    assert client.alive()
