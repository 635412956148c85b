"""The promises of the pure heart, in tables and properties."""
