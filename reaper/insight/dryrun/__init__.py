"""Dry runs: what happens to their sessions, the regret of a policy, and advice on enforcing it. No I/O."""
