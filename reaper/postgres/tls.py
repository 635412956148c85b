"""How the network path to the server is protected, and why a certificate is not accepted."""

import asyncio
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from psycopg.pq.abc import PGconn

_SSL_REQUEST: Final = (8).to_bytes(4) + (80_877_103).to_bytes(4)
_HANDSHAKE_SECONDS: Final = 3.0
_DEFAULT_ROOT: Final = "~/.postgresql/root.crt"
_SYSTEM: Final = "system"

VERIFY: Final = (
    "sslmode=verify-full and sslrootcert=FILE in the DSN or the service file (or PGSSLMODE, PGSSLROOTCERT); "
    "with SCRAM passwords, channel_binding=require does it too"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPath:
    """The network path of a connection."""

    host: str
    address: str
    encrypted: bool
    options: dict[str, str]
    """The options that libpq used, from the DSN, the environment or a service file."""

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
        """The attack that the path allows; None if there is none."""
        mode = self.options.get("sslmode", "prefer")
        if self.local or self.options.get("gssencmode") == "require":
            return None
        if not self.encrypted:
            return "the connection is not encrypted: an attacker on the path can read and change it"
        if mode == "verify-full" or self.options.get("channel_binding") == "require":
            return None
        unchecked = "name" if mode == "verify-ca" else "certificate"
        return (
            f"the server's {unchecked} is not checked (sslmode={mode}): "
            "an attacker on the path can pose as the server"
        )


_FIXES: Final = (
    ("does not match host name", "connect by a name in the certificate, or issue it for this name"),
    (
        "root certificate file",
        "name the file of the CA's certificate by sslrootcert, or trust this host's CAs: sslrootcert=system",
    ),
    ("server does not support SSL", "switch it on at the server (ssl = on), and do not weaken sslmode"),
    ("certificate required", "the server wants a client certificate: name ours by sslcert and sslkey"),
    ("channel binding required", "the password is not SCRAM, or a proxy or an attacker on the path ends TLS"),
    *(
        (alert, "the server does not accept our certificate: renew sslcert, or fix ssl_ca_file at the server")
        for alert in ("alert unknown ca", "alert certificate expired", "alert bad certificate")
    ),
)
_FIXES_BY_CODE: Final = {
    9: "check this host's clock, or wait",
    10: "renew it at the server, and reload the server",
}
"""By OpenSSL's verify code."""


async def tls_fix(message: str, path: NetworkPath, port: int) -> str | None:
    """The fix for a connection that failed with this message of libpq; None if it is not about TLS."""
    if "certificate verify failed" in message:
        return await _why_not_accepted(path, port)
    return next((fix for part, fix in _FIXES if part in message), None)


async def _why_not_accepted(path: NetworkPath, port: int) -> str:
    root = path.options.get("sslrootcert") or _DEFAULT_ROOT
    error = await _repeat_handshake(path, port, root)
    if error is None:
        return f"expired, revoked, or by a CA that is not in sslrootcert ({root})"
    unknown = f"sslrootcert ({root}) must hold the CA that issued it; if it does, this is not your server"
    return f"{error.verify_message}: {_FIXES_BY_CODE.get(error.verify_code, unknown)}"


async def _repeat_handshake(path: NetworkPath, port: int, root: str) -> ssl.SSLCertVerificationError | None:
    # libpq does not report why it rejects a certificate; OpenSSL does.
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            context = _trusting(root)
            reader, writer = await asyncio.open_connection(path.address or path.host, port)
            try:
                writer.write(_SSL_REQUEST)
                await reader.readexactly(1)
                await writer.start_tls(context, server_hostname=path.host)
            finally:
                writer.transport.abort()
    except ssl.SSLCertVerificationError as error:
        return error
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
