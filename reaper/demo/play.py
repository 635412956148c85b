"""From an empty folder to the last words: server, reaper, clients, story, and everything cleaned up again."""

import asyncio
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from reaper.audit.file import FileSink
from reaper.audit.ledger import Ledger
from reaper.config import Server
from reaper.demo.clients import server_words
from reaper.demo.patrol import Patrol
from reaper.demo.policy_file import NAME, PolicyFile, shipped
from reaper.demo.scene import Scene
from reaper.demo.score import SERVER, Score
from reaper.demo.server import EmbeddedServer
from reaper.demo.stage import Stage
from reaper.demo.story import Story
from reaper.demo.summary import RECORD, summary
from reaper.demo.tempo import Tempo
from reaper.postgres.errors import Lost
from reaper.service.connection import RunOptions, opened

_SLOTS: Final = 20
_SETTINGS: Final = {
    "max_connections": str(_SLOTS),
    # No slot is reserved, so that a full server says what everybody knows: too many clients already.
    "superuser_reserved_connections": "0",
}
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_READING: Final = 3.0
"""Beats for reading the policies."""

_DATABASE: Final = "shop"
_ROLES: Final = "roles.sql"
_SERVER_LOG: Final = "server.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How the demo is to be played."""

    binaries: Path
    seconds: float
    keep: bool = False


async def play(script: Script, stage: Stage) -> bool:
    """Play; whether everybody lives who should. Interrupted comes out when everything is cleaned up."""
    _forget_other_servers()
    tempo = Tempo(seconds=script.seconds)
    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, tempo.interrupt, number)
    server = EmbeddedServer(binaries=script.binaries, settings=_SETTINGS)
    score = Score(stage.tell)
    try:
        with stage.show(score):
            told = await _from_start_to_end(server, score, tempo)
        kept = _keep(server) if script.keep else None
        stage.close_with(summary(score, server.folder / RECORD, told, kept))
    except psycopg.Error as error:
        raise Lost(server_words(error)) from None
    finally:
        await asyncio.to_thread(server.stop)
    return all(proof.well for proof in score.proofs)


async def _from_start_to_end(server: EmbeddedServer, score: Score, tempo: Tempo) -> str:
    score.show_policies(shipped())
    # In a thread and to its end, whatever signal comes: half a server is hard to clean up.
    await asyncio.to_thread(server.start)
    await tempo.rest(_READING)
    score.server = f"PostgreSQL {server.major}"
    score.tell(SERVER, f"{score.server}, {_SLOTS} slots, in {server.folder} until the end")
    dsn = make_conninfo(server.dsn, dbname=_DATABASE, sslmode="disable", gssencmode="disable")
    await _prepare(server.dsn, dsn)
    with _opened_ledger(server.folder / RECORD) as ledger:
        return await _with_the_reaper(dsn, PolicyFile(server.folder), ledger, score, tempo)


async def _with_the_reaper(dsn: str, policies: PolicyFile, ledger: Ledger, score: Score, tempo: Tempo) -> str:
    settings = policies.read()
    score.mode = "dry-run"
    # Inside before the trouble begins: when all slots are taken, nobody else gets in.
    watched = Server(name="demo", dsn=make_conninfo(dsn, user="reaper"))
    async with opened(watched, settings.rules, RunOptions()) as at:
        patrol = Patrol(watched, at, settings, ledger=ledger, saw=score.saw)
        scene = Scene(dsn, tempo)
        story = Story(scene=scene, patrol=patrol, policies=policies, score=score, tempo=tempo)
        async with _beside(patrol.run()):
            try:
                return await _played(story)
            finally:
                await patrol.finish()


async def _played(story: Story) -> str:
    scene = story.scene
    try:
        await story.arrive()
        async with _beside(scene.work(), scene.leak(), scene.shop(story.score.trying)):
            await story.fill_up()
            await story.enforce()
            return await story.ask()
    finally:
        await scene.leave()


async def _prepare(dsn: str, shop: str) -> None:
    async with await AsyncConnection.connect(dsn, autocommit=True) as admin:
        await admin.execute(f"CREATE DATABASE {_DATABASE}")
    async with await AsyncConnection.connect(shop, autocommit=True) as admin:
        await admin.execute(files("reaper.demo").joinpath(_ROLES).read_bytes())


@contextmanager
def _opened_ledger(record: Path) -> Iterator[Ledger]:
    ledger = Ledger([FileSink(record)], clock=lambda: datetime.now(UTC), run=uuid.uuid4().hex)
    ledger.open()
    try:
        yield ledger
    finally:
        ledger.close()


@asynccontextmanager
async def _beside(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """These go on beside the block and end with it; if one of them fails, so does the block."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _keep(server: EmbeddedServer) -> Path:
    kept = Path(tempfile.mkdtemp(prefix="reaper-demo-"))
    for name in (RECORD, NAME, _SERVER_LOG):
        shutil.copyfile(server.folder / name, kept / name)
    return kept


def _forget_other_servers() -> None:
    # PGHOSTADDR, PGSSLMODE and their like are meant for another server than ours.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
