"""Connecting, observing, terminating, leading. All SQL of the product is in this package, in sql/.

One connection per server, autocommit, one statement at a time. Only `service` imports the terminator.
"""
