"""Whether the histories that the reapers of a campaign have kept can be read to their end."""

import asyncio
from collections.abc import Sequence

from .replica import Replica


async def unread(replicas: Sequence[Replica]) -> list[str]:
    """What the real command says of each history that it cannot read."""
    return [said for replica in replicas if (said := await asyncio.to_thread(_unread, replica))]


def _unread(replica: Replica) -> str:
    if not any(replica.history.glob("history-*")):
        return ""
    done = replica.daemon.ask("backtest", "--history", str(replica.history))
    return "" if done.code == 0 else f"the history of {replica.name}: {done.code}: {done.err}"
