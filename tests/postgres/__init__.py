"""The promises that only a real PostgreSQL can prove, and the servers to prove them on."""
