"""The parts of the daemon, on a clock that tests wind."""
