"""When: the daemon, its loops (one for each server), and the cycle that they run.

Law: only this package imports the terminator, and only `cycle` calls it. Face: `daemon`, `once` and `cycle`.
"""
