"""What can go wrong with a server, in sentences without secrets."""


class ServerError(Exception):
    """The server could not be reached, was lost, or refuses."""


class Unreachable(ServerError):
    """No connection could be made."""


class Lost(ServerError):
    """The connection broke; whether the last statement ran is not known."""


class Refused(ServerError):
    """The server is there, and the reaper must not or cannot work on it."""


def sentence(error: BaseException) -> str:
    """What the driver says, on one line.

    Only `str`: the representation of a failed connection contains its password.
    """
    said = " ".join(str(error).split()) or type(error).__name__
    state = getattr(error, "sqlstate", None)
    return f"{said} (SQLSTATE {state})" if state else said
