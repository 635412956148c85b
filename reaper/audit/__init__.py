"""What must last: the audit record, durable before the first signal, and saved snapshots.

The law of this floor: an event is a frozen value, every sink gets every event, and no sink knows another.
When one of them cannot write, the call fails, and whoever called terminates nothing. What is read back is
data of unknown origin: nothing in it raises, nothing in it is believed to be whole.
"""
