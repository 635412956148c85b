"""Campaigns: each tries one promise many thousand times, with the real `reaper run` at a real server."""
