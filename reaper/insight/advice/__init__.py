"""What a person who knows PostgreSQL would say of what was seen: each finding with its numbers and its cure.

The law of this room: it applies nothing, and it guesses nothing. A finding counts what was seen, says how
sure that makes us, and leaves out what the server did not tell.
"""
