"""The role of deploy/sql/grants.sql: enough for the reaper, and no more."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, LiteralString

import pytest

from reaper.policy.rules import Rules
from reaper.postgres.preflight import Level

from .conftest import StartStage
from .reaping import policy
from .sandbox import Role
from .stage import Stage
from .test_preflight import findings

GRANTS: Final = (Path(__file__).parents[2] / "deploy/sql/grants.sql").read_bytes()
ENFORCING: Final = Rules(policies=(policy("web"),))


@pytest.fixture
def stage(start_stage: StartStage) -> Stage:
    """A server of the test's own, for the name of the role is not ours to choose."""
    return start_stage(reserved_connections="2") if False else start_stage()


def role(stage: Stage) -> Role:
    return Role(name="reaper", dsn=stage.server.dsn)
