"""Fixtures of the tests in a browser."""

import pytest


@pytest.fixture
def stream_id(request: pytest.FixtureRequest) -> str:
    """An id for the test's stream: the test's name, as far as an id may hold it."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:64]
