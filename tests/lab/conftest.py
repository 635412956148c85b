"""The majors of PostgreSQL that the short forms run on."""

from tests.postgres.conftest import major, pytest_generate_tests

__all__ = ["major", "pytest_generate_tests"]
