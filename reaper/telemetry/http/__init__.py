"""The HTTP port, read-only: `routes` has its paths, `server` serves them, `views` are its values."""
