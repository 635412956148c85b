"""What the demo counts and tells."""
