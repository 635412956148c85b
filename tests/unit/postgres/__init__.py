"""What of the way to the server needs none."""
