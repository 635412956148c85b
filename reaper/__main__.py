"""`python -m reaper` is `reaper`."""

from reaper.cli import main

main()
