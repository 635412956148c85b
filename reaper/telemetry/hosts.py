"""By which names a port on loopback may be asked for.

A web page of a stranger can have its own name lead to this host (DNS rebinding), and could then read in the
browser of whoever looks at it what this port shows. The browser sends that name as Host; an address, which
no name server can turn, or `localhost` it sends only when somebody has asked for just that. Where the port
is open to others anyway, as in a container, their names for it are not ours to know.
"""

from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

MISDIRECTED: Final = 421
_REFUSAL: Final = (
    "this port answers to addresses and to localhost, and not to other names, for a web page could make one "
    "lead here; let it answer to yours with --listen-name NAME\n"
)


def for_us(pages: ASGIApp, *, at: str, names: Collection[str] = ()) -> ASGIApp:
    """The pages; when they are served at a loopback address, for those who ask for them by a proper name."""
    if not ip_address(at).is_loopback:
        return pages
    known = {"localhost", *map(_folded, names)}

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        hosts = (value.decode("latin-1") for name, value in scope["headers"] if name == b"host")
        if all(_proper(host, known) for host in hosts):
            await pages(scope, receive, send)
        else:
            await Response(_REFUSAL, status_code=MISDIRECTED, media_type="text/plain")(scope, receive, send)

    return answered


def _proper(host: str, known: Collection[str]) -> bool:
    name, colon, port = host.rpartition(":")
    if not colon or not port.isascii() or not (port.isdigit() or not port):
        name = host
    if _folded(name) in known:
        return True
    with suppress(ValueError):
        return bool(ip_address(name.removeprefix("[").removesuffix("]")))
    return False


def _folded(name: str) -> str:
    return name.lower().removesuffix(".")
