"""Fixtures: relays as real processes; the order of the tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from harness import RelayProcess
from hypothesis import settings

# How long an example takes says more of the machine than of relayd.
settings.register_profile("relayd", deadline=None)
settings.load_profile("relayd")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the test that takes a minute, so that the others run beside it."""
    items.sort(key=lambda item: item.name != "test_a_minute_at_half_the_rate")


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
