"""A server that speaks TLS, whatever the one behind it was built with, and certificates for it."""

import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Final, Self

import trustme
from psycopg.conninfo import conninfo_to_dict, make_conninfo

NAME: Final = "localhost"
_LOOPBACK: Final = "127.0.0.1"
_CHUNK: Final = 65_536
_SSL_REQUEST: Final = (8).to_bytes(4) + (80_877_103).to_bytes(4)


class Front(ThreadingTCPServer):
    """Ends TLS before a server, with whatever certificate the test wants.

    With threads and plain sockets: asyncio drops the alert that tells a client why it was refused.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, dsn: str, certificate: trustme.LeafCert) -> None:
        super().__init__((_LOOPBACK, 0), _Visit)
        target = conninfo_to_dict(dsn)
        self.target = (str(target["host"]), int(target.get("port") or 5432))
        self._clients: trustme.CA | None = None
        self.present(certificate)
        self._thread = Thread(target=self.serve_forever, args=(0.01,), name="tls", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def present(self, certificate: trustme.LeafCert) -> None:
        """From now on, newcomers are shown this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        context.set_alpn_protocols(["postgresql"])
        self.context = context
        self.ask_for_certificates_of(self._clients)

    def ask_for_certificates_of(self, clients: trustme.CA | None) -> None:
        """From now on, newcomers need a certificate of this authority."""
        self._clients = clients
        if clients:
            clients.configure_trust(self.context)
            self.context.verify_mode = ssl.CERT_REQUIRED

    def guarded(self, dsn: str, root: Path | str, **options: str) -> str:
        """The same way in, believing only certificates that this file vouches for."""
        verified = {"sslmode": "verify-full", "sslrootcert": str(root), **options}
        return make_conninfo(dsn, host=NAME, hostaddr=_LOOPBACK, port=self.server_address[1], **verified)


class _Visit(BaseRequestHandler):
    """One connection."""

    server: Front

    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(self.server.target) as there:
            if self.request.recv(len(_SSL_REQUEST), socket.MSG_WAITALL) != _SSL_REQUEST:
                return
            self.request.sendall(b"S")
            with self.server.context.wrap_socket(self.request, server_side=True) as here:
                Thread(target=_pump, args=(there, here), daemon=True).start()
                _pump(here, there)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def root_of(authority: trustme.CA, folder: Path, name: str = "root.crt") -> Path:
    """The file by which clients believe this authority."""
    path = folder / name
    authority.cert_pem.write_to_path(str(path))
    return path


def issued(authority: trustme.CA, name: str = NAME, *, valid: tuple[int, int] = (-1, 1)) -> trustme.LeafCert:
    """A certificate that is valid from so many days after now to so many days after now."""
    begin, end = (datetime.now(UTC) + timedelta(days=days) for days in valid)
    return authority.issue_cert(name, not_before=begin, not_after=end)


def written(certificate: trustme.LeafCert, folder: Path, *, mode: int = 0o600) -> dict[str, str]:
    """A client's certificate and key in files, as libpq's options."""
    key, chain = folder / "client.key", folder / "client.crt"
    certificate.private_key_pem.write_to_path(str(key))
    chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    key.chmod(mode)
    return {"sslcert": str(chain), "sslkey": str(key)}
