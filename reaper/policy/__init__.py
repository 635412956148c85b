"""What to reap: the pure heart. Snapshot + Rules -> Plan.

The law of this floor: no I/O, no clock, no vendor. Time is an argument and comes from the server that is
judged; every function is total, and the same arguments give the same plan.
"""
