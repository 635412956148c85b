"""On which majors of PostgreSQL the short forms run."""

from tests.postgres.conftest import major, pytest_generate_tests

__all__ = ["major", "pytest_generate_tests"]
