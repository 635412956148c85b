"""What to terminate: a snapshot, the rules and a memory give a plan (`decide`).

Law: no I/O, no clock, no third-party package. Time is an argument, by the server's clock. Every function is
total, and the same arguments give the same plan.
"""
