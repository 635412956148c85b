"""`reaper demo`: an embedded PostgreSQL, honest and leaky clients, and the reaper at work."""
