"""The judge: compares the clients' accounts, the server's log and counters, and the audit log."""
