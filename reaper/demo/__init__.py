"""`reaper demo`: an embedded PostgreSQL, healthy and leaky clients, and the service's own cycle.

Face: `play` runs the demo, `screen` shows it. `server` is also used by the tests.
"""
