"""What all tests share; the fixtures themselves are in tests/support/fixtures.py."""

pytest_plugins = ["tests.support.fixtures"]
