"""Fixtures: relays as real processes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from harness import RelayProcess


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    """A relay with the default settings, shared by the tests of a module."""
    with RelayProcess() as relay:
        yield relay


@pytest.fixture
def start_relay() -> Iterator[Callable[..., RelayProcess]]:
    """Start relays with settings of the test's own; they end with the test."""
    with ExitStack() as stack:
        yield lambda *options, **more: stack.enter_context(RelayProcess(*options, **more))
