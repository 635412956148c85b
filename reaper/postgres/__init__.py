"""The server: connecting, observing, terminating. All SQL of the reaper stands here."""
