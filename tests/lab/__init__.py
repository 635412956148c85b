"""The lab: campaigns that try the promises thousands of times, faults, benchmarks and fuzzing.

`python -m tests.lab NAME` runs one of them with the real command at a real server. Campaigns and faults end
with exit code 1 when a promise was broken; benchmarks measure and print, and assert nothing.
"""
