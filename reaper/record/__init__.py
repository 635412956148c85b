"""What must last: the audit record, durable before the first signal, and saved snapshots."""
