"""What to do when nobody can tell who holds the connections."""

from typing import Final

from reaper.postgres.errors import ServerError, Unreachable

_WAYS: Final = """\
If its slots are taken, there are four ways in:
  1. A reaper that runs is already inside: `reaper usage --url http://HOST:9432`, where it listens.
  2. A superuser has slots of its own: `reaper usage --dsn "... user=postgres"`.
  3. From PostgreSQL 16 on, so has a role with `GRANT pg_use_reserved_connections`, where
     reserved_connections is more than 0.
  4. On the server's host, `ps -u postgres -o pid,args` shows role, database, client and state of
     each session; `kill PID` ends that one, as pg_terminate_backend does. Never `kill -9`: that
     ends all of them."""


def nobody_gets_in(server: str, error: ServerError, nobody: Exception | None) -> str:
    """All that is known, and every way that is left where it could be the slots."""
    ways = [_WAYS] if isinstance(error, Unreachable) else []
    return "\n".join([f"{server}: {error}", *([str(nobody)] if nobody else []), *ways])
