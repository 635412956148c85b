"""The fault campaign: a real reaper at a real server under a living load, and faults that strike both.

`python -m tests.lab faults` runs it. The clients of the load know from their own side when they last used
their sessions; the judge believes them, the server's log and the record, and asks whether anybody was
terminated who did not deserve it, or without an intent.
"""
