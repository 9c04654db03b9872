"""Tests of blocking calls, races and interruption."""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable

import pytest

from relayd.ctl.tasks import in_thread, until_first, until_interrupted


async def nothing(seen: list[str]) -> None:
    """Do nothing until cancelled."""
    try:
        await asyncio.Event().wait()
    finally:
        seen.append("cancelled")


async def result_of(future: Awaitable[object]) -> object:
    """Wait for a future."""
    return await future


def test_a_call_in_a_thread_returns() -> None:
    """What the call returns is the future's result."""

    async def main() -> int:
        return await in_thread(int, "42")

    assert asyncio.run(main()) == 42


def test_a_call_in_a_thread_raises() -> None:
    """What the call raises is the future's exception."""

    async def main() -> int:
        return await in_thread(int, "x")

    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(main())


def test_an_abandoned_call_holds_nothing_up() -> None:
    """Neither the loop's end nor a cancelled future waits for the thread, nor minds its result."""
    release, threads = threading.Event(), []

    def block() -> None:
        threads.append(threading.current_thread())
        release.wait()

    async def main() -> None:
        in_thread(block)
        cancelled = in_thread(block)
        cancelled.cancel()
        release.set()
        threads[1].join()
        await asyncio.sleep(0)
        release.clear()
        in_thread(block)

    asyncio.run(main())
    release.set()
    for thread in threads:
        assert thread.daemon
        thread.join()


def test_the_first_to_end_ends_the_others() -> None:
    """When one work ends, the others are cancelled and have ended too."""
    seen: list[str] = []

    async def main() -> None:
        await until_first(asyncio.sleep(0), nothing(seen))

    asyncio.run(main())
    assert seen == ["cancelled"]


def test_the_first_to_fail_ends_the_others() -> None:
    """When one work fails, the others are cancelled and the error is raised."""
    seen: list[str] = []

    async def fail() -> None:
        raise ValueError("no")

    async def main() -> None:
        await until_first(nothing(seen), fail())

    with pytest.raises(ValueError, match="no"):
        asyncio.run(main())
    assert seen == ["cancelled"]


def test_work_ends_by_itself() -> None:
    """Without a signal the work's end is the end, its error the error."""

    async def fail() -> None:
        raise ValueError("no")

    asyncio.run(until_interrupted(asyncio.sleep(0)))
    with pytest.raises(ValueError, match="no"):
        asyncio.run(until_interrupted(fail()))


@pytest.mark.parametrize("loop_has_signals", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_normal_end(
    number: signal.Signals, loop_has_signals: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT and SIGTERM cancel the work, also where the loop can't handle signals."""
    seen: list[str] = []
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    async def work() -> None:
        os.kill(os.getpid(), number)
        await nothing(seen)

    async def main() -> None:
        if not loop_has_signals:

            def refuse(*_: object) -> None:
                raise NotImplementedError

            monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", refuse)
        await until_interrupted(work())

    try:
        asyncio.run(main())
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert seen == ["cancelled"]


def test_a_second_signal_ends_the_way_out() -> None:
    """A second signal cancels what the work does after the first."""
    seen: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await nothing(seen)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await nothing(seen)

    asyncio.run(until_interrupted(work()))
    assert seen == ["cancelled", "cancelled"]
