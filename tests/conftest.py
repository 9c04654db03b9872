"""Fixtures: relays as real processes; the order of the tests, and who has the machine."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
from harness import RelayProcess
from hypothesis import settings

# How long an example takes says more of the machine than of relayd.
settings.register_profile("relayd", deadline=None)
settings.load_profile("relayd")


def pytest_configure(config: pytest.Config) -> None:
    """Say what the markers mean."""
    config.addinivalue_line("markers", "alone: measures; no other test may run beside it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that run alone; beside the others, what takes long comes first.

    Tests that use a container stay together: each worker of theirs would boot one.
    """

    def order(item: pytest.Item) -> int:
        if item.get_closest_marker("alone"):
            return 0
        if "service" in getattr(item, "fixturenames", ()):
            return 1
        return 2 if item.name == "test_a_minute_at_half_the_rate" else 3

    items.sort(key=order)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Give a test its share of the machine: all of it, if it is marked `alone`."""
    with _machine(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def _machine(*, alone: bool) -> Iterator[None]:
    """Hold the machine, shared or alone; who waits to be alone is not overtaken."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder = Path(gettempdir())
    with (
        (folder / f"relayd-tests-{os.getuid()}.queue").open("w") as queue,
        (folder / f"relayd-tests-{os.getuid()}.lock").open("w") as held,
    ):
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(held, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        yield


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
