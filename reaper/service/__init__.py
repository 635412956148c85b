"""When: the cycle, and the loop of one server (composition root)."""
