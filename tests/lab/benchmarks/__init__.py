"""Benchmarks: what the service costs and how quick it is; measured and printed, never asserted.

What is compared is measured in the same run, at the same time or in turns: on another machine, or beside
other work, the ratios hold and the milliseconds do not.
"""
