"""History files and saved snapshots: write them, read them back.

Law: a history never holds a query, a file that is read may be hostile, and reading needs no server.
Face: `write`, `read` and `aliases` for histories, `snapshot` for a saved snapshot.
"""
