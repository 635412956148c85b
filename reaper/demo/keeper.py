"""Who cleans up after us when we cannot: a shell that outlives us by a moment."""

import subprocess
from pathlib import Path
from typing import Final

# It waits for the end of its standard input, which is ours to close; after a SIGKILL the kernel closes it.
# PR_SET_PDEATHSIG would strike when the thread that started the server ends, and could not remove the folder.
_SCRIPT: Final = """
trap '' INT TERM HUP
read -r _
if kill -QUIT "$1" 2>/dev/null; then
    tries=0
    while kill -0 "$1" 2>/dev/null && [ "$tries" -lt 80 ]; do sleep 0.1; tries=$((tries + 1)); done
    kill -KILL "$1" 2>/dev/null
fi
rm -rf -- "$2"
"""


class Keeper:
    """Ends a server and removes its folder as soon as this program is no more, however it ended."""

    def __init__(self, *, pid: int, folder: Path) -> None:
        # The shell's own words, and arguments that it does not interpret.
        self._shell = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", _SCRIPT, "sh", str(pid), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Send it away: the server has ended in the ordinary way."""
        self._shell.kill()
        self._shell.communicate()
