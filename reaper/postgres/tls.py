"""How the path to the server is protected, and why a certificate is not accepted."""

import asyncio
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from psycopg.pq.abc import PGconn

_SSL_REQUEST: Final = (8).to_bytes(4) + (80_877_103).to_bytes(4)
_PATIENCE_SECONDS: Final = 3.0
_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
_DEFAULT_ROOT: Final = "~/.postgresql/root.crt"
_SYSTEM: Final = "system"

VERIFY: Final = (
    "sslmode=verify-full and sslrootcert=FILE in the DSN or the service file (or PGSSLMODE, PGSSLROOTCERT); "
    "with SCRAM passwords, channel_binding=require does it too"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPath:
    """How a connection reaches its server."""

    host: str
    address: str
    encrypted: bool
    options: dict[str, str]
    """The options that libpq used, from whatever source."""

    @classmethod
    def of(cls, connection: PGconn) -> Self:
        """The path of a connection, which may have failed."""
        return cls(
            host=connection.host.decode(errors="replace"),
            address=connection.hostaddr.decode(errors="replace"),
            encrypted=bool(connection.ssl_in_use),
            options={
                option.keyword.decode(): option.val.decode(errors="replace")
                for option in connection.info
                if option.val
            },
        )

    @property
    def local(self) -> bool:
        """Return True if the path does not leave this host."""
        if self.host.startswith(("/", "@")):
            return True
        try:
            return ip_address(self.address).is_loopback
        except ValueError:
            return False

    @property
    def exposed(self) -> str | None:
        """What a man in the middle could do; None if nothing."""
        mode = self.options.get("sslmode", "prefer")
        if self.local or self.options.get("gssencmode") == "require":
            return None
        if not self.encrypted:
            return (
                "the connection is not encrypted: who stands in between can read it, and speak for the server"
            )
        if mode == "verify-full" or self.options.get("channel_binding") == "require":
            return None
        unchecked = "name" if mode == "verify-ca" else "certificate"
        return (
            f"the server's {unchecked} is not checked (sslmode={mode}): "
            "who stands in between can read the connection, and be the server"
        )


_CURES: Final = (
    ("does not match host name", "connect by a name that the certificate bears, or issue it for this name"),
    (
        "root certificate file",
        "name the file of the CA's certificate by sslrootcert, or trust this host's CAs: sslrootcert=system",
    ),
    ("server does not support SSL", "switch it on at the server (ssl = on), and do not weaken sslmode"),
    ("certificate required", "the server wants a client certificate: name ours by sslcert and sslkey"),
    (
        "channel binding required",
        "the password is not SCRAM, or somebody stands in between and ends TLS: a proxy, or worse",
    ),
)
_ALERTS_ABOUT_OURS: Final = ("alert unknown ca", "alert certificate expired", "alert bad certificate")


async def cure(said: str, way: NetworkPath, port: int) -> str | None:
    """The fix for a connection that failed with this message of libpq; None if it is not about TLS."""
    if "certificate verify failed" in said:
        return await _why_not_accepted(way, port)
    if any(alert in said for alert in _ALERTS_ABOUT_OURS):
        return "the server does not accept our certificate: renew sslcert, or mend ssl_ca_file at the server"
    return next((what for words, what in _CURES if words in said), None)


async def _why_not_accepted(way: NetworkPath, port: int) -> str:
    root = way.options.get("sslrootcert") or _DEFAULT_ROOT
    refusal = await _refusal(way, port, root)
    if refusal is None:
        return f"expired, revoked, or by a CA that is not in sslrootcert ({root})"
    if refusal.verify_code == _EXPIRED:
        what = "renew it at the server, and reload the server"
    elif refusal.verify_code == _NOT_YET_VALID:
        what = "look at this host's clock, or wait"
    else:
        what = f"sslrootcert ({root}) must hold the CA that issued it; if it does, this is not your server"
    return f"{refusal.verify_message}: {what}"


async def _refusal(way: NetworkPath, port: int, root: str) -> ssl.SSLCertVerificationError | None:
    """Repeat the handshake: libpq does not report why it rejects a certificate."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            context = _trusting(root)
            reader, writer = await asyncio.open_connection(way.address or way.host, port)
            try:
                writer.write(_SSL_REQUEST)
                await reader.readexactly(1)
                await writer.start_tls(context, server_hostname=way.host)
            finally:
                writer.transport.abort()
    except ssl.SSLCertVerificationError as refusal:
        return refusal
    except (OSError, ValueError, EOFError):
        pass  # unreachable by now, or not PostgreSQL
    return None


def _trusting(root: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # libpq reports a wrong name itself
    if root == _SYSTEM:
        context.set_default_verify_paths()
    else:
        context.load_verify_locations(Path(root).expanduser())
    return context
