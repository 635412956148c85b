"""Backtest: what a policy file would have terminated over a recorded history.

Law: pure, it decides with the code of the service, and memory does not grow with the length of the history.
Face: `result.Backtest`, one set of rules over one server, and `compare.Comparison` of two of them.
"""
