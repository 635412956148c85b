"""The audit log: written before the first signal, read back, verified, reconciled and copied to a table.

Law: an event is an immutable value, every sink gets every event, and no sink knows another. If one cannot
write, the call raises AuditLogFailed, and nothing is terminated. What is read back is untrusted data: no line
of it raises an error. Face: `ledger`, `file`, `sinks` and `recovery` write; `events`, `reader`, `rotation`,
`verify`, `reconcile`, `dry_runs` and `tail` read.
"""
