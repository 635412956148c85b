"""Clients of the server; each session has an account of what its client did and how it ended."""
