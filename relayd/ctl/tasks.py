"""How asyncio work runs and ends: blocking calls, races, interruption."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def in_thread(function: Callable[..., T], *args: object) -> asyncio.Future[T]:
    """Run a call that may block for ever, such as a read from a pipe, in a daemon thread.

    Unlike `asyncio.to_thread`, nothing waits for the thread when the program ends. Cancelling the
    future abandons the call: what it returns is lost.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def call() -> None:
        try:
            result = function(*args)
        except Exception as exc:
            settle(future.set_exception, exc)
        else:
            settle(future.set_result, result)

    def settle(set_outcome: Callable[[Any], None], outcome: object) -> None:
        def on_loop() -> None:
            if not future.done():
                set_outcome(outcome)

        with contextlib.suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(on_loop)

    threading.Thread(target=call, daemon=True).start()
    return future


async def until_first(*works: Coroutine[Any, Any, None]) -> None:
    """Run several works until one ends or fails; cancel the others and wait for their end."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Run a work until it ends; SIGINT and SIGTERM cancel it, which is a normal end.

    A second signal cancels what the work still does on its way out.
    """
    task = asyncio.create_task(work)
    with _signals_call(task.cancel):
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


@contextlib.contextmanager
def _signals_call(callback: Callable[[], object]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in numbers:
            loop.add_signal_handler(number, callback)
    except NotImplementedError:
        # Windows: the handlers are those of the process and stay until it ends.
        for number in numbers:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))
        yield
        return
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
