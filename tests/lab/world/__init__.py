"""The world of an experiment: embedded servers, the real `reaper run`, and ways to isolate them."""
