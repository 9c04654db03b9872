"""Fixtures of the tests in a browser."""

from collections.abc import Iterator
from typing import Any

import pytest
import sharing
from sharing import OpenShare


@pytest.fixture
def stream_id(request: pytest.FixtureRequest) -> str:
    """An id for the test's stream: the test's name, as far as an id may hold it."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:64]


@pytest.fixture(scope="module")
def sharing_browser() -> Iterator[Any]:
    """A browser that shares a tab when it is asked for a screen, for the tests of a module."""
    with sharing.open_browser() as browser:
        yield browser


@pytest.fixture
def open_share(sharing_browser: Any) -> Iterator[OpenShare]:
    """Open share pages, which end with the test."""
    with sharing.share_pages(sharing_browser) as open_share:
        yield open_share
