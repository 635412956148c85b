"""What a running service reports."""
