"""What the promises are worth when they are tried many thousand times; counted, judged and printed.

`python -m tests.lab NAME` runs one campaign with the real reaper at a real server, and ends with 1 when
a promise was broken. The same campaigns run in short form with the other tests.
"""
