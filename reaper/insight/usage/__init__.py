"""Usage: the sessions that hold the slots of one server, counted by name, now and over the last minutes."""
