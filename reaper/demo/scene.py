"""The scene: every client of the demo, on and off."""

from collections.abc import AsyncIterator, Callable
from typing import Final

from reaper.demo.clients import (
    Backup,
    BusyPool,
    Client,
    Customer,
    Door,
    ForgottenTransaction,
    Leader,
    LeakyPool,
    Listener,
    Proof,
    Reports,
)
from reaper.demo.tempo import Tempo

# Not in beats: a slow story must not make it look idle.
_WORK_EVERY: Final = 0.25
_SHOP_EVERY: Final = 0.5
_LEAK_EVERY: Final = 0.8
_LEAK_LATER_EVERY: Final = 2.5


class Scene:
    """The clients, and what they do all the time."""

    def __init__(self, dsn: str, tempo: Tempo) -> None:
        door = Door(dsn)
        self._tempo = tempo
        self.console = ForgottenTransaction(door)
        self.leaky = LeakyPool(door)
        self.customer = Customer(door)
        self.busy = BusyPool(door)
        self.residents = (Leader(door), Listener(door), Backup(door), Reports(door), self.busy)
        self._leak_every = _LEAK_EVERY

    async def work(self) -> None:
        """The busy pool's life."""
        await self.busy.work(_WORK_EVERY)

    async def leak(self) -> None:
        """The leaky pool's life."""
        await self.leaky.leak(lambda: self._tempo.seconds(self._leak_every))

    async def shop(self, trying: Callable[[], Callable[[str | None], None]]) -> None:
        """The customer's life."""
        await self.customer.shop(self._tempo.seconds(_SHOP_EVERY), trying)

    def calm_down(self) -> None:
        """The rush is over: from now on it leaks more slowly, and goes on leaking."""
        self._leak_every = _LEAK_LATER_EVERY

    async def proofs(self) -> AsyncIterator[Proof]:
        """Ask everybody who is to live."""
        for resident in self.residents:
            yield await resident.prove()

    async def leave(self) -> None:
        """Send everybody home."""
        everybody: tuple[Client, ...] = (*self.residents, self.console, self.leaky, self.customer)
        for client in everybody:
            await client.leave()
