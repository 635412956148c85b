"""Faults: real reapers at a real server under load, while everything around them and they themselves fail.

The clients know when they used their sessions; the judge compares that with the server's log and the audit
log. No session may be terminated wrongly or without an intent, and everything must go on by itself.
"""
